//! Where pins may live, and what is refused there (fault-cases F41, S15).

use std::{fs, os::unix::fs::chown};

use aya::maps::Array;
use nix::mount::{MsFlags, mount};

use super::{
    super::{Dataplane, Options, bpffs, detach_all},
    sandbox::{names, sandbox},
};

#[test]
fn other_versions_and_junk_are_refused_and_detach_removes_only_versions() {
    sandbox(|sandbox| {
        let root = sandbox.root();
        fs::create_dir_all(root.join("v0/maps")).unwrap();
        Array::<_, u64>::create(1, 0).unwrap().pin(root.join("v0/maps/OLD")).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("lb/v0") && message.contains("lb detach"), "{message}");
        detach_all(&root).unwrap();
        assert!(!root.exists());

        fs::create_dir_all(root.join("junk")).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("lb/junk") && message.contains("remove it"), "{message}");
        detach_all(&root).unwrap();
        assert_eq!(names(&root), ["junk"]);

        fs::remove_dir(root.join("junk")).unwrap();
        fs::create_dir(root.join("decap")).unwrap();
        drop(sandbox.open());
        detach_all(&root).unwrap();
        assert_eq!(names(&root), ["decap"]);
        detach_all(&root.join("nowhere")).unwrap();
    });
}

#[test]
fn junk_in_the_place_of_a_directory_is_refused() {
    sandbox(|sandbox| {
        let version = sandbox.pins().version();
        fs::create_dir(sandbox.root()).unwrap();
        Array::<_, u64>::create(1, 0).unwrap().pin(&version).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        let named = version.display().to_string();
        assert!(message.contains(&named) && message.contains("remove it"), "{message}");
        detach_all(&sandbox.root()).unwrap();
        drop(sandbox.open());
    });
}

#[test]
fn somebody_elses_directory_is_refused() {
    sandbox(|sandbox| {
        fs::create_dir(sandbox.root()).unwrap();
        chown(sandbox.root(), Some(12_345), None).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("12345") && message.contains("redirect"), "{message}");
    });
}

#[test]
fn pins_need_a_bpffs_that_can_be_written() {
    sandbox(|sandbox| {
        let elsewhere = Options { pin_root: sandbox.directory.join("pins"), ..sandbox.options() };
        let message = sandbox.refused(&elsewhere).to_string();
        assert!(message.contains("mount -t bpf bpf /sys/fs/bpf"), "{message}");
        let none = None::<&str>;
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &sandbox.bpffs, none, read_only, none).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("remount,rw"), "{message}");
    });
}

#[test]
fn a_bpffs_is_mounted_only_where_nothing_is_and_where_it_stays() {
    sandbox(|sandbox| {
        // The sandbox has a mount namespace of its own and no bpffs in the usual place.
        let usual = Options { pin_root: "/sys/fs/bpf/lb".into(), ..sandbox.options() };
        let message = sandbox.refused(&usual).to_string();
        assert!(message.contains("mount namespace of its own"), "{message}");
        assert!(message.contains("mount -t bpf bpf /sys/fs/bpf"), "{message}");

        let place = sandbox.directory.join("place");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("file"), "").unwrap();
        let error = bpffs::mount_bpffs(&place).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTEMPTY));
        fs::remove_file(place.join("file")).unwrap();
        bpffs::mount_bpffs(&place).unwrap();
        let inside = Options { pin_root: place.join("lb"), ..sandbox.options() };
        Dataplane::open(&inside).unwrap();
    });
}

#[test]
fn names_with_dots_are_explained() {
    sandbox(|sandbox| {
        let dotted = Options { pin_root: sandbox.bpffs.join("lb.2"), ..sandbox.options() };
        let message = sandbox.refused(&dotted).to_string();
        assert!(message.contains("cannot contain dots"), "{message}");
    });
}

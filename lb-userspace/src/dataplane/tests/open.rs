//! Opening: fresh, over what an earlier daemon has left, and what is refused (fault-cases F41, F42, F43, S15).

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
};

use aya::{EbpfLoader, maps::Array, programs::Xdp};
use lb_common::{
    abi::{
        Address, BackendId, BackendRow, Phase, ReplyRow, ServiceRow, Slot, key_kind, map, program,
    },
    be::Be16,
};
use nix::mount::{MsFlags, mount};

use super::{
    super::{
        Dataplane, EntryKey, LoadError, Lock, LockError, Options, Sizes, bpffs, detach_all, layout,
        options,
    },
    sandbox::{names, sandbox, veth},
};
use crate::config::model::XdpMode;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_BALANCER"));

#[test]
fn a_new_data_plane_is_pinned_and_for_its_owner_alone() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        assert!(!dataplane.adopted());
        assert_eq!(dataplane.sizes(), sandbox.options().sizes);
        let pins = sandbox.pins();
        for directory in [sandbox.root(), pins.version(), pins.maps(), pins.links()] {
            let mode = fs::metadata(&directory).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{} has {mode:o}", directory.display());
        }
        let wanted = layout::wanted(&sandbox.options());
        for map in &wanted {
            let path = pins.maps().join(map.name);
            let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{} has {mode:o}", map.name);
            assert_eq!(layout::compare(&path, map).unwrap(), map.entries, "{}", map.name);
        }
        let mut expected: Vec<&str> = wanted.iter().map(|map| map.name).collect();
        expected.sort_unstable();
        assert_eq!(names(&pins.maps()), expected, "what is pinned");
    });
}

#[test]
fn every_map_of_the_object_is_pinned_but_those_that_begin_anew() {
    sandbox(|sandbox| {
        let ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        let wanted = layout::wanted(&sandbox.options());
        for (name, _) in ebpf.maps() {
            let anew = name == "LIMITS" || name == "AYA_LOGS" || name.starts_with('.');
            let pinned = wanted.iter().any(|map| map.name == name);
            assert!(pinned != anew, "{name}: pinned {pinned}");
        }
    });
}

#[test]
fn a_restart_adopts_everything() {
    sandbox(|sandbox| {
        let vip = Address::from(std::net::IpAddr::from([192, 0, 2, 1]));
        let slot = Slot::new(BackendId(3), BackendId(4), Phase::Window, 77);
        let service = ServiceRow { ring: 5, slots: 11, id: 2, vip, ..ServiceRow::default() };
        let backend = BackendRow { address: vip, mtu: 1400, flags: 2, ..BackendRow::default() };
        let reply = ReplyRow { vip, row: 9, ..ReplyRow::default() };
        let port = Be16::from_host(443);
        {
            let mut dataplane = sandbox.open();
            dataplane.arena().set_slot(4098, slot);
            dataplane.services().set(16, &service);
            dataplane.backends().set(599, &backend);
            dataplane.replies().set(599, &reply);
            dataplane.publish(vip, port, 6, key_kind::SERVICE, 16).unwrap();
        }
        // A smaller configuration runs in what there is.
        let asked = Sizes {
            services: 1,
            backends: 1,
            ring_slots: 1,
            table_buckets: 1,
            pins: 1,
            pins_unconfirmed: 1,
            allow_prefixes: 1,
        };
        let options = Options { sizes: asked, ..sandbox.options() };
        let dataplane = Dataplane::open(&options).unwrap();
        assert!(dataplane.adopted());
        assert_eq!(dataplane.sizes(), sandbox.options().sizes);
        assert_eq!(dataplane.arena().len(), 4099);
        assert_eq!(dataplane.arena().slot(4098), slot);
        assert_eq!(dataplane.services().get(16), service);
        assert_eq!(dataplane.backends().get(599), backend);
        assert_eq!(dataplane.replies().get(599), reply);
        let key = EntryKey { address: vip, port: 443, protocol: 6, kind: key_kind::SERVICE };
        assert_eq!(dataplane.entries(), [(key, 16)]);
    });
}

#[test]
fn a_larger_configuration_is_told_which_limit_and_what_to_do() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let mut larger = sandbox.options();
        larger.sizes.ring_slots += 1;
        let message = sandbox.refused(&larger).to_string();
        for part in ["ARENA", "4099", "4100", "limits.ring_slots", "lb detach"] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        drop(sandbox.open());
    });
}

#[test]
fn sizes_that_no_map_can_have_are_refused_before_anything_is_made() {
    sandbox(|sandbox| {
        for change in [
            |sizes: &mut options::Sizes| sizes.table_buckets = 24,
            |sizes: &mut options::Sizes| sizes.pins = 0,
            |sizes: &mut options::Sizes| sizes.services = u32::MAX,
        ] {
            let mut options = sandbox.options();
            change(&mut options.sizes);
            let error = sandbox.refused(&options);
            assert!(matches!(error, LoadError::Size { .. }), "{error}");
        }
        assert!(!sandbox.root().exists());
    });
}

#[test]
fn a_pin_of_another_layout_is_refused_by_name() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let pin = sandbox.pins().maps().join(map::BACKENDS);
        let refuse = |what: &str| {
            let message = sandbox.refused(&sandbox.options()).to_string();
            for part in ["BACKENDS", what, "lb detach"] {
                assert!(message.contains(part), "no {part:?} in: {message}");
            }
        };
        fs::remove_file(&pin).unwrap();
        // A larger value: the kernel would write past the buffers of whoever reads it.
        Array::<_, [u64; 16]>::create(600, 1024).unwrap().pin(&pin).unwrap();
        refuse("value of 128");
        fs::remove_file(&pin).unwrap();
        // Cannot be mapped.
        Array::<_, [u64; 8]>::create(600, 0).unwrap().pin(&pin).unwrap();
        refuse("flags 0x0");
        fs::remove_file(&pin).unwrap();
        aya::maps::PerCpuArray::<_, [u64; 8]>::create(600, 0).unwrap().pin(&pin).unwrap();
        refuse("PerCpuArray");
        fs::remove_file(&pin).unwrap();
        // No map at all.
        let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        let clock: &mut Xdp = ebpf.program_mut(program::CLOCK).unwrap().try_into().unwrap();
        clock.load().unwrap();
        clock.pin(&pin).unwrap();
        let error = sandbox.refused(&sandbox.options());
        assert!(error.to_string().contains("BACKENDS"), "{error}");
    });
}

#[test]
fn pins_that_disagree_about_a_limit_are_refused() {
    sandbox(|sandbox| {
        drop(sandbox.open());
        let pin = sandbox.pins().maps().join(map::REPLIES);
        fs::remove_file(&pin).unwrap();
        Array::<_, ReplyRow>::create(599, 1024).unwrap().pin(&pin).unwrap();
        let asked = Sizes { backends: 10, ..sandbox.options().sizes };
        let error = sandbox.refused(&Options { sizes: asked, ..sandbox.options() });
        assert!(matches!(error, LoadError::TooSmall { .. }), "{error}");
    });
}

#[test]
fn a_missing_pin_is_refused_while_a_nic_is_attached_and_else_begins_anew() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        let pin = sandbox.pins().maps().join(map::ARENA);
        {
            let mut dataplane = sandbox.open();
            dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
            dataplane.arena().set_slot(0, Slot::settled(BackendId(1)));
        }
        fs::remove_file(&pin).unwrap();
        let message = sandbox.refused(&sandbox.options()).to_string();
        assert!(message.contains("ARENA") && message.contains("lb detach"), "{message}");
        sandbox.pins();
        fs::remove_file(sandbox.pins().links().join("nic:native")).unwrap();
        // As a crash leaves it in the middle of the first start.
        let dataplane = sandbox.open();
        assert!(!dataplane.adopted());
        assert_eq!(dataplane.arena().slot(0), Slot::default());
    });
}

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
        assert!(message.contains("lb/v1") && message.contains("remove it"), "{message}");
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

#[test]
fn one_daemon_at_a_time() {
    sandbox(|sandbox| {
        let run = sandbox.directory.join("run");
        let lock = Lock::acquire(&run).unwrap();
        match Lock::acquire(&run) {
            Err(error @ LockError::Running { .. }) => {
                let message = error.to_string();
                let pid = format!("already running (pid {})", std::process::id());
                assert!(message.contains(&pid), "{message}");
            }
            other => panic!("{:?}", other.err()),
        }
        // With another run directory, the pins tell.
        let first = sandbox.open();
        let error = sandbox.refused(&sandbox.options());
        assert!(matches!(error, LoadError::InUse { .. }), "{error}");
        drop((first, lock));
        assert!(sandbox.open().adopted());
        Lock::acquire(&run).unwrap();
    });
}

/// Capability numbers (capabilities(7)) that suffice, and their names.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];

#[test]
fn the_named_capabilities_suffice() {
    sandbox(|sandbox| {
        let nic = veth("nic", "far");
        keep_capabilities(&NEEDED.map(|(number, _)| number));
        let mut dataplane = sandbox.open();
        dataplane.attach(nic, "nic", XdpMode::Native, false).unwrap();
        dataplane.clock().unwrap();
        dataplane.dump_pins(true).unwrap();
        assert_eq!(dataplane.attachments().len(), 1);
        drop(dataplane);
        sandbox.open().attach(nic, "nic", XdpMode::Native, false).unwrap();
        detach_all(&sandbox.root()).unwrap();
    });
}

#[test]
fn a_missing_capability_is_named() {
    for (without, name) in NEEDED {
        sandbox(|sandbox| {
            let others: Vec<u32> =
                NEEDED.map(|(number, _)| number).into_iter().filter(|n| *n != without).collect();
            keep_capabilities(&others);
            let message = sandbox.refused(&sandbox.options()).to_string();
            assert!(message.contains(&format!("lb needs {name} to load")), "{message}");
        });
    }
}

/// Gives all other capabilities of this thread away.
fn keep_capabilities(numbers: &[u32]) {
    const VERSION_3: u32 = 0x2008_0522;
    let mask = numbers.iter().fold(0u64, |mask, number| mask | 1 << number);
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: the low halves, then the high ones.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: capset(2) reads a header of 8 and data of 24 bytes; it changes this thread only, which ends with the test.
    let result = unsafe { libc::syscall(libc::SYS_capset, (&raw const header), (&raw const data)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

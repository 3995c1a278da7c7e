//! Namespaces of its own for each test: pins, NICs and mounts of the host are out of reach, and the kernel takes all away
//! when the test's thread ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use aya::maps::{Map, MapData, MapError};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::super::{Dataplane, LoadError, Options, Sizes, bpffs::PinDirectory, foreign};

/// What a test has.
pub(super) struct Sandbox {
    /// An ordinary directory.
    pub(super) directory: PathBuf,
    /// A bpffs.
    pub(super) bpffs: PathBuf,
}

/// Runs a test in a thread that has left the host's namespaces.
pub(super) fn sandbox(test: impl FnOnce(&Sandbox) + Send) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "tests of the data plane load programs into the kernel: run them as root"
    );
    let directory = tempfile::tempdir().unwrap();
    let body = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // The host's bpffs is not there for a test that strays.
        while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {}
        let bpffs = directory.path().join("bpffs");
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        test(&Sandbox { directory: directory.path().to_owned(), bpffs });
    };
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Sandbox {
    /// Where the data plane's pins go.
    pub(super) fn root(&self) -> PathBuf {
        self.bpffs.join("lb")
    }

    /// Its pins.
    pub(super) fn pins(&self) -> PinDirectory {
        PinDirectory::new(&self.root())
    }

    /// Small sizes, all different.
    pub(super) fn options(&self) -> Options {
        Options {
            pin_root: self.root(),
            run_dir: self.directory.clone(),
            sizes: Sizes {
                services: 8,
                backends: 600,
                ring_slots: 4099,
                table_buckets: 16,
                pins: 150_000,
                pins_unconfirmed: 1000,
                connections: 100,
                flows: 150_000,
                flows_unconfirmed: 1000,
                sources: 150_000,
                source_addresses: 0,
                allow_prefixes: 20,
                deny_prefixes: 20,
            },
            hash_keys: [7; lb_common::hash::KEYS],
            single_nic: false,
            have_nat: true,
            take_over: false,
            observe: false,
            limit_openings: false,
            track: false,
            quic: false,
            fullnat: false,
            toa: false,
            ports: 0,
            entropy: 0,
            vlan: false,
            have_v6: true,
            log_level: 0,
        }
    }

    /// Loads.
    pub(super) fn open(&self) -> Dataplane {
        Dataplane::open(&self.options()).unwrap()
    }

    /// Loads, and must be refused.
    #[track_caller]
    pub(super) fn refused(&self, options: &Options) -> LoadError {
        match Dataplane::open(options) {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error,
        }
    }

    /// A pinned map, as anybody who may could open it.
    pub(super) fn map<T: TryFrom<Map, Error = MapError>>(&self, name: &str) -> T {
        let data = MapData::from_pin(self.pins().maps().join(name)).unwrap();
        T::try_from(Map::from_map_data(data).unwrap()).unwrap()
    }
}

/// `ip ...`, in the test's network namespace.
#[track_caller]
pub(super) fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A pair of NICs that can run XDP natively; both are up.
pub(super) fn veth(name: &str, peer: &str) -> u32 {
    ip(&format!("link add {name} type veth peer name {peer}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {peer} up"));
    ifindex(name)
}

/// A NIC's index.
pub(super) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Id of the XDP program on a NIC; 0 = none.
pub(super) fn program_on(ifindex: u32) -> u32 {
    foreign::program_on(ifindex).map_or(0, |on| on.id)
}

/// Names in a directory, sorted.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

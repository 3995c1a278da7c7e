//! What this kernel lets lb do, by trying it: maps that are closed at once, lb's own program through the verifier, a link
//! on the loopback of a network namespace made for it. Nothing is pinned, and no NIC is touched.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode, links::FdLink},
};
use lb_common::abi::{global, program};
use nix::sched::{CloneFlags, unshare};

use super::{error::chain, load::cause, syscall};

/// Creates a map.
const MAP_CREATE: libc::c_int = 0;
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;
/// The loopback's index in a new network namespace.
const LOOPBACK: u32 = 1;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Works,
    /// The kernel cannot; its word.
    Refused(String),
    /// This process may not try; the kernel's word.
    NotAllowed(String),
}

impl Outcome {
    fn of_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotAllowed(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// One thing that lb needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `map: ring buffer`, `lb's program`, `XDP link`.
    pub what: String,
    /// How it went.
    pub outcome: Outcome,
}

/// The kinds of maps lb's program has (linux/bpf.h): name, number, size of key and value, entries, flags, first kernel.
const MAPS: [(&str, u32, u32, u32, u32, u32, &str); 8] = [
    ("array, mapped", 2, 4, 8, 512, MMAPABLE, "5.5"),
    ("hash", 1, 16, 16, 16, 0, "3.19"),
    ("program array", 3, 4, 4, 4, 0, "4.2"),
    ("per-CPU array", 6, 4, 8, 16, 0, "4.6"),
    ("LRU hash", 9, 16, 16, 16, 0, "4.10"),
    ("LPM trie", 11, 8, 4, 16, NO_PREALLOC, "4.11"),
    ("device hash", 25, 4, 4, 16, 0, "5.4"),
    ("ring buffer", 27, 0, 0, 65_536, 0, "5.8"),
];

/// Tries everything. Takes some tens of milliseconds.
pub fn attempts() -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = MAPS
        .iter()
        .map(|&(name, kind, key, value, entries, flags, since)| Attempt {
            what: format!("map: {name} (Linux {since})"),
            outcome: match create_map(kind, key, value, entries, flags) {
                Ok(_closed_at_once) => Outcome::Works,
                Err(error) => Outcome::of_io(&error),
            },
        })
        .collect();
    let (program, link) = match load() {
        Ok(ebpf) => (Outcome::Works, Some(try_link(ebpf))),
        Err(outcome) => (outcome, None),
    };
    attempts.push(Attempt { what: "lb's program".to_owned(), outcome: program });
    attempts
        .extend(link.map(|outcome| Attempt { what: "XDP link (Linux 5.9)".to_owned(), outcome }));
    attempts
}

#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

fn create_map(kind: u32, key: u32, value: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapAttributes { kind, key_size: key, value_size: value, entries, flags };
    // SAFETY: the attributes are the first of those the command takes, and hold no addresses.
    let fd = unsafe { syscall::bpf(MAP_CREATE, &mut attributes)? };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The balancer with all features and small maps.
fn load() -> Result<Ebpf, Outcome> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_BALANCER"));
    let refused = |error: &(dyn std::error::Error + 'static)| {
        let text = chain(error);
        match permission_is_missing(error) {
            true => Outcome::NotAllowed(cause(&text).to_owned()),
            false => Outcome::Refused(cause(&text).to_owned()),
        }
    };
    let mut loader = EbpfLoader::new();
    // As many buckets as the object itself asks for.
    loader.override_global(global::SERVICE_MASK, &63u32, true);
    let mut ebpf = loader.load(OBJECT).map_err(|error| refused(&error))?;
    for name in [program::FAST_PATH, program::BALANCER] {
        program(&mut ebpf, name)?.load().map_err(|error| refused(&error))?;
    }
    Ok(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Outcome> {
    let missing = || Outcome::Refused(format!("the object has no program {name}"));
    ebpf.program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| Outcome::Refused(error.to_string()))
}

fn permission_is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let denied = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if matches!(denied, Some(libc::EPERM | libc::EACCES)) && super::check_permission().is_err()
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Attaches to the loopback of a network namespace that ends with the thread.
fn try_link(mut ebpf: Ebpf) -> Outcome {
    let attempt = thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return Outcome::NotAllowed(format!("make a network namespace to try it in: {errno}"));
        }
        let program = match program(&mut ebpf, program::FAST_PATH) {
            Ok(program) => program,
            Err(outcome) => return outcome,
        };
        let link =
            program.attach_to_if_index(LOOPBACK, XdpMode::Skb).and_then(|id| program.take_link(id));
        match link.map(FdLink::try_from) {
            Ok(Ok(_gone_at_once)) => Outcome::Works,
            Ok(Err(_)) => Outcome::Refused("only the old way, by netlink".to_owned()),
            Err(error) => Outcome::Refused(chain(&error)),
        }
    });
    attempt.join().unwrap_or_else(|_| Outcome::Refused("the attempt has failed".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lb_needs_works_where_it_is_tested() {
        let attempts = attempts();
        assert_eq!(attempts.len(), MAPS.len() + 2);
        for attempt in attempts {
            assert_eq!(attempt.outcome, Outcome::Works, "{}", attempt.what);
        }
    }

    #[test]
    fn what_the_kernel_does_not_have_is_refused() {
        let error = create_map(4_000, 4, 4, 1, 0).unwrap_err();
        assert!(matches!(Outcome::of_io(&error), Outcome::Refused(_)), "{error}");
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        assert!(matches!(Outcome::of_io(&denied), Outcome::NotAllowed(_)));
    }
}

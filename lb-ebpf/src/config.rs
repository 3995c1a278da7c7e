//! Load-time globals (`.rodata`, frozen at load): what a node does not use is removed by the verifier.
//!
//! Names and meanings are those of [`lb_common::abi::global`].

use aya_ebpf::Global;
use lb_common::{
    abi::mode,
    be::Be16,
    hash::{HashKeys, KEYS},
};

/// Keys of the flow hash.
#[unsafe(no_mangle)]
pub static HASH_KEYS: Global<[u64; KEYS]> = Global::new([0; KEYS]);

/// Number of buckets of `SERVICE_TABLE` minus one.
#[unsafe(no_mangle)]
pub static SERVICE_MASK: Global<u32> = Global::new(0);

/// 1 if exactly one NIC is attached.
#[unsafe(no_mangle)]
pub static SINGLE_NIC: Global<u32> = Global::new(0);

/// 1 if any service uses nat.
#[unsafe(no_mangle)]
pub static HAVE_NAT: Global<u32> = Global::new(1);

/// 1 if IPv6 is to be parsed.
#[unsafe(no_mangle)]
pub static HAVE_V6: Global<u32> = Global::new(1);

/// 1 if any service observes its backends.
#[unsafe(no_mangle)]
pub static OBSERVE: Global<u32> = Global::new(0);

/// 1 if any service limits openings or has a SYN-flood stage.
#[unsafe(no_mangle)]
pub static LIMIT_OPENINGS: Global<u32> = Global::new(0);

/// 1 if any service tracks its flows.
#[unsafe(no_mangle)]
pub static TRACK: Global<u32> = Global::new(0);

/// Flags of services whose packets have ways of their own, if any service has them.
#[unsafe(no_mangle)]
pub static BESIDE: Global<u32> = Global::new(0);

/// Bits of [`lb_common::abi::entropy`], if outer headers of any tunnel tell flows apart.
#[unsafe(no_mangle)]
pub static ENTROPY: Global<u32> = Global::new(0);

/// 1 if any service has more than one port, 2 if any has a prefix of VIPs.
#[unsafe(no_mangle)]
pub static PORTS: Global<u32> = Global::new(0);

/// A port, or a packet's own where services of several ports keep that.
#[inline(always)]
pub fn port_or_own(port: Be16, own: Be16) -> Be16 {
    if PORTS.load() == 0 { port } else { port.or(own) }
}

/// 1 if tagged frames are balanced.
#[unsafe(no_mangle)]
pub static VLAN: Global<u32> = Global::new(0);

/// One of [`mode`].
#[unsafe(no_mangle)]
pub static MODE: Global<u32> = Global::new(mode::PLAIN);

/// Whether this is the copy for dry runs, which must not write what others read.
#[inline(always)]
pub fn is_dry_run() -> bool {
    MODE.load() == mode::DRY_RUN
}

/// The hash keys; those of the address prefixes only where they are needed.
#[inline(always)]
pub fn hash_keys(is_v6: bool) -> HashKeys {
    let mut keys = [0; KEYS];
    for (index, key) in keys.iter_mut().enumerate() {
        if is_v6 || !(4..10).contains(&index) {
            // SAFETY: `Global` is transparent, so the keys are in a row and `index` is within them. Volatile, as
            // `Global::load` is, which would copy all of them.
            *key = unsafe { (&raw const HASH_KEYS).cast::<u64>().add(index).read_volatile() };
        }
    }
    keys
}

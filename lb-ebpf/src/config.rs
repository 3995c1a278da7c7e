//! Load-time globals (`.rodata`, frozen at load): what a node does not use is removed by the verifier.
//!
//! Names and meanings are those of [`lb_common::abi::global`].

use aya_ebpf::Global;
use lb_common::hash::KEYS;

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

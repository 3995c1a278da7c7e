//! What lb's XDP program and its controller share: the layout of every map entry ([`abi`]) and the pure functions over
//! packets, hashes and rings that both sides (and ordinary host tests) call.
//!
//! Nothing here does I/O, allocates (except [`maglev`], for the controller) or knows aya-ebpf.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod abi;
pub mod be;
pub mod hash;
#[cfg(any(test, feature = "user"))]
pub mod maglev;
pub mod select;

//! What lb's XDP program and its controller share: the layout of every map entry ([`abi`]) and the pure functions over
//! packets, hashes and rings that both sides (and ordinary host tests) call.
//!
//! Nothing here does I/O, allocates (except [`maglev`], for the controller) or knows aya-ebpf.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod abi;
pub mod balance;
pub mod be;
pub mod checksum;
pub mod encap;
pub mod fragment;
pub mod frame;
pub mod fullnat;
pub mod gue;
pub mod handshake;
pub mod hash;
pub mod icmp;
pub mod ip;
pub mod limit;
#[cfg(any(test, feature = "user"))]
pub mod maglev;
pub mod mss;
pub mod observe;
pub mod parse;
pub mod quic;
pub mod quote;
pub mod rewrite;
#[cfg(test)]
mod sample;
#[cfg(any(test, feature = "user"))]
pub mod schedule;
pub mod select;
pub mod siphash;
pub mod source_rate;
pub mod syn_flood;
pub mod tcp_reset;
pub mod toa;
pub mod track;
pub mod vlan;
pub mod way_back;

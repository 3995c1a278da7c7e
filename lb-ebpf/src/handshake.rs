//! Measures how long nat backends take to answer a SYN (the rules are [`lb_common::handshake`]). Costs a comparison for
//! the opening packets that are not measured, nothing for all others.

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::HandshakeTimes,
    frame::{Frame, Tcp, be32},
    handshake::{Waiting, bucket, entry, is_measured},
    parse::Packet,
};

use crate::{
    atomic, config,
    maps::{HANDSHAKE_TIMES, HANDSHAKES},
    packet::XdpFrame,
};

/// Notes when a SYN went to its backend.
#[inline(always)]
pub fn began(frame: &XdpFrame, packet: &Packet) {
    let Some(tcp) = frame.view::<Tcp>(packet.transport) else { return };
    let isn = be32(tcp.sequence).to_host();
    if !is_measured(isn) || config::is_dry_run() {
        return;
    }
    let Some(word) = HANDSHAKES.get_ptr_mut(entry(isn)) else { return };
    // SAFETY: the pointer is to a map's value, one aligned word, read and written whole.
    unsafe {
        let before = Waiting(word.read_volatile());
        word.write_volatile(before.after_syn(isn, now()).0);
    }
}

/// Counts the time of the handshake that a backend's SYN-ACK (its acknowledgement number, host order) answers.
#[inline(always)]
pub fn answered(backend: u32, acknowledgement: u32) {
    let isn = acknowledgement.wrapping_sub(1);
    if !is_measured(isn) || config::is_dry_run() {
        return;
    }
    let Some(word) = HANDSHAKES.get_ptr_mut(entry(isn)) else { return };
    // SAFETY: as above.
    let waiting = Waiting(unsafe { word.read_volatile() });
    let Some(time) = waiting.answered(isn, now()) else { return };
    // A repeated SYN-ACK is not counted again.
    // SAFETY: as above.
    unsafe { word.write_volatile(0) };
    let Some(times) = HANDSHAKE_TIMES.get_ptr_mut(backend) else { return };
    add(times, bucket(time), time);
}

#[inline(always)]
fn add(times: *mut HandshakeTimes, bucket: usize, time: u32) {
    // SAFETY: the pointer is to a map's value, which outlives the program; `bucket` is below the number of buckets, and
    // everybody else writes these words by atomic operations, too.
    unsafe {
        let buckets = (&raw mut (*times).buckets).cast::<u64>();
        atomic::add(buckets.add(bucket), 1);
        atomic::add(&raw mut (*times).sum, time as u64);
    }
}

/// Microseconds, wrapping.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: a helper without arguments.
    let nanoseconds = unsafe { generated::bpf_ktime_get_ns() };
    (nanoseconds / 1_000) as u32
}

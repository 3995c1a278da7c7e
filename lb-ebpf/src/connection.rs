//! Counts connections of nat services that want it (`count_connections`): every one is an entry from the backend's SYN-ACK
//! to a reset, or until the controller finds it closed or idle. Nothing is looked up for services that do not.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated};
use lb_common::{
    abi::{BackendId, Connection, FlowKey, Reason, ReplyRow, protocol, service_flag},
    frame::{Frame, Tcp, tcp_flag},
    parse::{self, Family},
};

use crate::{
    config, count,
    maps::{self, CONNECTIONS},
    packet::Context,
    pin,
};

/// Jiffies between two notes of the last packet.
const NOTE_EVERY: u64 = 256;

/// Notes a client's packet, before it is rewritten. A function of its own, for the stack's sake.
#[inline(never)]
pub fn request<F: Family>(context: Context) -> u32 {
    if config::is_dry_run() {
        return 0;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    if outline.flow.protocol != protocol::TCP {
        return 0;
    }
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let flags = tcp.flags;
    let mut place = MaybeUninit::uninit();
    let flow = pin::key(&mut place, &outline.flow);
    let Some(connection) = CONNECTIONS.get_ptr_mut(flow) else { return 0 };
    if flags & tcp_flag::RST != 0 {
        // An error means that it is gone already.
        let _ = CONNECTIONS.remove(flow);
        return 1;
    }
    // SAFETY: the pointer is to a map's value; each field is written by one store. An entry that is removed and used for
    // another flow meanwhile gets a state that this one's next packets would have had, for one sweep at most.
    unsafe {
        if flags & tcp_flag::ACK != 0 {
            (&raw mut (*connection).established).write_volatile(1);
        }
        if flags & tcp_flag::FIN != 0 {
            (&raw mut (*connection).client_closed).write_volatile(1);
        }
        let last_seen = &raw mut (*connection).last_seen;
        let now = generated::bpf_jiffies64();
        if now.wrapping_sub(last_seen.read_volatile()) >= NOTE_EVERY {
            last_seen.write_volatile(now);
        }
    }
    1
}

/// Notes what a backend says about a connection, before it is rewritten: only SYN-ACK, FIN and RST do.
#[inline(never)]
pub fn reply<F: Family>(context: Context, reply: &ReplyRow, backend: u32) -> u32 {
    if config::is_dry_run() {
        return 0;
    }
    let Some(service) = maps::SERVICES.get(reply.row) else { return 0 };
    if service.flags & service_flag::COUNT_CONNECTIONS == 0 {
        return 0;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let flags = tcp.flags;
    let flow = reply.client_flow(&outline.flow);
    let mut place = MaybeUninit::uninit();
    let flow = pin::key(&mut place, &flow);
    if flags & tcp_flag::RST != 0 {
        // An error means that it is gone already, or was never counted.
        let _ = CONNECTIONS.remove(flow);
    } else if flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK {
        accepted(flow, backend, service.id);
    } else if flags & tcp_flag::FIN != 0
        && let Some(connection) = CONNECTIONS.get_ptr_mut(flow)
    {
        // SAFETY: as in `request`.
        unsafe { (&raw mut (*connection).server_closed).write_volatile(1) };
    }
    1
}

/// A new connection, unless the SYN-ACK is a repeated one. One whose ports are used again before the controller has found
/// its predecessor closed takes that one's place.
#[inline(always)]
fn accepted(flow: &FlowKey, backend: u32, service: u32) {
    let closed = CONNECTIONS.get_ptr(flow).is_some_and(|connection| {
        // SAFETY: the pointer is to a map's value; single bytes.
        unsafe { (*connection).client_closed != 0 || (*connection).server_closed != 0 }
    });
    if closed {
        // An error means that it is gone already.
        let _ = CONNECTIONS.remove(flow);
    }
    let mut place = MaybeUninit::<Connection>::uninit();
    let new = place.as_mut_ptr();
    // Volatile, word by word: fields stored together could be misaligned, which the verifier refuses on the stack.
    // SAFETY: `new` is valid for a connection, which is three words, and every one is written.
    let new = unsafe {
        (&raw mut (*new).backend).write_volatile(BackendId(backend));
        (&raw mut (*new).service).write_volatile(service);
        (&raw mut (*new).last_seen).write_volatile(generated::bpf_jiffies64());
        (&raw mut (*new).established).cast::<u64>().write_volatile(0);
        place.assume_init_ref()
    };
    let full = CONNECTIONS.insert(flow, new, BPF_NOEXIST as u64).is_err();
    if full && CONNECTIONS.get_ptr(flow).is_none() {
        count::reason(Reason::Uncounted, service);
    }
}

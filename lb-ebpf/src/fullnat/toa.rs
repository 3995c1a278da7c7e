//! Tells servers the clients' addresses (the rules are [`lb_common::toa`]), in what a client sends until the server has sent data: the
//! segment that completes the handshake, from which servers read it, and what comes before it is certain that it has arrived.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{BackendId, Reason, protocol, service_flag},
    frame::{Frame, Tcp, tcp_flag},
    fullnat::state_flag::SERVER_SPOKE,
    ip::IpHeader,
    mss::{self, Place},
    parse::{self, Family, NETWORK},
    toa,
};

use super::slot::Slot;
use crate::{config, count, maps, packet::Context};

/// Whether any service wants it.
#[inline(always)]
pub fn configured() -> bool {
    config::BESIDE.load() & service_flag::TOA != 0
}

/// Looks at a client's packet to a service that wants it, whose slot and backend are known. It may have become longer when this
/// returns.
#[inline(never)]
pub fn tell<F: Family>(context: Context, index: u32, backend: u32, service: u32) -> u32 {
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    let is_told = Slot::at(index).is_none_or(|slot| slot.state().has(SERVER_SPOKE));
    if outline.flow.protocol != protocol::TCP || is_told {
        return 0;
    }
    let transport = outline.transport & 0xff;
    hide_all(context, transport as u32);
    let frame = context.frame();
    let Some(tcp) = frame.view::<Tcp>(transport) else { return 0 };
    let flags = tcp.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | tcp_flag::ACK);
    if flags != tcp_flag::ACK {
        return 0;
    }
    let mtu = maps::backend(BackendId(backend)).map_or(0, |row| row.mtu);
    let Some(header) = frame.view::<F::Header>(NETWORK) else { return 0 };
    if toa::fits::<F>(tcp, header.length() as u16, mtu) {
        let more = toa::length(F::Header::IS_V6);
        if let Some(mut frame) = frame.move_start(-(more as i32)) {
            return toa::insert::<F>(&mut frame).is_some() as u32;
        }
    }
    count::reason(Reason::ToaOmitted, service);
    0
}

/// Hides what the client says of this kind.
#[inline(always)]
fn hide_all(context: Context, transport: u32) {
    let Some((begin, end)) = mss::options(&context.frame(), transport as usize) else { return };
    let mut place = Place::at(begin);
    for _ in 0..toa::MOST_BYTES {
        place = Place(hide_option(context.pointer(), transport, place.0, end));
        if place.is_over() {
            break;
        }
    }
}

/// [`toa::hide`] in the shape of a global function, which the verifier checks once: within one function, each combination of options
/// would be another way to go on.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hide_option(context: *mut xdp_md, transport: u32, place: u32, end: u32) -> u32 {
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let mut frame = unsafe { Context::new(context) }.frame();
    toa::hide(&mut frame, (transport & 0xff) as usize, Place(place), end).0
}

//! From the client to the backend: three steps, each with a stack of its own.

use lb_common::{
    abi::{PortSlot, Reason, ServiceRow, service_flag},
    be::Be16,
    frame::{Ethernet, Frame},
    ip::IpHeader,
    parse::{self, Family},
    rewrite::{Ends, translate_both},
};

use super::{
    table::{self, Place},
    toa,
};
use crate::{
    admit, config, count, handshake, maps, nexthop,
    packet::{Context, XdpFrame},
    trace,
    verdict::{Answer, Verdict},
    way_back,
};

/// Sends a client's packet to its backend.
#[inline(always)]
pub fn packet<F: Family>(context: Context, service: &ServiceRow) -> Verdict {
    let admitted = admit::<F>(context, service);
    if !admitted.is_fullnat() {
        return admitted;
    }
    let place = table::of_request::<F>(context, service);
    if place.backend().0 == 0 {
        return match place.reason() {
            Reason::NoFlow => Verdict::answer(Answer::Refusal, Reason::NoFlow, 0, service.id),
            Reason::NoPort => Verdict::answer(Answer::Prohibited, Reason::NoPort, 0, service.id),
            reason => Verdict::drop(reason, service.id),
        };
    }
    if toa::configured() && service.flags & service_flag::TOA != 0 {
        toa::tell::<F>(context, place.index(), place.backend().0, service.id);
    }
    forward::<F>(context, service, place)
}

/// [`Verdict::fullnat`] if the packet may in.
#[inline(never)]
fn admit<F: Family>(context: Context, service: &ServiceRow) -> Verdict {
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return Verdict::pass(Reason::Passed) };
    match parse::examine::<F>(&frame, &outline) {
        Ok(packet) => match admit::packet::<F>(&frame, &packet, service) {
            Ok(()) => Verdict::fullnat(),
            Err(verdict) => verdict,
        },
        Err(reason) => Verdict::drop(reason, service.id),
    }
}

#[inline(never)]
fn forward<F: Family>(context: Context, service: &ServiceRow, place: Place) -> Verdict {
    match send::<F>(context.frame(), service.id, place) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<F: Family>(mut frame: XdpFrame, id: u32, place: Place) -> Result<Verdict, Verdict> {
    let backend = place.backend();
    let drop = |reason| {
        trace::chosen(backend);
        Verdict::drop(reason, id)
    };
    // The first step has read the same.
    let outline = parse::outline::<F>(&frame).ok_or_else(|| drop(Reason::L4Truncated))?;
    let packet = parse::examine_reply::<F>(&frame, &outline).map_err(drop)?;
    let row = maps::backend(backend).ok_or_else(|| drop(Reason::BadSlot))?;
    let hop = nexthop::to_backend(&frame, row).map_err(drop)?;
    let ethernet = frame.view::<Ethernet>(0).ok_or_else(|| drop(Reason::L3Truncated))?;
    let from = ethernet.source;
    if hop.macs.is_from(from) && nexthop::is_ingress(&frame, hop.ifindex) {
        return Err(drop(Reason::LoopSourceMac));
    }
    if hop.mtu != 0 && packet.length > hop.mtu {
        trace::chosen(backend);
        return Err(Verdict::answer(Answer::TooBig, Reason::TooBig, hop.mtu, id));
    }
    let pool = super::pool().ok_or_else(|| drop(Reason::BadSlot))?;
    if packet.is_opening() {
        handshake::began(&frame, &packet);
    }
    way_back::note(&packet.flow.source, frame.context().ingress(), from);
    let ends = Ends {
        source: super::pool_address(pool, PortSlot::address(place.index())),
        destination: &row.address,
        source_port: Be16::from_host(PortSlot::port(place.index())),
        destination_port: config::port_or_own(row.port, packet.flow.destination_port),
    };
    translate_both::<F>(&mut frame, &packet, &ends).ok_or_else(|| drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or_else(|| drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(backend, packet.length, packet.is_opening());
    Ok(Verdict::sent(action))
}

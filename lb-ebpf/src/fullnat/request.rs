//! From the client to the backend.

use lb_common::{
    abi::{PortSlot, Reason, ServiceRow},
    be::Be16,
    frame::{Ethernet, Frame},
    parse::{self, Family},
    rewrite::{Ends, translate_both},
};

use super::table;
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
    match send::<F>(context.frame(), service) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<F: Family>(mut frame: XdpFrame, service: &ServiceRow) -> Result<Verdict, Verdict> {
    let id = service.id;
    let outline = parse::outline::<F>(&frame).ok_or(Verdict::pass(Reason::Passed))?;
    let packet =
        parse::examine::<F>(&frame, &outline).map_err(|reason| Verdict::drop(reason, id))?;
    admit::packet::<F>(&frame, &packet, service)?;
    let place = table::of_request::<F>(frame.context(), service);
    let backend = place.backend();
    if backend.0 == 0 {
        return Err(match place.reason() {
            Reason::NoFlow => Verdict::answer(Answer::Refusal, Reason::NoFlow, 0, id),
            Reason::NoPort => Verdict::answer(Answer::Prohibited, Reason::NoPort, 0, id),
            reason => Verdict::drop(reason, id),
        });
    }
    let drop = |reason| {
        trace::chosen(backend);
        Verdict::drop(reason, id)
    };
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
        hop.macs.ethernet(<F::Header as lb_common::ip::IpHeader>::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(backend, packet.length, packet.is_opening());
    Ok(Verdict::sent(action))
}

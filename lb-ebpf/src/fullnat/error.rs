//! ICMP errors about full nat's packets, either way (RFC 5508), and everything else that is no plain TCP or UDP.

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    abi::{PortSlot, Reason, service_flag},
    be::Be16,
    frame::{Ethernet, Frame},
    icmp,
    ip::IpHeader,
    parse::{self, Family, NETWORK},
    rewrite::{Ends, translate_error_both},
};

use super::{OfPool, reply, table};
use crate::{
    config, count,
    error::{admit, quoted},
    maps, nexthop,
    packet::{Context, XdpFrame},
    scratch::scratch,
    service,
    verdict::Verdict,
};

/// What becomes of a packet that is no plain TCP or UDP.
#[inline(always)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    let verdict = look_up::<F>(context);
    if verdict.is_fullnat() {
        if reply::way_to_client(context) == 0 {
            return Verdict::drop(Reason::NoNextHop, reply::service_of_flow());
        }
        return to_client::<F>(context);
    }
    if verdict.is_quoting() { to_backend::<F>(context) } else { verdict }
}

/// [`Verdict::fullnat`] of an error to the pool about a flow, [`Verdict::quoting`] of one to a VIP.
#[inline(never)]
fn look_up<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    let destination = match parse::destination::<F>(&frame) {
        Ok(destination) => destination,
        Err(reason) => return Verdict::drop(reason, 0),
    };
    let Some(address) = OfPool::of(&destination) else { return Verdict::quoting() };
    let nobodys = address.nobodys();
    let carrier = match parse::examine_any::<F>(&frame) {
        Ok(carrier) if carrier.protocol == F::Header::ICMP => carrier,
        // What is the host's it may put together by itself.
        Err(reason) if nobodys.action() != xdp_action::XDP_PASS => return Verdict::drop(reason, 0),
        _ => return nobodys,
    };
    let Some([message_type, _]) = frame.view::<[u8; 2]>(carrier.transport & 0xff).copied() else {
        return nobodys;
    };
    if !icmp::concerns_endpoints(F::Header::IS_V6, message_type) {
        return nobodys;
    }
    let Some(quote) = quoted::<F>(&frame, &carrier) else { return nobodys };
    let Some(scratch) = scratch() else { return nobodys };
    let flow = &mut scratch.translation;
    let sent = &quote.flow;
    let peer = (&sent.destination, sent.destination_port);
    if !reply::find(address, sent.source_port, peer, sent.protocol, flow) {
        return nobodys;
    }
    if parse::is_martian(&carrier.source, &carrier.destination) {
        return Verdict::drop(Reason::Martian, flow.owner.service);
    }
    match frame.view::<F::Header>(NETWORK) {
        Some(header) if header.hop_limit() > 1 => Verdict::fullnat(),
        _ => Verdict::drop(Reason::Ttl, flow.owner.service),
    }
}

/// An error about what lb has sent to a backend.
#[inline(never)]
fn to_client<F: Family>(context: Context) -> Verdict {
    match send_to_client::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send_to_client<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let scratch = scratch().ok_or(Verdict::pass(Reason::Passed))?;
    let flow = &scratch.translation;
    let drop = |reason| Verdict::drop(reason, flow.owner.service);
    // An earlier step has read the same.
    let carrier = parse::examine_any::<F>(&frame).map_err(drop)?;
    let quote = quoted::<F>(&frame, &carrier).ok_or(drop(Reason::IcmpErrorBad))?;
    if flow.hop.mtu != 0 && carrier.length > flow.hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    let ends = Ends {
        source: &flow.owner.client,
        destination: &flow.owner.vip,
        source_port: flow.owner.client_port,
        destination_port: flow.owner.vip_port,
    };
    translate_error_both::<F>(&mut frame, &quote, &ends).ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        flow.hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, flow.hop.ifindex).map_err(drop)?;
    count::reply(flow.owner.backend, carrier.length, false);
    count::reason(Reason::IcmpErrorForwarded, flow.owner.service);
    Ok(Verdict::sent(action))
}

/// An error about what lb has sent to a client.
#[inline(never)]
fn to_backend<F: Family>(context: Context) -> Verdict {
    match send_to_backend::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send_to_backend<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let bad = Verdict::drop(Reason::IcmpErrorBad, 0);
    let carrier = parse::examine_any::<F>(&frame).map_err(|reason| Verdict::drop(reason, 0))?;
    if carrier.protocol != F::Header::ICMP {
        return Err(bad);
    }
    let quote = quoted::<F>(&frame, &carrier).ok_or(bad)?;
    let flow = quote.flow.reversed();
    let service = service::find_any(&frame, &flow).ok_or(bad)?;
    if service.flags & service_flag::FULLNAT == 0 {
        return Err(bad);
    }
    let drop = |reason| Verdict::drop(reason, service.id);
    let packet = admit::<F>(&frame, &carrier, flow, service)?;
    let place = table::of_flow(&flow);
    let backend = place.backend();
    if backend.0 == 0 {
        return Err(drop(Reason::IcmpErrorBad));
    }
    let row = maps::backend(backend).ok_or(drop(Reason::BadSlot))?;
    let hop = super::hop_to(&frame, row, packet.length).map_err(drop)?;
    let pool = super::pool().ok_or(drop(Reason::BadSlot))?;
    let ends = Ends {
        source: &row.address,
        destination: super::pool_address(pool, PortSlot::address(place.index())),
        source_port: config::port_or_own(row.port, flow.destination_port),
        destination_port: Be16::from_host(PortSlot::port(place.index())),
    };
    translate_error_both::<F>(&mut frame, &quote, &ends).ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(backend, packet.length, false);
    count::reason(Reason::IcmpErrorForwarded, service.id);
    Ok(Verdict::sent(action))
}

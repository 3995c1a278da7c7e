//! ICMP errors about full nat's packets, either way (RFC 5508), and everything else that is no plain TCP or UDP.

use lb_common::{
    abi::{Address, PortSlot, Reason, service_flag},
    be::Be16,
    frame::{Ethernet, Frame},
    icmp,
    ip::IpHeader,
    parse::{self, Carrier, Family, NETWORK},
    quote::Quote,
    rewrite::{Ends, translate_error_both},
};

use super::{OfPool, reply::Flow, table};
use crate::{
    config, count,
    error::{admit, quoted},
    maps,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    service,
    verdict::Verdict,
};

/// What becomes of a packet that is no plain TCP or UDP.
#[inline(never)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    match send::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<F: Family>(frame: XdpFrame) -> Result<Verdict, Verdict> {
    let destination = parse::destination::<F>(&frame).map_err(|reason| Verdict::drop(reason, 0))?;
    let of_pool = OfPool::of(&destination);
    let nobodys = match of_pool {
        Some(address) => address.nobodys(),
        None => Verdict::drop(Reason::IcmpErrorBad, 0),
    };
    let carrier = match parse::examine_any::<F>(&frame) {
        Ok(carrier) if super::is_icmp::<F>(carrier.protocol) => carrier,
        // The host has said that the address is its, too: it puts fragments together.
        Ok(_) => return Err(nobodys),
        Err(reason) => match of_pool {
            Some(_) if nobodys.action() == aya_ebpf::bindings::xdp_action::XDP_PASS => {
                return Err(nobodys);
            }
            _ => return Err(Verdict::drop(reason, 0)),
        },
    };
    let transport = carrier.transport & 0xff;
    let [message_type, _] = *frame.view::<[u8; 2]>(transport).ok_or(nobodys)?;
    if !icmp::concerns_endpoints(F::Header::IS_V6, message_type) {
        return Err(nobodys);
    }
    let quote = quoted::<F>(&frame, &carrier).ok_or(nobodys)?;
    match of_pool {
        Some(address) => to_client::<F>(frame, &carrier, &quote, address),
        None => to_backend::<F>(frame, &carrier, &quote),
    }
}

/// An error about what lb has sent to a backend.
#[inline(always)]
fn to_client<F: Family>(
    mut frame: XdpFrame,
    carrier: &Carrier,
    quote: &Quote,
    address: OfPool,
) -> Result<Verdict, Verdict> {
    let sent = &quote.flow;
    let peer = (&sent.destination, sent.destination_port);
    let flow = Flow::of(address, sent.source_port, peer, sent.protocol).ok_or(address.nobodys())?;
    let drop = |reason| Verdict::drop(reason, flow.owner.service);
    let header = frame.view::<F::Header>(NETWORK).ok_or(drop(Reason::L3Truncated))?;
    if header.hop_limit() <= 1 {
        return Err(drop(Reason::Ttl));
    }
    let mut hop = Hop::default();
    if nexthop::to_address(frame.context(), &flow.owner.client, &mut hop) == 0 {
        return Err(drop(Reason::NoNextHop));
    }
    if hop.mtu != 0 && carrier.length > hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    let ends = Ends {
        source: &flow.owner.client,
        destination: &flow.owner.vip,
        source_port: flow.owner.client_port,
        destination_port: flow.owner.vip_port,
    };
    finish::<F>(&mut frame, quote, &ends, &hop).ok_or(drop(Reason::L4Truncated))?;
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::reply(flow.owner.backend, carrier.length, false);
    count::reason(Reason::IcmpErrorForwarded, flow.owner.service);
    Ok(Verdict::sent(action))
}

/// An error about what lb has sent to a client.
#[inline(always)]
fn to_backend<F: Family>(
    mut frame: XdpFrame,
    carrier: &Carrier,
    quote: &Quote,
) -> Result<Verdict, Verdict> {
    let flow = quote.flow.reversed();
    let service = service::find_any(&frame, &flow)
        .filter(|service| service.flags & service_flag::FULLNAT != 0)
        .ok_or(Verdict::drop(Reason::IcmpErrorBad, 0))?;
    let drop = |reason| Verdict::drop(reason, service.id);
    let packet = admit::<F>(&frame, carrier, flow, service)?;
    let place = table::of_flow(&flow);
    let backend = place.backend();
    if backend.0 == 0 {
        return Err(drop(Reason::IcmpErrorBad));
    }
    let row = maps::backend(backend).ok_or(drop(Reason::BadSlot))?;
    let hop = nexthop::to_backend(&frame, row).map_err(drop)?;
    if hop.mtu != 0 && packet.length > hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    let pool = super::pool().ok_or(drop(Reason::BadSlot))?;
    let source: &Address = super::pool_address(pool, PortSlot::address(place.index()));
    let ends = Ends {
        source: &row.address,
        destination: source,
        source_port: config::port_or_own(row.port, flow.destination_port),
        destination_port: Be16::from_host(PortSlot::port(place.index())),
    };
    finish::<F>(&mut frame, quote, &ends, &hop).ok_or(drop(Reason::L4Truncated))?;
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(backend, packet.length, false);
    count::reason(Reason::IcmpErrorForwarded, service.id);
    Ok(Verdict::sent(action))
}

#[inline(always)]
fn finish<F: Family>(
    frame: &mut XdpFrame,
    quote: &Quote,
    ends: &Ends<'_>,
    hop: &Hop,
) -> Option<()> {
    translate_error_both::<F>(frame, quote, ends)?;
    *frame.view_mut::<Ethernet>(0)? = hop.macs.ethernet(F::Header::ETHER_TYPE);
    Some(())
}

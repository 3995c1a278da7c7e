//! ICMP errors about balanced flows. Routers send them to the VIP, and the flow's backend has to hear them; in nat, those
//! about packets that lb has sent to a backend are the client's, and have to name the VIP again.

use lb_common::{
    abi::{Address, BackendId, FlowKey, Reason, ServiceRow, address_value, service_flag},
    frame::{Ethernet, Frame},
    icmp,
    ip::IpHeader,
    parse::{self, Carrier, Family, NETWORK, Packet},
    quote::{self, Quote},
    rewrite::{End, translate_error},
};

use crate::{
    config, count, forward, fullnat, maps,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    select, service, sum,
    verdict::Verdict,
};

/// Sends an ICMP error to whom it concerns. `verdict` is [`Verdict::quoting`], of a reply if not to a VIP.
#[inline(always)]
pub fn packet<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    if verdict.is_of_reply() { to_client::<F>(context) } else { to_backend::<F>(context) }
}

/// An error to a VIP.
#[inline(never)]
fn to_backend<F: Family>(context: Context) -> Verdict {
    let deliver = |frame: XdpFrame| {
        let carrier = parse::examine_any::<F>(&frame).map_err(|reason| Verdict::drop(reason, 0))?;
        let of_no_flow = || of_no_flow(&carrier.destination);
        let quote = quoted::<F>(&frame, &carrier).ok_or_else(of_no_flow)?;
        let flow = quote.flow.reversed();
        let service = service::find_any(&frame, &flow).ok_or_else(of_no_flow)?;
        if fullnat::configured() && service.flags & service_flag::FULLNAT != 0 {
            return Err(Verdict::fullnat());
        }
        let packet = admit::<F>(&frame, &carrier, flow, service)?;
        let backend = select::whereabouts::<F>(&flow, service)?;
        let verdict = forward::error::<F>(frame, &packet, &quote, service, backend)?;
        count::reason(Reason::IcmpErrorForwarded, service.id);
        Ok(verdict)
    };
    match deliver(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// The packet that an error quotes, if that was sent from the address the error has come to.
#[inline(always)]
pub fn quoted<F: Family>(frame: &XdpFrame, carrier: &Carrier) -> Option<Quote> {
    let icmp = carrier.transport & 0xff;
    let quote = quote::read::<F::Header>(frame, icmp, NETWORK + carrier.length as usize)?;
    if quote.flow.source != carrier.destination {
        return None;
    }
    if !F::Header::IS_V6 {
        let header = (quote.transport - quote.network) as u16;
        if sum::of_frame(frame, quote.network, header)?.checksum() != 0 {
            return None;
        }
    }
    Some(quote)
}

/// An error to a VIP that is about no flow of a service: the host's, if the VIP is its address, too.
#[inline(always)]
fn of_no_flow(vip: &Address) -> Verdict {
    match service::address(vip) {
        address_value::VIP_LOCAL => Verdict::pass(Reason::NoServicePassed),
        _ => Verdict::drop(Reason::IcmpErrorBad, 0),
    }
}

/// As [`crate::admit`], but nothing is answered. It is the client of the flow who has to be allowed in, not the router.
#[inline(always)]
pub fn admit<F: Family>(
    frame: &XdpFrame,
    carrier: &Carrier,
    flow: FlowKey,
    service: &ServiceRow,
) -> Result<Packet, Verdict> {
    let drop = |reason| Err(Verdict::drop(reason, service.id));
    let Some(&[message_type, _]) = frame.view::<[u8; 2]>(carrier.transport & 0xff) else {
        return drop(Reason::L4Truncated);
    };
    if !icmp::concerns_endpoints(F::Header::IS_V6, message_type) {
        return drop(Reason::IcmpErrorBad);
    }
    if parse::is_martian(&carrier.source, &carrier.destination) {
        return drop(Reason::Martian);
    }
    crate::admit::check_lists(service, &flow.source)?;
    let is_out = service.flags & (service_flag::REJECT | service_flag::DROP) != 0;
    if is_out && service.flags & service_flag::NEW_ONLY == 0 {
        return drop(Reason::NoBackend);
    }
    let packet = packet_of::<F>(frame, carrier, flow)
        .ok_or(Verdict::drop(Reason::L3Truncated, service.id))?;
    if packet.hop_limit <= 1 { drop(Reason::Ttl) } else { Ok(packet) }
}

#[inline(always)]
fn packet_of<F: Family>(frame: &XdpFrame, carrier: &Carrier, flow: FlowKey) -> Option<Packet> {
    let header = frame.view::<F::Header>(NETWORK)?;
    Some(Packet {
        flow,
        transport: carrier.transport,
        length: carrier.length,
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        flags: 0,
    })
}

/// An error that is not to a VIP: a client's, if it is about a packet that lb has translated.
#[inline(never)]
fn to_client<F: Family>(context: Context) -> Verdict {
    match return_to_client::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn return_to_client<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let not_ours = Verdict::pass(Reason::Passed);
    let carrier = parse::examine_any::<F>(&frame).map_err(|_| not_ours)?;
    let transport = carrier.transport & 0xff;
    let [message_type, _] = *frame.view::<[u8; 2]>(transport).ok_or(not_ours)?;
    if !icmp::concerns_endpoints(F::Header::IS_V6, message_type) {
        return Err(not_ours);
    }
    let quote = quoted::<F>(&frame, &carrier).ok_or(not_ours)?;
    let backend = service::replying_backend(&quote.flow.reversed()).ok_or(not_ours)?;
    let reply = maps::REPLIES.get(backend).ok_or(not_ours)?;
    let service = maps::SERVICES.get(reply.row).map_or(0, |row| row.id);
    let drop = |reason| Verdict::drop(reason, service);

    let header = frame.view::<F::Header>(NETWORK).ok_or(drop(Reason::L3Truncated))?;
    if header.hop_limit() <= 1 {
        return Err(drop(Reason::Ttl));
    }
    let mut hop = Hop::default();
    if nexthop::to_client::<F>(frame.context(), &mut hop) == 0 {
        return Err(drop(Reason::NoNextHop));
    }
    if hop.mtu != 0 && carrier.length > hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    let port = config::port_or_own(reply.port, quote.flow.destination_port);
    translate_error::<F>(&mut frame, &quote, End::Source, &reply.vip, port)
        .ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::reply(BackendId(backend), carrier.length, false);
    count::reason(Reason::IcmpErrorForwarded, service);
    Ok(Verdict::sent(action))
}

//! Fragments: the first one is balanced as its packet would be, and the others follow it.

mod by_address;
pub mod memory;

use lb_common::{
    abi::{Address, BackendId, FlowKey, Forward, Reason, ServiceRow, address_value, service_flag},
    fragment::{self, Fragment},
    frame::{Ethernet, Frame},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Packet},
    rewrite::{End, translate},
};

use self::memory::{recall, remember, row};
use crate::{
    config, count, forward, fullnat, maps,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    select, service,
    verdict::Verdict,
};

/// Sends a fragment where its packet belongs. `verdict` is [`Verdict::fragment`], of a reply if not to a VIP.
#[inline(always)]
pub fn packet<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    if verdict.is_of_reply() { from_backend::<F>(context) } else { to_backend::<F>(context) }
}

#[inline(never)]
fn to_backend<F: Family>(context: Context) -> Verdict {
    match deliver::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

// No closure: the compiler would make a function of it, whose stack comes on top.
#[inline(always)]
fn deliver<F: Family>(frame: XdpFrame) -> Result<Verdict, Verdict> {
    let nobody = |reason| Verdict::drop(reason, 0);
    let fragment = fragment::read::<F>(&frame).map_err(nobody)?;
    if fragment.offset == 0 {
        return first::<F>(frame, &fragment);
    }
    let row = by_address::recall::<F>(frame.context(), &fragment)?
        .ok_or_else(|| of_nobody(&fragment.key.destination, Reason::FragmentMiss))?;
    if fullnat::configured() && row.forward == Forward::FullNat as u16 {
        return Err(Verdict::fullnat());
    }
    let drop = |reason| Verdict::drop(reason, row.service);
    let packet = packet_of::<F>(&frame, &fragment).ok_or(drop(Reason::L3Truncated))?;
    check_hop_limit(&packet, row.service)?;
    forward::later_fragment::<F>(frame, &packet, row)
}

#[inline(always)]
fn first<F: Family>(frame: XdpFrame, fragment: &Fragment) -> Result<Verdict, Verdict> {
    let nobody = |reason| Verdict::drop(reason, 0);
    let flow = fragment::flow::<F>(&frame, fragment).map_err(nobody)?;
    let service = service::find_any(&frame, &flow)
        .ok_or_else(|| of_nobody(&flow.destination, Reason::FragmentDropped))?;
    let drop = |reason| Verdict::drop(reason, service.id);
    if fragment.more && service.flags & service_flag::FRAGMENTS == 0 {
        return Err(drop(Reason::FragmentDropped));
    }
    if fullnat::configured() && service.flags & service_flag::FULLNAT != 0 {
        return Err(Verdict::fullnat());
    }
    let mut packet = packet_of::<F>(&frame, fragment).ok_or(drop(Reason::L3Truncated))?;
    packet.flow = flow;
    admit(&packet, service)?;
    let backend = select::whereabouts::<F>(&flow, service)?;
    remember(fragment, row(backend, service.id, service.forward))?;
    forward::first_fragment::<F>(frame, &packet, service, backend)
}

/// A fragment to a VIP that belongs to no flow of a service: the host's, if the VIP is its address, too.
#[inline(always)]
fn of_nobody(vip: &Address, reason: Reason) -> Verdict {
    match service::address(vip) {
        address_value::VIP_LOCAL => Verdict::pass(Reason::NoServicePassed),
        _ => Verdict::drop(reason, 0),
    }
}

/// As [`crate::admit`], but nothing is answered: a fragment is no whole packet to be quoted.
#[inline(always)]
pub fn admit(packet: &Packet, service: &ServiceRow) -> Result<(), Verdict> {
    let drop = |reason| Err(Verdict::drop(reason, service.id));
    let flow = &packet.flow;
    if parse::is_martian(&flow.source, &flow.destination) {
        return drop(Reason::Martian);
    }
    crate::admit::check_lists(service, &flow.source)?;
    let is_out = service.flags & (service_flag::REJECT | service_flag::DROP) != 0;
    if is_out && service.flags & service_flag::NEW_ONLY == 0 {
        return drop(Reason::NoBackend);
    }
    check_hop_limit(packet, service.id)
}

/// One more hop is left.
#[inline(always)]
pub fn check_hop_limit(packet: &Packet, service: u32) -> Result<(), Verdict> {
    if packet.hop_limit <= 1 { Err(Verdict::drop(Reason::Ttl, service)) } else { Ok(()) }
}

/// A fragment as a packet whose flow has no ports.
#[inline(always)]
pub fn packet_of<F: Family>(frame: &XdpFrame, fragment: &Fragment) -> Option<Packet> {
    let header = frame.view::<F::Header>(NETWORK)?;
    Some(Packet {
        flow: FlowKey {
            source: fragment.key.source,
            destination: fragment.key.destination,
            protocol: fragment.key.protocol as u8,
            ..FlowKey::default()
        },
        transport: fragment.transport,
        length: fragment.length,
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        flags: 0,
    })
}

/// A fragment that is not to a VIP: passed, unless it belongs to a nat backend's reply.
#[inline(never)]
fn from_backend<F: Family>(context: Context) -> Verdict {
    match return_to_client::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn return_to_client<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let not_ours = Verdict::pass(Reason::Passed);
    let fragment = fragment::read::<F>(&frame).map_err(|_| not_ours)?;
    // An IPv6 fragment from a mapped address would otherwise be taken for an IPv4 backend's.
    if F::Header::IS_V6 && fragment.key.source.is_v4() {
        return Err(not_ours);
    }
    let mut packet = packet_of::<F>(&frame, &fragment).ok_or(not_ours)?;
    let is_first = fragment.offset == 0;
    let backend = if is_first {
        packet.flow = fragment::flow::<F>(&frame, &fragment).map_err(|_| not_ours)?;
        BackendId(service::replying_backend(&packet.flow).ok_or(not_ours)?)
    } else {
        recall(&fragment, false)?.ok_or(not_ours)?.backend
    };
    let reply = maps::REPLIES.get(backend.0).ok_or(not_ours)?;
    let service = maps::SERVICES.get(reply.row).ok_or(not_ours)?;
    let drop = |reason| Verdict::drop(reason, service.id);
    if fragment.more && service.flags & service_flag::FRAGMENTS == 0 {
        return Err(drop(Reason::FragmentDropped));
    }
    check_hop_limit(&packet, service.id)?;
    let mut hop = Hop::default();
    if nexthop::to_client::<F>(frame.context(), &mut hop) == 0 {
        return Err(drop(Reason::NoNextHop));
    }
    if hop.mtu != 0 && packet.length > hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    if is_first {
        remember(&fragment, row(backend, service.id, Forward::Nat as u8))?;
        let port = config::port_or_own(reply.port, packet.flow.source_port);
        translate::<F>(&mut frame, &packet, End::Source, &reply.vip, port)
            .ok_or(drop(Reason::L4Truncated))?;
    } else {
        let header = frame.view_mut::<F::Header>(NETWORK).ok_or(drop(Reason::L3Truncated))?;
        header.set_source(&reply.vip);
        header.decrement_hop_limit();
    }
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::reply(backend, packet.length, false);
    Ok(Verdict::sent(action))
}

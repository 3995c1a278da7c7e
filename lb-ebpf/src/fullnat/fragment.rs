//! Full nat of packets in fragments: the first one has the ports and is translated as its packet would be, and those behind it get the
//! same addresses. The table of fragments is the balancer's; entries of full nat name the flow's slot, too.

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    abi::{FlowKey, Forward, FragmentRow, PortSlot, Reason, ServiceRow, protocol, service_flag},
    be::Be16,
    fragment::{self, Fragment},
    frame::{Ethernet, Frame, Tcp},
    ip::IpHeader,
    parse::{Family, NETWORK, Packet},
    rewrite::{Ends, translate_both},
};

use super::{
    OfPool, reply,
    slot::Slot,
    table::{self, Place},
};
use crate::{
    config, count,
    fragment::{
        admit, check_hop_limit,
        memory::{recall, remember},
        packet_of,
    },
    maps, nexthop,
    packet::{Context, XdpFrame},
    scratch::scratch,
    service,
    verdict::Verdict,
    way_back,
};

/// Whether a packet is a fragment.
#[inline(always)]
pub fn is_one<F: Family>(context: Context) -> bool {
    let frame = context.frame();
    let Some(header) = frame.view::<F::Header>(NETWORK) else { return false };
    F::transport(&frame, header) == Err(Reason::FragmentDropped)
}

/// What becomes of a fragment.
#[inline(always)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    let verdict = look_up::<F>(context);
    if verdict.is_fullnat() {
        if reply::way_to_client(context) == 0 {
            return Verdict::drop(Reason::NoNextHop, reply::service_of_flow());
        }
        return to_client::<F>(context);
    }
    if !verdict.is_fragment() {
        return verdict;
    }
    match service_of::<F>(context) {
        Some(service) => first::<F>(context, service),
        None => later::<F>(context),
    }
}

/// The service that a first fragment is to, with a stack of its own.
#[inline(never)]
fn service_of<F: Family>(context: Context) -> Option<&'static ServiceRow> {
    let frame = context.frame();
    let fragment = fragment::read::<F>(&frame).ok()?;
    if fragment.offset != 0 {
        return None;
    }
    let flow = fragment::flow::<F>(&frame, &fragment).ok()?;
    service::find_any(&frame, &flow).filter(|service| service.flags & service_flag::FULLNAT != 0)
}

/// A client's first fragment. The balancer has seen that the service takes it.
#[inline(always)]
fn first<F: Family>(context: Context, service: &ServiceRow) -> Verdict {
    let admitted = admit_first::<F>(context, service);
    if !admitted.is_fullnat() {
        return admitted;
    }
    let place = table::of_first_fragment::<F>(context, service);
    if place.backend().0 == 0 {
        return Verdict::drop(place.reason(), service.id);
    }
    forward_first::<F>(context, service.id, place)
}

/// [`Verdict::fullnat`] if the fragment may in.
#[inline(never)]
fn admit_first<F: Family>(context: Context, service: &ServiceRow) -> Verdict {
    let frame = context.frame();
    let admitted = || {
        let (_, packet) = read_first::<F>(&frame)?;
        admit(&packet, service)
    };
    match admitted() {
        Ok(()) => Verdict::fullnat(),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn read_first<F: Family>(frame: &XdpFrame) -> Result<(Fragment, Packet), Verdict> {
    let nobody = |reason| Verdict::drop(reason, 0);
    let fragment = fragment::read::<F>(frame).map_err(nobody)?;
    let flow = fragment::flow::<F>(frame, &fragment).map_err(nobody)?;
    let packet = packet_of::<F>(frame, &fragment).ok_or(nobody(Reason::L3Truncated))?;
    Ok((fragment, Packet { flow, ..packet }))
}

#[inline(never)]
fn forward_first<F: Family>(context: Context, id: u32, place: Place) -> Verdict {
    match send_first::<F>(context, id, place) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send_first<F: Family>(context: Context, id: u32, place: Place) -> Result<Verdict, Verdict> {
    let drop = |reason| Verdict::drop(reason, id);
    let mut frame = context.frame();
    let (fragment, packet) = read_first::<F>(&frame)?;
    let row = maps::backend(place.backend()).ok_or(drop(Reason::BadSlot))?;
    let hop = super::hop_to(&frame, row, packet.length).map_err(drop)?;
    let slot = Slot::at(place.index()).ok_or(drop(Reason::BadSlot))?;
    let row_of_slot = FragmentRow {
        backend: place.backend(),
        service: id,
        forward: Forward::FullNat as u16,
        generation: slot.state().generation(),
        slot: place.index(),
        seen: 0,
    };
    remember(&fragment, row_of_slot)?;
    let from = frame.view::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))?.source;
    way_back::note(&packet.flow.source, context.ingress(), from);
    let pool = super::pool().ok_or(drop(Reason::BadSlot))?;
    let ends = Ends {
        source: super::pool_address(pool, PortSlot::address(place.index())),
        destination: &row.address,
        source_port: Be16::from_host(PortSlot::port(place.index())),
        destination_port: config::port_or_own(row.port, packet.flow.destination_port),
    };
    translate_both::<F>(&mut frame, &packet, &ends).ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(place.backend(), packet.length, false);
    Ok(Verdict::sent(action))
}

/// A client's later fragment. The balancer has found the first one's entry.
#[inline(never)]
fn later<F: Family>(context: Context) -> Verdict {
    match send_later::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send_later<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let nobody = |reason| Verdict::drop(reason, 0);
    let fragment = fragment::read::<F>(&frame).map_err(nobody)?;
    let entry = recall(&fragment, true)?.ok_or(nobody(Reason::FragmentMiss))?;
    let drop = |reason| Verdict::drop(reason, entry.service);
    let packet = packet_of::<F>(&frame, &fragment).ok_or(drop(Reason::L3Truncated))?;
    check_hop_limit(&packet, entry.service)?;
    let row = maps::backend(entry.backend).ok_or(drop(Reason::BadSlot))?;
    let hop = super::hop_to(&frame, row, packet.length).map_err(drop)?;
    let pool = super::pool().ok_or(drop(Reason::BadSlot))?;
    let header = frame.view_mut::<F::Header>(NETWORK).ok_or(drop(Reason::L3Truncated))?;
    header.set_source(super::pool_address(pool, PortSlot::address(entry.slot)));
    header.set_destination(&row.address);
    header.decrement_hop_limit();
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(entry.backend, packet.length, false);
    Ok(Verdict::sent(action))
}

/// [`Verdict::fullnat`] of a backend's fragment to the pool, whose flow is noted; [`Verdict::fragment`] of one to a VIP.
#[inline(never)]
fn look_up<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    let fragment = match fragment::read::<F>(&frame) {
        Ok(fragment) => fragment,
        Err(reason) => return Verdict::drop(reason, 0),
    };
    let Some(address) = OfPool::of(&fragment.key.destination) else { return Verdict::fragment() };
    let Some(scratch) = scratch() else { return address.nobodys() };
    let flow = &mut scratch.translation;
    let protocol = fragment.key.protocol as u8;
    if fragment.offset == 0 {
        let Ok(key) = fragment::flow::<F>(&frame, &fragment) else { return address.nobodys() };
        let peer = (&key.source, key.source_port);
        if !reply::find(address, key.destination_port, peer, protocol, flow) {
            return address.nobodys();
        }
    } else {
        let nobodys = address.nobodys();
        let entry = match recall(&fragment, true) {
            Ok(Some(entry)) => entry,
            Ok(None) if nobodys.action() == xdp_action::XDP_PASS => return nobodys,
            Ok(None) => return Verdict::drop(Reason::FragmentMiss, 0),
            Err(verdict) => return verdict,
        };
        let Some(slot) = Slot::at(entry.slot) else { return nobodys };
        flow.state = slot.state();
        slot.read_owner(&mut flow.owner);
        flow.index = entry.slot;
        let is_its = flow.state.generation() == entry.generation
            && flow.owner.backend == entry.backend
            && slot.is_still(flow.state);
        if !is_its {
            return nobodys;
        }
    }
    let owner = &flow.owner;
    let takes = service_flags(&frame, &owner.key(protocol)) & service_flag::FRAGMENTS != 0;
    if fragment.more && !takes {
        return Verdict::drop(Reason::FragmentDropped, owner.service);
    }
    match frame.view::<F::Header>(NETWORK) {
        Some(header) if header.hop_limit() > 1 => Verdict::fullnat(),
        _ => Verdict::drop(Reason::Ttl, owner.service),
    }
}

#[inline(always)]
fn service_flags(frame: &XdpFrame, flow: &FlowKey) -> u32 {
    service::find_any(frame, flow).map_or(0, |service| service.flags)
}

/// A backend's fragment whose flow and whose way are known.
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
    let fragment = fragment::read::<F>(&frame).map_err(drop)?;
    let mut packet = packet_of::<F>(&frame, &fragment).ok_or(drop(Reason::L3Truncated))?;
    if flow.hop.mtu != 0 && packet.length > flow.hop.mtu {
        return Err(drop(Reason::TooBig));
    }
    if fragment.offset == 0 {
        packet.flow = fragment::flow::<F>(&frame, &fragment).map_err(drop)?;
        let entry = FragmentRow {
            backend: flow.owner.backend,
            service: flow.owner.service,
            forward: Forward::FullNat as u16,
            generation: flow.state.generation(),
            slot: flow.index,
            seen: 0,
        };
        remember(&fragment, entry)?;
        if let Some(slot) = Slot::at(flow.index) {
            let after = flow.state.after_server(flags_of(&frame, &packet));
            slot.note(flow.state, after, table::now());
        }
        let ends = Ends {
            source: &flow.owner.vip,
            destination: &flow.owner.client,
            source_port: flow.owner.vip_port,
            destination_port: flow.owner.client_port,
        };
        translate_both::<F>(&mut frame, &packet, &ends).ok_or(drop(Reason::L4Truncated))?;
    } else {
        let header = frame.view_mut::<F::Header>(NETWORK).ok_or(drop(Reason::L3Truncated))?;
        header.set_source(&flow.owner.vip);
        header.set_destination(&flow.owner.client);
        header.decrement_hop_limit();
    }
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        flow.hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, flow.hop.ifindex).map_err(drop)?;
    count::reply(flow.owner.backend, packet.length, false);
    Ok(Verdict::sent(action))
}

/// The TCP flags of a first fragment; of UDP 0.
#[inline(always)]
fn flags_of(frame: &XdpFrame, packet: &Packet) -> u8 {
    match packet.flow.protocol {
        protocol::TCP => frame.view::<Tcp>(packet.transport).map_or(0, |tcp| tcp.flags),
        _ => 0,
    }
}

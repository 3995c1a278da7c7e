//! From the backend to the client: steps with stacks of their own, and between them what is known of the flow, beside the stack.

use lb_common::{
    abi::{Address, PortSlot, Reason, protocol, service_flag},
    be::Be16,
    frame::{Ethernet, Frame, Tcp, be32, tcp_flag},
    fullnat::State,
    ip::IpHeader,
    parse::{self, Family, NETWORK, Packet},
    rewrite::{Ends, translate_both},
};

use super::{
    OfPool,
    slot::{Owner, Slot},
    table, toa,
};
use crate::{
    config, count, handshake, maps, mss,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    scratch::scratch,
    service,
    verdict::{Answer, Verdict},
};

/// The flow of the packet in hand, and the way to its client.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Flow {
    /// Whose it is.
    pub owner: Owner,
    /// What its slot says of it.
    pub state: State,
    /// Its slot's index.
    pub index: u32,
    /// 1 if the address of the pool is the host's, too.
    pub is_local: u32,
    /// The way to the client.
    pub hop: Hop,
}

/// Notes the flow that has the port `port` of an address of the pool, if its backend is at this address and port. False if
/// there is none.
#[inline(always)]
pub fn find(
    address: OfPool,
    port: Be16,
    (peer, peer_port): (&Address, Be16),
    protocol: u8,
    flow: &mut Flow,
) -> bool {
    let index = PortSlot::index(address.number(), port.to_host());
    let Some(slot) = Slot::at(index) else { return false };
    let standing = slot.standing(table::now());
    slot.read_owner(&mut flow.owner);
    let Some(row) = maps::backend(flow.owner.backend) else { return false };
    flow.state = standing.state;
    flow.index = index;
    row.address == *peer
        && config::port_or_own(row.port, flow.owner.vip_port) == peer_port
        && flow.state.protocol() == protocol
        && standing.is_live()
        && slot.is_still(standing.state)
}

/// Sends a backend's packet to its client.
#[inline(always)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    let verdict = look_up::<F>(context);
    if !verdict.is_fullnat() {
        return verdict;
    }
    if way_to_client(context) == 0 {
        return Verdict::drop(Reason::NoNextHop, service_of_flow());
    }
    note_handshake::<F>(context);
    back::<F>(context)
}

/// The way to the client of the flow in hand; 0 = nobody knows one.
#[inline(never)]
pub fn way_to_client(context: Context) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let flow = &mut scratch.translation;
    flow.hop = Hop::default();
    nexthop::to_address(context, &flow.owner.client, &mut flow.hop)
}

/// The service of the flow in hand.
#[inline(always)]
pub fn service_of_flow() -> u32 {
    scratch().map_or(0, |scratch| scratch.translation.owner.service)
}

/// [`Verdict::fullnat`] if the packet belongs to a flow.
#[inline(never)]
fn look_up<F: Family>(context: Context) -> Verdict {
    let not_ours = Verdict::pass(Reason::Passed);
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return not_ours };
    let key = &outline.flow;
    let Some(address) = OfPool::of(&key.destination) else { return not_ours };
    let Some(scratch) = scratch() else { return not_ours };
    let flow = &mut scratch.translation;
    let peer = (&key.source, key.source_port);
    if !find(address, key.destination_port, peer, key.protocol, flow) {
        return address.nobodys();
    }
    match parse::examine_reply::<F>(&frame, &outline) {
        Ok(packet) if packet.hop_limit <= 1 => {
            Verdict::answer(Answer::TimeExceeded, Reason::Ttl, 0, flow.owner.service)
        }
        Ok(_) => Verdict::fullnat(),
        Err(reason) => Verdict::drop(reason, flow.owner.service),
    }
}

/// Measures a handshake by a backend's SYN-ACK, and clamps what that offers.
#[inline(never)]
fn note_handshake<F: Family>(context: Context) -> u32 {
    const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;
    let frame = context.frame();
    let Some(scratch) = scratch() else { return 0 };
    let flow = &scratch.translation;
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    if outline.flow.protocol != protocol::TCP {
        return 0;
    }
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    if tcp.flags & SYN_ACK != SYN_ACK {
        return 0;
    }
    handshake::answered(flow.owner.backend.0, be32(tcp.acknowledgement).to_host());
    let flags = service::find_any(&frame, &flow.owner.key(protocol::TCP))
        .map_or(0, |service| service.flags);
    if toa::configured() && flags & service_flag::TOA != 0 {
        mss::lower(context, outline.transport, lb_common::toa::length(F::Header::IS_V6));
    }
    if flags & service_flag::CLAMP_MSS != 0 {
        mss::clamp(context, outline.transport, flow.owner.service);
    }
    1
}

/// Whether a TCP segment has any.
#[inline(always)]
fn has_data(frame: &XdpFrame, packet: &Packet) -> bool {
    if packet.flow.protocol != protocol::TCP {
        return false;
    }
    let Some(tcp) = frame.view::<Tcp>(packet.transport) else { return false };
    let headers = (packet.transport - NETWORK) + (tcp.offset >> 4) as usize * 4;
    packet.length as usize > headers
}

#[inline(never)]
fn back<F: Family>(context: Context) -> Verdict {
    match send::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let scratch = scratch().ok_or(Verdict::pass(Reason::Passed))?;
    let flow = &scratch.translation;
    let drop = |reason| Verdict::drop(reason, flow.owner.service);
    // An earlier step has read the same.
    let outline = parse::outline::<F>(&frame).ok_or(drop(Reason::L4Truncated))?;
    let packet = parse::examine_reply::<F>(&frame, &outline).map_err(drop)?;
    let mtu = flow.hop.mtu;
    if mtu != 0 && packet.length > mtu {
        return Err(Verdict::answer(Answer::TooBig, Reason::TooBig, mtu, flow.owner.service));
    }
    if let Some(slot) = Slot::at(flow.index) {
        let mut after = flow.state.after_server(packet.flags);
        if toa::configured() && has_data(&frame, &packet) {
            after = after.after_data();
        }
        slot.note(flow.state, after, table::now());
    }
    let ends = Ends {
        source: &flow.owner.vip,
        destination: &flow.owner.client,
        source_port: flow.owner.vip_port,
        destination_port: flow.owner.client_port,
    };
    translate_both::<F>(&mut frame, &packet, &ends).ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        flow.hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, flow.hop.ifindex).map_err(drop)?;
    let is_reset = packet.flags & tcp_flag::RST != 0;
    count::reply(flow.owner.backend, packet.length, is_reset);
    Ok(Verdict::sent(action))
}

//! From the backend to the client.

use lb_common::{
    abi::{Address, FlowKey, PortSlot, Reason, protocol, service_flag},
    be::Be16,
    frame::{Ethernet, Frame, Tcp, be32, tcp_flag},
    fullnat::State,
    ip::IpHeader,
    parse::{self, Family},
    rewrite::{Ends, translate_both},
};

use super::{
    OfPool,
    slot::{Owner, Slot},
    table,
};
use crate::{
    config, count, handshake, maps, mss,
    nexthop::{self, Hop},
    packet::{Context, XdpFrame},
    service,
    verdict::{Answer, Verdict},
};

/// The flow of a packet to an address of the pool.
pub struct Flow {
    slot: Slot,
    /// What its slot says of it.
    pub state: State,
    /// Whose it is.
    pub owner: Owner,
}

impl Flow {
    /// The flow that has the port `port` of an address of the pool, if its backend is at this address and port.
    #[inline(always)]
    pub fn of(
        address: OfPool,
        port: Be16,
        (peer, peer_port): (&Address, Be16),
        protocol: u8,
    ) -> Option<Self> {
        let slot = Slot::at(PortSlot::index(address.number(), port.to_host()))?;
        let standing = slot.standing(table::now());
        let (state, owner) = (standing.state, slot.owner());
        let row = maps::backend(owner.backend)?;
        let is_its = row.address == *peer
            && config::port_or_own(row.port, owner.vip_port) == peer_port
            && state.protocol() == protocol;
        (is_its && standing.is_live() && slot.is_still(state)).then_some(Self {
            slot,
            state,
            owner,
        })
    }

    /// As its client sends it.
    #[inline(always)]
    const fn key(&self) -> FlowKey {
        FlowKey {
            source: self.owner.client,
            destination: self.owner.vip,
            source_port: self.owner.client_port,
            destination_port: self.owner.vip_port,
            protocol: self.state.protocol(),
            _pad: [0; 3],
        }
    }
}

/// Sends a backend's packet to its client.
#[inline(never)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    match send::<F>(context.frame()) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let not_ours = Verdict::pass(Reason::Passed);
    let outline = parse::outline::<F>(&frame).ok_or(not_ours)?;
    let key: FlowKey = outline.flow;
    let address = OfPool::of(&key.destination).ok_or(not_ours)?;
    let flow =
        Flow::of(address, key.destination_port, (&key.source, key.source_port), key.protocol)
            .ok_or(address.nobodys())?;
    let drop = |reason| Verdict::drop(reason, flow.owner.service);
    let packet = parse::examine_reply::<F>(&frame, &outline).map_err(drop)?;
    if packet.hop_limit <= 1 {
        return Err(Verdict::answer(Answer::TimeExceeded, Reason::Ttl, 0, flow.owner.service));
    }
    let mut hop = Hop::default();
    if nexthop::to_address(frame.context(), &flow.owner.client, &mut hop) == 0 {
        return Err(drop(Reason::NoNextHop));
    }
    if hop.mtu != 0 && packet.length > hop.mtu {
        return Err(Verdict::answer(Answer::TooBig, Reason::TooBig, hop.mtu, flow.owner.service));
    }
    const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;
    if packet.flow.protocol == protocol::TCP && packet.flags & SYN_ACK == SYN_ACK {
        if let Some(tcp) = frame.view::<Tcp>(packet.transport) {
            handshake::answered(flow.owner.backend.0, be32(tcp.acknowledgement).to_host());
        }
        let clamps = service::find_any(&frame, &flow.key())
            .is_some_and(|service| service.flags & service_flag::CLAMP_MSS != 0);
        if clamps {
            mss::clamp(frame.context(), packet.transport, flow.owner.service);
        }
    }
    flow.slot.note(flow.state, flow.state.after_server(packet.flags), table::now());
    let ends = Ends {
        source: &flow.owner.vip,
        destination: &flow.owner.client,
        source_port: flow.owner.vip_port,
        destination_port: flow.owner.client_port,
    };
    translate_both::<F>(&mut frame, &packet, &ends).ok_or(drop(Reason::L4Truncated))?;
    *frame.view_mut::<Ethernet>(0).ok_or(drop(Reason::L3Truncated))? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    let is_reset = packet.flags & tcp_flag::RST != 0;
    count::reply(flow.owner.backend, packet.length, is_reset);
    Ok(Verdict::sent(action))
}

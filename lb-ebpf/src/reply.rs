//! Replies of nat backends, recognised without state: (backend address, port, protocol) names one service, so the source
//! becomes that service's VIP again, on whichever node.

use lb_common::{
    abi::{BackendId, Phase, Reason, ReplyRow, protocol, service_flag},
    frame::{Ethernet, Frame, Tcp, be32, tcp_flag},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Outline, Packet},
    rewrite::{End, translate},
};

use crate::{
    config, connection, count, handshake, maps, mss,
    nexthop::{self, Hop},
    observe,
    packet::{Context, XdpFrame},
    pin, select, service, track,
    verdict::{Answer, Verdict},
};

/// Sends a reply back to its client; passes what is none.
#[inline(never)]
pub fn packet<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    match translate_back::<F>(frame) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn translate_back<F: Family>(mut frame: XdpFrame) -> Result<Verdict, Verdict> {
    let not_ours = Verdict::pass(Reason::Passed);
    let Some(outline) = parse::outline::<F>(&frame) else {
        let header = frame.view::<F::Header>(NETWORK).ok_or(not_ours)?;
        return Err(match F::transport(&frame, header) {
            Err(Reason::FragmentDropped) => Verdict::fragment().of_reply(),
            Err(Reason::ExtensionHeader) if !F::HAS_EXTENSIONS => Verdict::extended(),
            // Behind extension headers nobody looks for errors about what clients have sent.
            Ok((protocol, _)) if protocol == F::Header::ICMP && !F::HAS_EXTENSIONS => {
                Verdict::quoting().of_reply()
            }
            _ => not_ours,
        });
    };
    // An IPv6 packet from a mapped address would otherwise be taken for an IPv4 backend's.
    if F::Header::IS_V6 && outline.flow.source.is_v4() {
        return Err(not_ours);
    }
    let backend = service::replying_backend(&outline.flow).ok_or(not_ours)?;
    let reply = maps::REPLIES.get(backend).ok_or(not_ours)?;
    let (service, flags) = maps::SERVICES.get(reply.row).map_or((0, 0), |row| (row.id, row.flags));
    let drop = |reason| Verdict::drop(reason, service);

    let packet = parse::examine_reply::<F>(&frame, &outline).map_err(drop)?;
    if packet.hop_limit <= 1 {
        let verdict = Verdict::answer(Answer::TimeExceeded, Reason::Ttl, 0, service);
        return Err(verdict.of_reply());
    }
    if packet.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) != 0 {
        connection::reply::<F>(frame.context(), reply, backend);
        if config::OBSERVE.load() != 0 {
            observe::reply::<F>(frame.context(), reply, backend);
        }
        if is_syn_ack(&packet) {
            note_syn_ack::<F>(frame.context(), reply, backend);
            if flags & service_flag::CLAMP_MSS != 0 {
                mss::clamp(frame.context(), packet.transport, service);
            }
        }
    }
    if config::TRACK.load() != 0 && says_something(&packet) {
        track::reply::<F>(frame.context(), backend);
    }
    let mut hop = Hop::default();
    if nexthop::to_client::<F>(frame.context(), &mut hop) == 0 {
        return Err(drop(Reason::NoNextHop));
    }
    if hop.mtu != 0 && packet.length > hop.mtu {
        let verdict = Verdict::answer(Answer::TooBig, Reason::TooBig, hop.mtu, service);
        return Err(verdict.of_reply());
    }
    send_back::<F>(&mut frame, &packet, reply, backend, &hop).map_err(drop)
}

/// The same on the fast path, for a packet that says nothing of its flow but that it goes on. Not final = more than that, or no
/// reply for sure, and the packet is as it came.
#[inline(always)]
pub fn settled<F: Family>(mut frame: XdpFrame, outline: &Outline) -> Result<Verdict, Verdict> {
    let (not_ours, more) = (Verdict::pass(Reason::Passed), Verdict::undecided());
    // An IPv6 packet from a mapped address would otherwise be taken for an IPv4 backend's.
    if F::Header::IS_V6 && outline.flow.source.is_v4() {
        return Err(not_ours);
    }
    let backend = service::replying_backend(&outline.flow).ok_or(not_ours)?;
    let reply = maps::REPLIES.get(backend).ok_or(not_ours)?;
    let packet = parse::examine_reply::<F>(&frame, outline).map_err(|_| more)?;
    if packet.hop_limit <= 1 || is_told(&packet, reply) {
        return Err(more);
    }
    let mut hop = Hop::default();
    if !nexthop::known(&packet.flow.destination, &mut hop) {
        return Err(more);
    }
    if hop.mtu != 0 && packet.length > hop.mtu {
        return Err(more);
    }
    send_back::<F>(&mut frame, &packet, reply, backend, &hop).map_err(|reason| {
        let service = maps::SERVICES.get(reply.row).map_or(0, |row| row.id);
        Verdict::drop(reason, service)
    })
}

/// Whether anybody is to be told of the packet: of answers to SYNs, of ends where they are counted or observed, of what is tracked.
#[inline(always)]
fn is_told(packet: &Packet, reply: &ReplyRow) -> bool {
    if packet.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) == 0 {
        return config::TRACK.load() != 0 && says_something(packet);
    }
    let noted = service_flag::COUNT_CONNECTIONS | service_flag::OBSERVE;
    packet.flags & tcp_flag::SYN != 0
        || config::TRACK.load() != 0
        || maps::SERVICES.get(reply.row).is_none_or(|row| row.flags & noted != 0)
}

/// Rewrites and sends a reply.
#[inline(always)]
fn send_back<F: Family>(
    frame: &mut XdpFrame,
    packet: &Packet,
    reply: &ReplyRow,
    backend: u32,
    hop: &Hop,
) -> Result<Verdict, Reason> {
    let port = config::port_or_own(reply.port, packet.flow.source_port);
    translate::<F>(frame, packet, End::Source, &reply.vip, port).ok_or(Reason::L4Truncated)?;
    *frame.view_mut::<Ethernet>(0).ok_or(Reason::L3Truncated)? =
        hop.macs.ethernet(F::Header::ETHER_TYPE);
    let action = nexthop::send(frame, hop.ifindex)?;
    count::reply(BackendId(backend), packet.length, packet.flags & tcp_flag::RST != 0);
    Ok(Verdict::sent(action))
}

/// Whether the packet says something about its flow that is tracked: the beginning or end of a connection, or any datagram.
#[inline(always)]
fn says_something(packet: &Packet) -> bool {
    packet.flow.protocol == protocol::UDP
        || packet.flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST) != 0
}

#[inline(always)]
fn is_syn_ack(packet: &Packet) -> bool {
    const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;
    packet.flow.protocol == protocol::TCP && packet.flags & SYN_ACK == SYN_ACK
}

/// Measures the handshake; and where the flow may have a pin (its slot has changed), the server's sequence number tells
/// its handshake from a guess.
/// A function of its own, for the stack's sake; it reads the packet once more.
#[inline(never)]
fn note_syn_ack<F: Family>(context: Context, reply: &ReplyRow, backend: u32) -> u32 {
    let frame = context.frame();
    let note = || {
        let service = maps::SERVICES.get(reply.row)?;
        let outline = parse::outline::<F>(&frame)?;
        let tcp = frame.view::<Tcp>(outline.transport)?;
        let (sequence, acknowledgement) = (be32(tcp.sequence), be32(tcp.acknowledgement));
        handshake::answered(backend, acknowledgement.to_host());
        let flow = reply.client_flow(&outline.flow);
        if select::slot_of_flow::<F>(service, &flow)?.phase() == Phase::Settled {
            return None;
        }
        let (sequence, acknowledgement) = (sequence.to_host(), acknowledgement.to_host());
        pin::note_syn_ack(&maps::PINS_NEW, &flow, BackendId(backend), sequence, acknowledgement);
        Some(())
    };
    note().is_some() as u32
}

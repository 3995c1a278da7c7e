//! To the backend: nat, dsr or tunnel. Everything that can fail comes before the first byte is changed, except the
//! tunnel's room in front.

use lb_common::{
    abi::{Address, BackendId, BackendRow, Forward, FragmentRow, Reason, ServiceRow, service_flag},
    be::Be16,
    encap,
    frame::{Ethernet, Frame, Pair},
    gue,
    ip::IpHeader,
    parse::{Family, NETWORK, Packet},
    quote::Quote,
    rewrite::{End, translate, translate_error},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    config, connection, count, gue as udp, handshake, maps,
    nexthop::{self, Hop},
    observe::{self, Way},
    packet::XdpFrame,
    spread, trace,
    verdict::{Answer, Verdict},
    way_back,
};

/// Forwards a packet to a backend.
#[inline(always)]
pub fn packet<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    if service.flags & service_flag::COUNT_CONNECTIONS != 0 {
        connection::request::<F>(frame.context());
    }
    if observe::wanted(service.flags) {
        let sees_replies = service.forward == Forward::Nat as u8;
        observe::request::<F>(frame.context(), &Way { service: service.id, backend, sees_replies });
    }
    send::<F>(frame, packet, Rewrite::Flow, service.id, service.forward, backend)
}

/// Forwards a packet of a service that counts no connections and observes nothing, or a datagram, which tells of neither.
#[inline(always)]
pub fn plain<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    send::<F>(frame, packet, Rewrite::Flow, service.id, service.forward, backend)
}

/// Forwards a first fragment, or an atomic one, to a backend. Fragments are not answered: they are no whole packets.
#[inline(always)]
pub fn first_fragment<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    send::<F>(frame, packet, Rewrite::FirstFragment, service.id, service.forward, backend)
        .map_err(Verdict::unanswered)
}

/// Forwards a later fragment to where the first one went.
#[inline(always)]
pub fn later_fragment<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    row: &FragmentRow,
) -> Result<Verdict, Verdict> {
    send::<F>(frame, packet, Rewrite::Address, row.service, row.forward as u8, row.backend)
        .map_err(Verdict::unanswered)
}

/// Forwards an ICMP error to the backend of the flow it is about. What does not fit is not answered: no error about an
/// error.
#[inline(always)]
pub fn error<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    quote: &Quote,
    service: &ServiceRow,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    send::<F>(frame, packet, Rewrite::Quote(quote), service.id, service.forward, backend)
        .map_err(Verdict::unanswered)
}

/// What nat replaces.
#[derive(Clone, Copy)]
enum Rewrite<'a> {
    /// Address and port.
    Flow,
    /// The same in a first fragment, whose tunnel is the one of those behind it, which have no ports.
    FirstFragment,
    /// The address, in a packet without a transport header.
    Address,
    /// The address, and the flow in the packet that an ICMP error quotes.
    Quote(&'a Quote),
}

/// Where tunnels that tell flows apart begin to differ from the others is here, and not where the headers are written: what all would
/// share is kept across the calls that those make, which costs every packet some twenty instructions.
#[inline(always)]
fn send<F: Family>(
    frame: XdpFrame,
    packet: &Packet,
    rewrite: Rewrite<'_>,
    service: u32,
    forward: u8,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    if config::ENTROPY.load() != 0 && forward == Forward::Gue as u8 {
        return send_as::<F, true>(frame, packet, rewrite, service, forward, backend);
    }
    send_as::<F, false>(frame, packet, rewrite, service, forward, backend)
}

#[inline(always)]
fn send_as<F: Family, const TELLS_APART: bool>(
    frame: XdpFrame,
    packet: &Packet,
    rewrite: Rewrite<'_>,
    service: u32,
    forward: u8,
    backend: BackendId,
) -> Result<Verdict, Verdict> {
    let drop = |reason| {
        trace::chosen(backend);
        Verdict::drop(reason, service)
    };
    let row = maps::backend(backend).ok_or_else(|| drop(Reason::BadSlot))?;
    let hop = nexthop::to_backend(&frame, row).map_err(drop)?;
    let ethernet = frame.view::<Ethernet>(0).ok_or_else(|| drop(Reason::L3Truncated))?;
    if hop.macs.is_from(ethernet.source) && nexthop::is_ingress(&frame, hop.ifindex) {
        return Err(drop(Reason::LoopSourceMac));
    }
    let is_tunnel = forward >= Forward::Ipip as u8;
    let mut overhead = if is_tunnel { encap::overhead(!row.address.is_v4()) } else { 0 };
    if TELLS_APART && !spread::is_its(row) {
        overhead += gue::OVERHEAD;
    }
    if hop.mtu != 0 && packet.length as u32 + overhead as u32 > hop.mtu as u32 {
        let mtu = hop.mtu.saturating_sub(overhead);
        trace::chosen(backend);
        return Err(Verdict::answer(Answer::TooBig, Reason::TooBig, mtu, service));
    }
    let frame = if TELLS_APART {
        flow_tunnel::<F>(frame, packet, rewrite, backend, &hop)
            .ok_or_else(|| drop(Reason::EncapFailed))?
    } else if is_tunnel {
        ip_tunnel::<F>(frame, packet, row, &hop).ok_or_else(|| drop(Reason::EncapFailed))?
    } else {
        let port = row.port;
        let to = (forward == Forward::Nat as u8).then_some((&row.address, port));
        direct::<F>(frame, packet, rewrite, to, &hop).ok_or_else(|| drop(Reason::L4Truncated))?
    };
    let action = nexthop::send(&frame, hop.ifindex).map_err(drop)?;
    count::request(backend, packet.length, packet.is_opening());
    Ok(Verdict::sent(action))
}

/// nat (with a new destination) and dsr (without).
#[inline(always)]
fn direct<F: Family>(
    mut frame: XdpFrame,
    packet: &Packet,
    rewrite: Rewrite<'_>,
    to: Option<(&Address, Be16)>,
    hop: &Hop,
) -> Option<XdpFrame> {
    match (to, rewrite) {
        (Some((address, port)), Rewrite::Flow | Rewrite::FirstFragment) => {
            let from = frame.view::<Ethernet>(0)?.source;
            if packet.is_opening() {
                handshake::began(&frame, packet);
            }
            way_back::note(&packet.flow.source, frame.context().ingress(), from);
            let port = config::port_or_own(port, packet.flow.destination_port);
            translate::<F>(&mut frame, packet, End::Destination, address, port)?;
        }
        (Some((address, port)), Rewrite::Quote(quote)) => {
            let port = config::port_or_own(port, quote.flow.source_port);
            translate_error::<F>(&mut frame, quote, End::Destination, address, port)?;
        }
        (Some((address, _)), Rewrite::Address) => {
            let header = frame.view_mut::<F::Header>(NETWORK)?;
            header.set_destination(address);
            header.decrement_hop_limit();
        }
        (None, _) => frame.view_mut::<F::Header>(NETWORK)?.decrement_hop_limit(),
    }
    *frame.view_mut(0)? = hop.macs.ethernet(F::Header::ETHER_TYPE);
    Some(frame)
}

/// A tunnel that tells flows apart.
#[inline(always)]
fn flow_tunnel<F: Family>(
    mut frame: XdpFrame,
    packet: &Packet,
    rewrite: Rewrite<'_>,
    backend: BackendId,
    hop: &Hop,
) -> Option<XdpFrame> {
    frame.view_mut::<F::Header>(NETWORK)?.decrement_hop_limit();
    *frame.view_mut(0)? = hop.macs.ethernet(F::Header::ETHER_TYPE);
    let context = frame.context();
    let entropy = match rewrite {
        // The flow that an error is about.
        Rewrite::Quote(_) => gue::entropy(&packet.flow) as u64,
        Rewrite::FirstFragment if F::HAS_EXTENSIONS => {
            gue::entropy_of_source(&packet.flow.source) as u64
        }
        _ if F::HAS_EXTENSIONS => gue::entropy(&packet.flow) as u64,
        // Of the packet: a flow that is kept for it costs every packet of every service.
        Rewrite::Flow | Rewrite::FirstFragment | Rewrite::Address => udp::OWN_ENTROPY,
    };
    let done = match spread::wrap::<F>(context, backend.0, entropy) {
        spread::NOT_ITS => udp::wrap::<F>(context, backend.0, entropy),
        done => done,
    };
    if done == 0 { None } else { Some(context.frame()) }
}

/// IP in IP.
#[inline(always)]
fn ip_tunnel<F: Family>(
    mut frame: XdpFrame,
    packet: &Packet,
    row: &BackendRow,
    hop: &Hop,
) -> Option<XdpFrame> {
    frame.view_mut::<F::Header>(NETWORK)?.decrement_hop_limit();
    let (source, destination) = (&row.source, &row.address);
    let (inner_is_v6, class, length) = (F::Header::IS_V6, packet.traffic_class, packet.length);
    if destination.is_v4() {
        let sum = row.outer_sum;
        let outer = encap::outer_v4(source, destination, inner_is_v6, class, length, sum);
        wrap::<Ipv4Hdr>(frame, outer, hop)
    } else {
        let outer = encap::outer_v6(source, destination, inner_is_v6, class, length);
        wrap::<Ipv6Hdr>(frame, outer, hop)
    }
}

#[inline(always)]
fn wrap<H: IpHeader>(frame: XdpFrame, outer: H, hop: &Hop) -> Option<XdpFrame> {
    let mut frame = frame.move_start(-(H::LENGTH as i32))?;
    *frame.view_mut::<Pair<Ethernet, H>>(0)? =
        Pair { first: hop.macs.ethernet(H::ETHER_TYPE), second: outer };
    Some(frame)
}

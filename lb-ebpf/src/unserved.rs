//! What is for no service: packets to the VIPs' other ports and protocols, and everybody else's, among which are the
//! replies of nat backends.

use lb_common::{
    abi::{Reason, address_value},
    frame::{Ethernet, Frame, Pair},
    icmp::{self, Kind},
    ip::IpHeader,
    parse::{self, Carrier, Family, NETWORK},
};
use network_types::icmp::Icmpv4Hdr;

use crate::{
    config, fullnat, maps, options,
    packet::{Context, XdpFrame},
    ports, reply, service, sum,
    verdict::Verdict,
};

/// What is known at once of a plain packet that is for no service: most are by nobody and to nobody that lb knows. Asked where the
/// packet has missed the services, it costs no others; and of the packet, because a flow that is kept for it does (IPv6).
#[inline(always)]
pub fn plain<F: Family>(frame: &XdpFrame) -> Verdict {
    let Some(header) = frame.view::<F::Header>(NETWORK) else { return Verdict::unserved() };
    if maps::may_know(&header.destination()) {
        Verdict::unserved()
    } else if config::HAVE_NAT.load() != 0 && maps::may_know(&header.source()) {
        Verdict::perhaps_reply()
    } else {
        Verdict::pass(Reason::Passed)
    }
}

/// Decides about a packet of which [`plain`] could not, or which has none.
#[inline(always)]
pub fn packet<F: Family>(context: Context, verdict: Verdict) -> Verdict {
    if !verdict.is_perhaps_reply() {
        let verdict = by_destination::<F>(context);
        if !verdict.is_perhaps_reply() {
            return verdict;
        }
    }
    reply::packet::<F>(context)
}

#[inline(always)]
fn by_destination<F: Family>(context: Context) -> Verdict {
    let frame = context.frame();
    let destination = match parse::destination::<F>(&frame) {
        Ok(destination) => destination,
        Err(reason) => return Verdict::drop(reason, 0),
    };
    // Most packets that are for no service have nothing to do with any.
    let value = if config::PORTS.load() == ports::PREFIXES {
        Some(ports::address(&destination)).filter(|value| *value != 0)
    } else if maps::may_know(&destination) {
        service::exact_address(&destination)
    } else {
        None
    };
    match value {
        Some(address_value::VIP_LOCAL) => for_vip::<F>(context, 1),
        Some(address_value::VIP) => for_vip::<F>(context, 0),
        None if config::HAVE_NAT.load() != 0 && may_be_reply::<F>(&frame) => {
            Verdict::perhaps_reply()
        }
        Some(value) if value >= address_value::POOL && fullnat::configured() => Verdict::fullnat(),
        _ => Verdict::pass(Reason::Passed),
    }
}

/// By a backend, or an ICMP error by some router about a packet to one.
#[inline(always)]
fn may_be_reply<F: Family>(frame: &XdpFrame) -> bool {
    frame.view::<F::Header>(NETWORK).is_some_and(|header| {
        header.protocol() == F::Header::ICMP || maps::may_know(&header.source())
    })
}

/// A packet to a VIP. `is_local`: the VIP is this host's address, too.
#[inline(never)]
fn for_vip<F: Family>(context: Context, is_local: u32) -> Verdict {
    let frame = context.frame();
    if F::HAS_OPTIONS && options::has_source_route(&frame) {
        return Verdict::drop(Reason::SourceRoute, 0);
    }
    let has_extensions = |header| F::check_chain(header) == Err(Reason::ExtensionHeader);
    if frame.view(NETWORK).is_some_and(has_extensions) {
        return Verdict::extended();
    }
    match parse::examine_any::<F>(&frame) {
        Ok(carrier) if carrier.protocol == F::Header::ICMP => icmp::<F>(frame, &carrier),
        Ok(_) if is_local != 0 => Verdict::pass(Reason::NoServicePassed),
        Ok(_) => Verdict::drop(Reason::NoService, 0),
        Err(Reason::FragmentDropped) => Verdict::fragment(),
        Err(reason) => Verdict::drop(reason, 0),
    }
}

#[inline(always)]
fn icmp<F: Family>(frame: XdpFrame, carrier: &Carrier) -> Verdict {
    let transport = carrier.transport & 0xff;
    let Some([message_type, _]) = frame.view::<[u8; 2]>(transport).copied() else {
        return Verdict::drop(Reason::L4Truncated, 0);
    };
    match icmp::kind(F::Header::IS_V6, message_type) {
        Kind::EchoRequest if parse::is_martian(&carrier.source, &carrier.destination) => {
            Verdict::drop(Reason::Martian, 0)
        }
        Kind::EchoRequest => echo::<F>(frame, carrier, transport),
        Kind::Error => Verdict::quoting(),
        Kind::Other => Verdict::pass(Reason::NoServicePassed),
    }
}

/// Answers an echo request, or drops it if it is broken.
#[inline(always)]
fn echo<F: Family>(mut frame: XdpFrame, carrier: &Carrier, transport: usize) -> Verdict {
    let length = carrier.length.wrapping_sub((transport - NETWORK) as u16);
    let Some(message) = sum::of_frame(&frame, transport, length) else {
        return Verdict::drop(Reason::TooBig, 0);
    };
    match frame.view::<F::Header>(NETWORK) {
        Some(header) if icmp::is_intact(header, message, length) => {}
        _ => return Verdict::drop(Reason::IcmpChecksum, 0),
    }
    match reply_to_echo::<F>(&mut frame, transport) {
        Some(()) => Verdict::answered(Reason::Echo, 0),
        None => Verdict::drop(Reason::L4Truncated, 0),
    }
}

#[inline(always)]
fn reply_to_echo<F: Family>(frame: &mut XdpFrame, transport: usize) -> Option<()> {
    let mut headers = *frame.view::<Pair<Ethernet, F::Header>>(0)?;
    let message = frame.view_mut::<Icmpv4Hdr>(transport)?;
    icmp::reply_to_echo(&mut headers.first, &mut headers.second, message);
    *frame.view_mut(0)? = headers;
    Some(())
}

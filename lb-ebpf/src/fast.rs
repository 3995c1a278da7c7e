//! The fast path: packets of settled flows, replies of nat backends, and what is not ours, decided in one function without a call. (A
//! call costs as much as 80 instructions on CPUs whose returns are guarded, and each of the balancer's steps with a stack of its own is
//! one.) Whatever is more than that has not been touched when [`packet`] says so, and the balancer looks at it from the beginning.

use lb_common::{
    abi::{Reason, ServiceRow, address_value, service_flag},
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Ethernet, Frame, tcp_flag},
    parse::{self, Family, NETWORK, Outline, V4, V6},
};

use crate::{
    admit, config, forward, fullnat,
    packet::{Context, XdpFrame},
    ports, reply, select, service, unserved,
    verdict::Verdict,
};

/// Flags of services that cost their settled flows nothing here, or as much as they do in the balancer.
const KNOWN: u32 = service_flag::INTERFACES
    | service_flag::ALLOW
    | service_flag::DENY
    | service_flag::FRAGMENTS
    | service_flag::BY_SOURCE
    | service_flag::OLD_BY_SOURCE
    | OF_OPENINGS;
/// Those that look at SYNs and resets alone.
const OF_OPENINGS: u32 =
    service_flag::LIMIT_OPENINGS | service_flag::SYN_FLOOD | service_flag::CLAMP_MSS;
const OPENS_OR_RESETS: u8 = tcp_flag::SYN | tcp_flag::RST;

/// What becomes of a packet. Not final = the balancer has to say, and the packet is as it came.
#[inline(always)]
pub fn packet(context: Context) -> Verdict {
    let frame = context.frame();
    let not_ours = Verdict::pass(Reason::Passed);
    let Some(ethernet) = frame.view::<Ethernet>(0) else { return not_ours };
    if ethernet.to_group() {
        return not_ours;
    }
    match ethernet.ether_type {
        ETHER_TYPE_V4 => match frame.view::<[u8; 2]>(NETWORK) {
            Some([0x45, _]) => of_family::<V4>(frame),
            _ => Verdict::undecided(),
        },
        ETHER_TYPE_V6 if config::HAVE_V6.load() != 0 => of_family::<V6>(frame),
        _ => not_ours,
    }
}

#[inline(always)]
fn of_family<F: Family>(frame: XdpFrame) -> Verdict {
    let Some(outline) = parse::outline::<F>(&frame) else { return Verdict::undecided() };
    let verdict = match service::find_any(&frame, &outline.flow) {
        Some(service) => request::<F>(frame, &outline, service),
        // Whether an address is in a VIP's prefix takes more than a bit.
        None if config::PORTS.load() == ports::PREFIXES => Err(Verdict::undecided()),
        None => {
            let verdict = unserved::plain::<F>(&frame);
            if !verdict.is_perhaps_reply() {
                return verdict;
            }
            reply::settled::<F>(frame, &outline)
        }
    };
    match verdict {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// A packet to a service.
#[inline(always)]
fn request<F: Family>(
    frame: XdpFrame,
    outline: &Outline,
    service: &ServiceRow,
) -> Result<Verdict, Verdict> {
    let more = Verdict::undecided();
    let flags = service.flags;
    if flags & !KNOWN != 0 {
        let is_fullnat = fullnat::configured() && flags & service_flag::FULLNAT != 0;
        return Err(if is_fullnat { Verdict::fullnat() } else { more });
    }
    let packet =
        parse::examine::<F>(&frame, outline).map_err(|reason| Verdict::drop(reason, service.id))?;
    if packet.hop_limit <= 1 || flags & OF_OPENINGS != 0 && packet.flags & OPENS_OR_RESETS != 0 {
        return Err(more);
    }
    admit::check_lists(service, &packet.flow.source)?;
    let backend = select::settled::<F>(&packet.flow, service).ok_or(more)?;
    forward::plain::<F>(frame, &packet, service, backend)
}

/// Whether full nat has to say what becomes of a packet of which [`packet`] could not.
#[inline(always)]
pub fn is_fullnats(context: Context, verdict: Verdict) -> bool {
    let frame = context.frame();
    let ether_type = frame.view::<Ethernet>(0).map(|ethernet| ethernet.ether_type);
    verdict.is_fullnat()
        || verdict.is_unserved()
            && match ether_type {
                Some(ETHER_TYPE_V4) => is_to_pool::<V4>(&frame),
                Some(ETHER_TYPE_V6) => is_to_pool::<V6>(&frame),
                _ => false,
            }
}

/// To an address that full nat sends from: a backend's reply.
#[inline(always)]
fn is_to_pool<F: Family>(frame: &XdpFrame) -> bool {
    let Ok(destination) = parse::destination::<F>(frame) else { return false };
    service::exact_address(&destination).is_some_and(|value| value >= address_value::POOL)
}

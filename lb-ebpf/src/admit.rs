//! Who may in: source routes, `deny` and `allow` prefixes, services without a backend, and packets that have come too
//! far.

use lb_common::{
    abi::{Address, Reason, ServiceRow, service_flag},
    parse::{Family, Packet},
};

use crate::{
    maps, mss, openings, options,
    packet::XdpFrame,
    verdict::{Answer, Verdict},
};

/// Lets a packet in, or says what becomes of it.
#[inline(always)]
pub fn packet<F: Family>(
    frame: &XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
) -> Result<(), Verdict> {
    if F::HAS_OPTIONS && options::has_source_route(frame) {
        return Err(Verdict::drop(Reason::SourceRoute, service.id));
    }
    let flags = service.flags;
    if flags & (LISTS | OUT | openings::LOOKED_AT | service_flag::CLAMP_MSS) != 0 {
        check_lists(service, &packet.flow.source)?;
        if flags & service_flag::NEW_ONLY != 0 && !packet.is_opening() {
            return check_hop_limit(packet, service);
        }
        check_backends(flags, service.id)?;
        if flags & openings::LOOKED_AT != 0 {
            openings::check::<F>(frame.context(), packet.flags, service.id, flags)?;
        }
        if flags & service_flag::CLAMP_MSS != 0 && packet.is_opening() {
            mss::clamp(frame.context(), packet.transport, service.id);
        }
    }
    check_hop_limit(packet, service)
}

/// The same for a datagram of a service that limits no openings.
#[inline(always)]
pub fn datagram<F: Family>(
    frame: &XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
) -> Result<(), Verdict> {
    if F::HAS_OPTIONS && options::has_source_route(frame) {
        return Err(Verdict::drop(Reason::SourceRoute, service.id));
    }
    let flags = service.flags;
    if flags & (LISTS | OUT) != 0 {
        check_lists(service, &packet.flow.source)?;
        if flags & service_flag::NEW_ONLY == 0 || packet.is_opening() {
            check_backends(flags, service.id)?;
        }
    }
    check_hop_limit(packet, service)
}

/// Flags of services without a backend.
const OUT: u32 = service_flag::REJECT | service_flag::DROP;

#[inline(always)]
fn check_backends(flags: u32, service: u32) -> Result<(), Verdict> {
    if flags & service_flag::REJECT != 0 {
        return Err(Verdict::answer(Answer::Refusal, Reason::NoBackend, 0, service));
    }
    if flags & service_flag::DROP != 0 {
        return Err(Verdict::drop(Reason::NoBackend, service));
    }
    Ok(())
}

/// Flags of services with a list.
const LISTS: u32 = service_flag::ALLOW | service_flag::DENY;

/// Whether the service's lists let a client in; who is denied and allowed is denied.
#[inline(always)]
pub fn check_lists(service: &ServiceRow, client: &Address) -> Result<(), Verdict> {
    let flags = service.flags;
    if flags & service_flag::DENY != 0 && maps::is_denied(service.deny_list, client) {
        return Err(Verdict::drop(Reason::Denied, service.id));
    }
    if flags & service_flag::ALLOW != 0 && !maps::is_allowed(service.allow_list, client) {
        return Err(Verdict::drop(Reason::NotAllowed, service.id));
    }
    Ok(())
}

#[inline(always)]
fn check_hop_limit(packet: &Packet, service: &ServiceRow) -> Result<(), Verdict> {
    if packet.hop_limit <= 1 {
        return Err(Verdict::answer(Answer::TimeExceeded, Reason::Ttl, 0, service.id));
    }
    Ok(())
}

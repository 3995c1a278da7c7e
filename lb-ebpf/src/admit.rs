//! Who may in: source routes, `allow` prefixes, services without a backend, and packets that have come too far.

use lb_common::{
    abi::{Reason, ServiceRow, service_flag},
    parse::{Family, Packet},
};

use crate::{
    maps, options,
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
    if !F::FIXED && options::has_source_route(frame) {
        return Err(Verdict::drop(Reason::SourceRoute, service.id));
    }
    let flags = service.flags;
    if flags & (service_flag::ALLOW | service_flag::REJECT | service_flag::DROP) != 0 {
        if flags & service_flag::ALLOW != 0
            && !maps::is_allowed(service.allow_list, &packet.flow.source)
        {
            return Err(Verdict::drop(Reason::NotAllowed, service.id));
        }
        if flags & service_flag::NEW_ONLY != 0 && !packet.is_opening() {
            return check_hop_limit(packet, service);
        }
        if flags & service_flag::REJECT != 0 {
            return Err(Verdict::answer(Answer::Refusal, Reason::NoBackend, 0, service.id));
        }
        if flags & service_flag::DROP != 0 {
            return Err(Verdict::drop(Reason::NoBackend, service.id));
        }
    }
    check_hop_limit(packet, service)
}

#[inline(always)]
fn check_hop_limit(packet: &Packet, service: &ServiceRow) -> Result<(), Verdict> {
    if packet.hop_limit <= 1 {
        return Err(Verdict::answer(Answer::TimeExceeded, Reason::Ttl, 0, service.id));
    }
    Ok(())
}

//! Later fragments that nothing is known of, to services that choose by the client's address alone: it leads to where the first one
//! goes, so that they may come before it, or by another node.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{
        Address, BackendId, FragmentKey, FragmentRow, Phase, Reason, ServiceRow, key_kind,
        protocol, service_flag,
    },
    be::Be16,
    fragment::{Fragment, covered},
    ip::IpHeader as _,
    parse::{self, Family},
};

use super::memory::{FOUND, NOTHING, found, in_hand, recall_fragment};
use crate::{admit, packet::Context, quic, select, service, verdict::Verdict};

/// Where the packet of a client's later fragment goes; `Ok(None)` if nobody knows.
#[inline(always)]
pub fn recall<F: Family>(
    context: Context,
    fragment: &Fragment,
) -> Result<Option<&'static FragmentRow>, Verdict> {
    let Some(hand) = in_hand() else { return Ok(None) };
    // SAFETY: as in `memory::remember`.
    unsafe { (*hand).put_key(fragment) };
    // One code of both, so that the verifier follows what comes after them once.
    let mut code = recall_fragment(covered::run(fragment), !fragment.more as u32, 0);
    if code == NOTHING {
        let vip = &fragment.key.destination;
        let row = find_row_of_fragments(vip.high(), vip.low(), fragment.key.protocol);
        if row != 0 {
            code = fragment_by_address(context.pointer(), row, F::Header::IS_V6 as u32);
        }
    }
    found(hand, code)
}

/// The row of the service that takes such fragments; 0 = none. As [`crate::ports`] look services up.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_row_of_fragments(high: u64, low: u64, protocol: u32) -> u32 {
    let (vip, any) = (Address::from_halves(high, low), Be16::from_host(0));
    service::entry(&vip, any, protocol as u8, key_kind::FRAGMENTS).unwrap_or(0)
}

/// Puts the backend that the client's address leads to in hand; [`FOUND`], [`NOTHING`] or why the fragment is dropped.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn fragment_by_address(context: *mut xdp_md, row: u32, is_v6: u32) -> u32 {
    let Some(hand) = in_hand() else { return NOTHING };
    // SAFETY: as in `memory::remember`; the reference ends with this function.
    let hand = unsafe { &mut *hand };
    // SAFETY: the program's own argument.
    let frame = unsafe { Context::new(context) }.frame();
    let Some(service) = service::at(&frame, row) else { return NOTHING };
    let (backend, code) = match choose(hand.key(), service, is_v6 != 0) {
        Ok(backend) => (backend, FOUND),
        Err(reason) => (BackendId::NONE, reason),
    };
    hand.put_row(backend, service.id, service.forward);
    code
}

#[inline(always)]
fn choose(key: &FragmentKey, service: &ServiceRow, is_v6: bool) -> Result<BackendId, u32> {
    let drop = |reason: Reason| reason as u32;
    if parse::is_martian(&key.source, &key.destination) {
        return Err(drop(Reason::Martian));
    }
    admit::check_lists(service, &key.source)
        .map_err(|verdict| verdict.reason().unwrap_or(NOTHING))?;
    let is_out = service.flags & (service_flag::REJECT | service_flag::DROP) != 0;
    if is_out && service.flags & service_flag::NEW_ONLY == 0 {
        return Err(drop(Reason::NoBackend));
    }
    let slot = select::slot_of_source(service, &key.source, is_v6);
    let slot = slot.ok_or(drop(Reason::BadSlot))?;
    // Its flow may have a pin, which needs the ports.
    let has_pins = key.protocol as u8 == protocol::TCP || quic::wanted(service.flags);
    if slot.phase() != Phase::Settled && has_pins {
        return Err(drop(Reason::FragmentMiss));
    }
    match slot.owner() {
        BackendId::NONE => Err(drop(Reason::NoBackend)),
        backend => Ok(backend),
    }
}

//! Who has which port (the rules are [`lb_common::fullnat`]): `PORT_SLOTS` is all that is known of flows, `PORT_FLOWS` finds the
//! slot of a client's packet.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::{BackendId, FlowKey, PortSlot, Reason, ServiceRow, backend_flag, protocol},
    be::Be16,
    fragment,
    frame::{Frame, Tcp, tcp_flag},
    fullnat::{PROBES, Probe, State},
    hash::flow_hash,
    ip::IpHeader,
    parse::{self, Family},
};

use super::slot::Slot;
use crate::{
    config, count,
    maps::{self, PORT_FLOWS},
    packet::Context,
    pin, select,
};

/// The slot of a packet: index in the lower half, backend in the upper one; or, where that is 0, the number of a reason.
#[derive(Clone, Copy)]
pub struct Place(u64);

impl Place {
    #[inline(always)]
    const fn of(index: u32, backend: BackendId) -> Self {
        Self(index as u64 | (backend.0 as u64) << 32)
    }

    #[inline(always)]
    const fn none(reason: Reason) -> Self {
        Self(reason as u64)
    }

    /// The slot's index.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The backend; `NONE` = there is no slot.
    #[inline(always)]
    pub const fn backend(self) -> BackendId {
        BackendId((self.0 >> 32) as u32)
    }

    /// Why there is none.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        const NO_FLOW: u32 = Reason::NoFlow as u32;
        const NO_PORT: u32 = Reason::NoPort as u32;
        match self.0 as u32 {
            NO_FLOW => Reason::NoFlow,
            NO_PORT => Reason::NoPort,
            _ => Reason::NoBackend,
        }
    }
}

/// The slot of a client's packet, which may begin a flow. A function of its own, for the stack's sake; it reads the packet once more.
#[inline(never)]
pub fn of_request<F: Family>(context: Context, service: &ServiceRow) -> Place {
    let frame = context.frame();
    // The caller has read the same.
    let Some(outline) = parse::outline::<F>(&frame) else { return Place::none(Reason::NoFlow) };
    let is_tcp = outline.flow.protocol == protocol::TCP;
    let flags = match is_tcp {
        true => frame.view::<Tcp>(outline.transport).map_or(0, |tcp| tcp.flags),
        false => 0,
    };
    place_of::<F>(&outline.flow, flags, service)
}

/// The same of a client's first fragment.
#[inline(never)]
pub fn of_first_fragment<F: Family>(context: Context, service: &ServiceRow) -> Place {
    let frame = context.frame();
    let Ok(fragment) = fragment::read::<F>(&frame) else { return Place::none(Reason::NoFlow) };
    let Ok(flow) = fragment::flow::<F>(&frame, &fragment) else {
        return Place::none(Reason::NoFlow);
    };
    let flags = match flow.protocol {
        protocol::TCP => frame.view::<Tcp>(fragment.transport).map_or(0, |tcp| tcp.flags),
        _ => 0,
    };
    place_of::<F>(&flow, flags, service)
}

#[inline(always)]
fn place_of<F: Family>(flow: &FlowKey, flags: u8, service: &ServiceRow) -> Place {
    let begins =
        flow.protocol != protocol::TCP || flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    let mut place = MaybeUninit::uninit();
    let flow = pin::key(&mut place, flow);
    let now = now();
    let known = find(flow, now);
    if let Some(found) = known {
        let is_over = found.state.is_closed() && begins;
        let is_down =
            maps::backend(found.backend).is_none_or(|row| row.flags & backend_flag::DOWN != 0);
        if !is_over && !is_down {
            found.slot.note(found.state, found.state.after_client(flags), now);
            return Place::of(found.index, found.backend);
        }
    }
    if !begins {
        return Place::none(Reason::NoFlow);
    }
    let backend = select::owner::<F>(service, flow);
    if backend == BackendId::NONE {
        return Place::none(Reason::NoBackend);
    }
    let index = match known {
        // The port it had before.
        Some(found) if found.slot.claim(found.state) => found.index,
        _ => {
            let hash = flow_hash(&config::hash_keys(F::Header::IS_V6), flow);
            match port_for(hash, F::Header::IS_V6 as u32, service.id) {
                NO_PORT => return Place::none(Reason::NoPort),
                index => index as u32,
            }
        }
    };
    if config::is_dry_run() || fill(index, flow, service, backend, now) {
        Place::of(index, backend)
    } else {
        Place::none(Reason::NoPort)
    }
}

/// The slot of a flow, given in the client's direction; nothing is changed.
#[inline(never)]
pub fn of_flow(flow: &FlowKey) -> Place {
    let mut place = MaybeUninit::uninit();
    match find(pin::key(&mut place, flow), now()) {
        Some(found) => Place::of(found.index, found.backend),
        None => Place::none(Reason::NoFlow),
    }
}

/// A flow's slot.
#[derive(Clone, Copy)]
struct Found {
    slot: Slot,
    index: u32,
    state: State,
    backend: BackendId,
}

/// The slot of a flow, given in the client's direction, whose time is not over. `PORT_FLOWS` may be wrong: the slot says whose
/// it is.
#[inline(always)]
fn find(flow: &FlowKey, now: u64) -> Option<Found> {
    let index = index_of(flow)?;
    let slot = Slot::at(index)?;
    let standing = slot.standing(now);
    let state = standing.state;
    let owner = slot.owner();
    let is_its = owner.client == flow.source
        && owner.vip == flow.destination
        && owner.client_port == flow.source_port
        && owner.vip_port == flow.destination_port
        && state.protocol() == flow.protocol;
    (is_its && standing.is_live() && slot.is_still(state)).then_some(Found {
        slot,
        index,
        state,
        backend: owner.backend,
    })
}

#[inline(always)]
fn index_of(flow: &FlowKey) -> Option<u32> {
    // SAFETY: the pointer is to a map's value, one word, copied at once. That of an entry which is reused meanwhile is another flow's,
    // which the slot tells.
    PORT_FLOWS.get_ptr(flow).map(|index| unsafe { *index })
}

const NO_PORT: u64 = u64::MAX;

/// Claims the slot of a port for a new flow. In the shape of a global function, which the verifier checks once: the index, or
/// [`NO_PORT`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn port_for(hash: u32, is_v6: u32, service: u32) -> u64 {
    let now = now();
    let mut spare = NO_PORT;
    let mut probe = first_probe(hash, is_v6);
    for _ in 0..PROBES {
        let index = index_at(probe, is_v6);
        if index == NO_PORT {
            return NO_PORT;
        }
        match claim_port(index as u32, now, 0) {
            CLAIMED => return index,
            GIVES_WAY if spare == NO_PORT => spare = index,
            _ => {}
        }
        probe = next_probe(probe, is_v6);
    }
    if spare != NO_PORT && claim_port(spare as u32, now, 1) == CLAIMED {
        count::reason(Reason::PortReclaimed, service);
        return spare;
    }
    NO_PORT
}

/// Where the search for a flow's port begins, as a number; of an empty pool, anywhere. This and the next two are global functions, so
/// that the verifier does not follow the search from port to port.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn first_probe(hash: u32, is_v6: u32) -> u64 {
    let Some(pool) = super::pool() else { return 0 };
    let (first, last) = (pool.first_port as u32, pool.last_port as u32);
    packed(Probe::first(hash, pool.counts[(is_v6 & 1) as usize], first, last))
}

/// Where it goes on.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn next_probe(probe: u64, is_v6: u32) -> u64 {
    let Some(pool) = super::pool() else { return 0 };
    let (first, last) = (pool.first_port as u32, pool.last_port as u32);
    packed(unpacked(probe).next(pool.counts[(is_v6 & 1) as usize], first, last))
}

/// The index of the slot that it is at; [`NO_PORT`] = the pool has none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn index_at(probe: u64, is_v6: u32) -> u64 {
    let Some(pool) = super::pool() else { return NO_PORT };
    let family = (is_v6 & 1) as usize;
    let (first, last) = (pool.first_port, pool.last_port);
    if pool.counts[family] == 0 || first == 0 || last < first {
        return NO_PORT;
    }
    let Probe { address, port } = unpacked(probe);
    let number = pool.order[family][(address & 63) as usize] as u32;
    PortSlot::index(number, port as u16) as u64
}

#[inline(always)]
const fn packed(probe: Probe) -> u64 {
    (probe.address as u64) << 32 | probe.port as u64
}

#[inline(always)]
const fn unpacked(probe: u64) -> Probe {
    Probe { address: (probe >> 32) as u32, port: probe as u32 }
}

const TAKEN: u32 = 0;
const CLAIMED: u32 = 1;
const GIVES_WAY: u32 = 2;

/// Claims a port that is free or (`any_way` = 1) whose flow gives way. A global function, so that the verifier does not follow each
/// of the many attempts.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn claim_port(index: u32, now: u64, any_way: u32) -> u32 {
    let Some(slot) = Slot::at(index) else { return TAKEN };
    let standing = slot.standing(now);
    let gives_way = standing.gives_way();
    if (standing.is_free() || gives_way && any_way != 0) && slot.claim(standing.state) {
        return CLAIMED;
    }
    if gives_way { GIVES_WAY } else { TAKEN }
}

/// Writes a flow into a slot that has been claimed for it. False if `PORT_FLOWS` has no room.
#[inline(never)]
fn fill(index: u32, flow: &FlowKey, service: &ServiceRow, backend: BackendId, now: u64) -> bool {
    let Some(slot) = Slot::at(index) else { return false };
    let claimed = slot.state();
    forget(index, slot);
    slot.write(flow, service, backend, now);
    let found = PORT_FLOWS.insert(flow, &index, 0).is_ok();
    slot.publish(if found { claimed.written(flow.protocol) } else { claimed.given_up() });
    found
}

/// Forgets where the flow is that had a slot before.
#[inline(always)]
fn forget(index: u32, slot: Slot) {
    let old = slot.owner();
    if old.client_port == Be16::from_host(0) {
        return;
    }
    for protocol in [protocol::TCP, protocol::UDP] {
        let mut place = MaybeUninit::uninit();
        let key = pin::key(&mut place, &old.key(protocol));
        if index_of(key) == Some(index) {
            // An error means that it is gone already.
            let _ = PORT_FLOWS.remove(key);
        }
    }
}

/// Nanoseconds of the coarse clock, which costs no more than a load.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_ktime_get_coarse_ns() }
}

//! Which backend: the ring decides; pins are asked only where a slot has changed (the rule is [`lb_common::select`]).

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{
        Address, BackendId, FlowKey, Forward, Phase, Reason, ServiceRow, Slot, protocol,
        service_flag,
    },
    frame::{Frame, Tcp, be32, tcp_flag},
    hash::{ring_hash, slot_of, source_hash},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Packet, V4, V4Options, V6, V6Extended, extensions::Place},
    select::{self, Context, Segment, home, select},
    tcp_reset::{payload_length, sequence_length},
};

use crate::{
    balance::Ask,
    config, maps,
    packet::{self, Walked, XdpFrame},
    pin::{self, FlowPins},
    quic, trace, track,
    verdict::Verdict,
};

/// The backend of a packet.
#[inline(always)]
pub fn backend<F: Family>(
    frame: &XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
) -> Result<BackendId, Verdict> {
    let hash = hash_of::<F>(service, &packet.flow);
    if track::wanted(service.flags) {
        let backend = track::backend::<F>(frame.context(), &Ask::of(service, hash));
        if backend != BackendId::NONE {
            return Ok(backend);
        }
    }
    let slot = slot_at(service, service.ring, service.slots, hash)?;
    let mut backend = slot.owner();
    if slot.phase() != Phase::Settled && packet.flow.protocol == protocol::TCP {
        let base = base::<F>(service, slot, &packet.flow)?;
        let context = Context {
            slot,
            base,
            service: service.id,
            sees_replies: service.forward == Forward::Nat as u8,
        };
        let end = if F::HAS_EXTENSIONS { frame.extensions() } else { Place(0) };
        backend = BackendId(changing::<F>(frame.context(), end.0, &context));
    }
    if backend == BackendId::NONE {
        return Err(Verdict::drop(Reason::NoBackend, service.id));
    }
    Ok(backend)
}

/// The backend of a packet whose slot alone says it: it is settled, or the packet is a datagram, which has no pin.
#[inline(always)]
pub fn settled<F: Family>(flow: &FlowKey, service: &ServiceRow) -> Option<BackendId> {
    let slot = slot_of_flow::<F>(service, flow)?;
    let may_have_pin = slot.phase() != Phase::Settled && flow.protocol == protocol::TCP;
    let backend = slot.owner();
    if may_have_pin || backend == BackendId::NONE { None } else { Some(backend) }
}

/// Who has the slot of a new flow that is remembered elsewhere; `NONE` = nobody.
#[inline(always)]
pub fn owner<F: Family>(service: &ServiceRow, flow: &FlowKey) -> BackendId {
    slot_of_flow::<F>(service, flow).map_or(BackendId::NONE, |slot| slot.owner())
}

/// The backend of a datagram to a QUIC service whose connection id names none.
#[inline(always)]
pub fn backend_of_datagram<F: Family>(
    frame: &XdpFrame,
    packet: &Packet,
    service: &ServiceRow,
) -> Result<BackendId, Verdict> {
    let hash = hash_of::<F>(service, &packet.flow);
    if track::wanted(service.flags) {
        let backend = track::backend::<F>(frame.context(), &Ask::of(service, hash));
        if backend != BackendId::NONE {
            return Ok(backend);
        }
    }
    let slot = slot_at(service, service.ring, service.slots, hash)?;
    let mut backend = slot.owner();
    if slot.phase() != Phase::Settled {
        let base = base::<F>(service, slot, &packet.flow)?;
        let context = Context { slot, base, service: service.id, sees_replies: false };
        let end = if F::HAS_EXTENSIONS { frame.extensions() } else { Place(0) };
        let opens = packet.is_opening();
        backend = changing_datagram::<F>(frame.context(), end, opens, &context);
    }
    if backend == BackendId::NONE {
        return Err(Verdict::drop(Reason::NoBackend, service.id));
    }
    Ok(backend)
}

/// The backend of a flow, given in the client's direction, for a packet that says nothing about the flow's state.
#[inline(always)]
pub fn whereabouts<F: Family>(flow: &FlowKey, service: &ServiceRow) -> Result<BackendId, Verdict> {
    let hash = hash_of::<F>(service, flow);
    if track::wanted(service.flags) {
        let backend = track::whereabouts(flow);
        if backend != BackendId::NONE {
            return Ok(backend);
        }
    }
    let slot = slot_at(service, service.ring, service.slots, hash)?;
    let mut backend = slot.owner();
    let has_pins = flow.protocol == protocol::TCP || quic::wanted(service.flags);
    if slot.phase() != Phase::Settled && has_pins {
        let base = base::<F>(service, slot, flow)?;
        let sees_replies = service.forward == Forward::Nat as u8;
        let context = Context { slot, base, service: service.id, sees_replies };
        trace::changing(slot);
        let mut place = MaybeUninit::uninit();
        let flow = pin::key(&mut place, flow);
        backend = select::whereabouts(&context, &FlowPins { flow, service: service.id });
    }
    if backend == BackendId::NONE {
        return Err(Verdict::drop(Reason::NoBackend, service.id));
    }
    Ok(backend)
}

/// The slot of a flow, given in the client's direction.
#[inline(always)]
pub fn slot_of_flow<F: Family>(service: &ServiceRow, flow: &FlowKey) -> Option<Slot> {
    let hash = hash_of::<F>(service, flow);
    maps::slot(service.ring.wrapping_add(slot_of(hash, service.slots)))
}

/// The slot that a client's address alone leads to, of a service that chooses by it.
#[inline(always)]
pub fn slot_of_source(service: &ServiceRow, source: &Address, is_v6: bool) -> Option<Slot> {
    let hash = source_hash(&config::hash_keys(is_v6), source, service.prefix);
    maps::slot(service.ring.wrapping_add(slot_of(hash, service.slots)))
}

/// The hash that the ring is asked by.
#[inline(always)]
fn hash_of<F: Family>(service: &ServiceRow, flow: &FlowKey) -> u32 {
    let by_source = (service.flags & service_flag::BY_SOURCE != 0).then_some(service.prefix);
    ring_hash(&config::hash_keys(F::Header::IS_V6), flow, by_source)
}

/// The hash that the old ring is asked by.
#[inline(always)]
fn old_hash_of<F: Family>(service: &ServiceRow, flow: &FlowKey) -> u32 {
    let by_source =
        (service.flags & service_flag::OLD_BY_SOURCE != 0).then_some(service.old_prefix);
    ring_hash(&config::hash_keys(F::Header::IS_V6), flow, by_source)
}

#[inline(always)]
fn slot_at(service: &ServiceRow, ring: u32, slots: u32, hash: u32) -> Result<Slot, Verdict> {
    maps::slot(ring.wrapping_add(slot_of(hash, slots)))
        .ok_or(Verdict::drop(Reason::BadSlot, service.id))
}

#[inline(always)]
fn base<F: Family>(service: &ServiceRow, slot: Slot, flow: &FlowKey) -> Result<BackendId, Verdict> {
    if slot.base() != BackendId::OLD_RING {
        return Ok(slot.base());
    }
    if service.old_slots == 0 {
        return Ok(slot.owner());
    }
    let hash = old_hash_of::<F>(service, flow);
    Ok(home(slot_at(service, service.old_ring, service.old_slots, hash)?))
}

/// The slow path, a function of its own: its key and pins stay off the fast path's stack, and it reads the packet once
/// more rather than have it handed over there. Returns a backend id.
#[inline(never)]
fn changing<F: Family>(context: packet::Context, end: u32, about: &Context) -> u32 {
    let frame = Walked::new(context.frame(), Place(end));
    let read = || {
        let outline = parse::outline::<F>(&frame)?;
        let length = frame.view::<F::Header>(NETWORK)?.length() as u16;
        let tcp = frame.view::<Tcp>(outline.transport)?;
        Some((outline, tcp, length))
    };
    // The caller has read the same.
    let Some((outline, tcp, length)) = read() else { return BackendId::NONE.0 };
    let payload = payload_length(tcp, outline.transport, length);
    trace::changing(about.slot);
    let mut place = MaybeUninit::uninit();
    let flow = pin::key(&mut place, &outline.flow);
    let mut pins = FlowPins { flow, service: about.service };
    // Each kind has a way of its own: where they met, fields that only the one has would be fetched from the stack for the other,
    // too, which the verifier of kernels before 6.3 refuses.
    match segment(tcp, payload) {
        Segment::Opening { isn } => select(about, &Segment::Opening { isn }, &mut pins).0,
        other => select(about, &other, &mut pins).0,
    }
}

/// The backend of a datagram of QUIC whose slot is not settled.
#[inline(always)]
fn changing_datagram<F: Family>(
    context: packet::Context,
    end: Place,
    opens: bool,
    about: &Context,
) -> BackendId {
    let (slot, base) = (about.slot.0, about.base.0);
    let (context, about) = (context.pointer(), about.service | (opens as u32) << 31);
    BackendId(match (F::Header::IS_V6, F::FIXED) {
        (true, true) => changing_datagram_v6(context, slot, base, about),
        (true, false) => changing_datagram_v6_extended(context, slot, base, about, end.0),
        (false, true) => changing_datagram_v4(context, slot, base, about),
        (false, false) => changing_datagram_v4_options(context, slot, base, about),
    })
}

/// [`changing_datagram`] in the shape of global functions, one a family, each verified once. The upper bit of `about` says whether it
/// opens, the others are the service's id.
macro_rules! changing_datagrams {
    ($($family:ident: $changing:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $changing(
            context: *mut xdp_md,
            slot: u64,
            base: u32,
            about: u32,
        ) -> u32 {
            // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
            let frame = unsafe { packet::Context::new(context) }.frame();
            datagram_of::<$family>(&frame, Slot(slot), BackendId(base), about)
        }
    )* };
}

changing_datagrams! {
    V4: changing_datagram_v4;
    V4Options: changing_datagram_v4_options;
    V6: changing_datagram_v6;
}

/// With where the extension headers end.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn changing_datagram_v6_extended(
    context: *mut xdp_md,
    slot: u64,
    base: u32,
    about: u32,
    end: u32,
) -> u32 {
    // SAFETY: as above.
    let frame = Walked::new(unsafe { packet::Context::new(context) }.frame(), Place(end));
    datagram_of::<V6Extended>(&frame, Slot(slot), BackendId(base), about)
}

#[inline(always)]
fn datagram_of<F: Family>(frame: &impl Frame, slot: Slot, base: BackendId, about: u32) -> u32 {
    let (service, opens) = (about << 1 >> 1, about >> 31 != 0);
    let about = &Context { slot, base, service, sees_replies: false };
    // The caller has read the same.
    let Some(outline) = parse::outline::<F>(frame) else { return BackendId::NONE.0 };
    trace::changing(about.slot);
    let mut place = MaybeUninit::uninit();
    let flow = pin::key(&mut place, &outline.flow);
    let mut pins = FlowPins { flow, service: about.service };
    match quic::segment(opens) {
        Segment::Opening { isn } => select(about, &Segment::Opening { isn }, &mut pins).0,
        other => select(about, &other, &mut pins).0,
    }
}

/// What a client's TCP packet says about its flow.
#[inline(always)]
pub fn segment(tcp: &Tcp, payload: u16) -> Segment {
    let sequence = be32(tcp.sequence).to_host();
    if tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN {
        return Segment::Opening { isn: sequence };
    }
    Segment::Other {
        sequence,
        acknowledgement: be32(tcp.acknowledgement).to_host(),
        length: sequence_length(tcp, payload),
        closing: tcp.flags & (tcp_flag::FIN | tcp_flag::RST) != 0,
    }
}

//! Services that remember every flow: its entries in the two tables of flows (the rule is [`lb_common::track`]). Where no service
//! does, the verifier removes all of it; other services pay a comparison.

use aya_ebpf::{bindings::xdp_md, helpers::generated, maps::HashMap};
use lb_common::{
    abi::{BackendId, FlowKey, Pin, Reason, backend_flag, policy_flag, protocol, service_flag},
    frame::{Frame, Tcp, be32, tcp_flag},
    ip::IpHeader,
    parse::{self, Family, NETWORK, V4, V4Options, V6, V6Extended, extensions::Place},
    select::Pins,
    tcp_reset::payload_length,
    track::{self, ASK, About, Change, Flows},
};

use crate::{
    balance::{self, Ask},
    config, count, load,
    maps::{self, FLOWS, FLOWS_NEW, POLICIES, SERVICE_LOADS},
    packet::{Context, Walked},
    persist, pin,
    scratch::{Scratch, scratch},
    select,
};

/// Whether a service with these flags remembers every flow.
#[inline(always)]
pub fn wanted(flags: u32) -> bool {
    config::TRACK.load() != 0 && flags & service_flag::TRACK != 0
}

/// The backend of a packet of a service that tracks; `NONE` = what the ring says.
#[inline(always)]
pub fn backend<F: Family>(context: Context, ask: &Ask) -> BackendId {
    let known = known_backend::<F>(context, ask.service, BackendId::NONE.0);
    if known != ASK.0 {
        return BackendId(known);
    }
    // Chosen here, and not where it turns out to be needed, for the stack's sake.
    let chosen = balance::choose(ask);
    if chosen == BackendId::NONE.0 {
        return BackendId::NONE;
    }
    BackendId(known_backend::<F>(context, ask.service, chosen))
}

#[inline(always)]
fn known_backend<F: Family>(context: Context, service: u32, chosen: u32) -> u32 {
    match (F::Header::IS_V6, F::FIXED) {
        (true, true) => track_v6(context.pointer(), service, chosen),
        (false, true) => track_v4(context.pointer(), service, chosen),
        (false, false) => track_v4_options(context.pointer(), service, chosen),
        // Walked before and not there: the stack has no room for both (Linux 6.1 takes 32 bytes for any function).
        (true, false) => {
            let end = context.frame().extensions();
            track_v6_extended(context.pointer(), service, chosen, end.0)
        }
    }
}

/// Notes what a nat backend says about a flow, before it is rewritten: a SYN-ACK, FIN, RST, or any datagram.
#[inline(always)]
pub fn reply<F: Family>(context: Context, backend: u32) -> u32 {
    if config::is_dry_run() {
        return 0;
    }
    match (F::Header::IS_V6, F::FIXED) {
        (true, true) => track_reply_v6(context.pointer(), backend),
        (false, true) => track_reply_v4(context.pointer(), backend),
        (false, false) => track_reply_v4_options(context.pointer(), backend),
        (true, false) => track_reply_v6_extended(context.pointer(), backend),
    }
}

/// The steps above in the shape of global functions, one a family: plain numbers in and out, each verified once and not for every way
/// that leads to it.
macro_rules! requests {
    ($($family:ident: $request:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $request(context: *mut xdp_md, service: u32, chosen: u32) -> u32 {
            // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
            let frame = unsafe { Context::new(context) }.frame();
            backend_of::<$family>(&frame, service, BackendId(chosen))
        }
    )* };
}

macro_rules! replies {
    ($($family:ident: $reply:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $reply(context: *mut xdp_md, backend: u32) -> u32 {
            // SAFETY: as above.
            reply_of::<$family>(unsafe { Context::new(context) }, BackendId(backend))
        }
    )* };
}

requests! {
    V4: track_v4;
    V4Options: track_v4_options;
    V6: track_v6;
}

replies! {
    V4: track_reply_v4;
    V4Options: track_reply_v4_options;
    V6: track_reply_v6;
    V6Extended: track_reply_v6_extended;
}

/// With where the extension headers end.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn track_v6_extended(context: *mut xdp_md, service: u32, chosen: u32, end: u32) -> u32 {
    // SAFETY: as above.
    let frame = unsafe { Context::new(context) }.frame();
    backend_of::<V6Extended>(&Walked::new(frame, Place(end)), service, BackendId(chosen))
}

#[inline(always)]
fn backend_of<F: Family>(frame: &impl Frame, service: u32, chosen: BackendId) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return 0 };
    let sees_replies = policy.flags & policy_flag::SEES_REPLIES != 0;
    let about = About { service, sees_replies };
    let Some(outline) = parse::outline::<F>(frame) else { return 0 };
    let Some(scratch) = scratch() else { return 0 };
    scratch.set_flow(&outline.flow);
    let mut flow = TrackedFlow { scratch, service, chosen };
    if outline.flow.protocol != protocol::TCP {
        return track::datagram(&about, &mut flow).0;
    }
    let Some(header) = frame.view::<F::Header>(NETWORK) else { return 0 };
    let length = header.length() as u16;
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let payload = payload_length(tcp, outline.transport, length);
    track::track(&about, &select::segment(tcp, payload), &mut flow).0
}

#[inline(always)]
fn reply_of<F: Family>(context: Context, backend: BackendId) -> u32 {
    let Some(reply) = maps::REPLIES.get(backend.0) else { return 0 };
    let Some(service) = maps::SERVICES.get(reply.row) else { return 0 };
    if service.flags & service_flag::TRACK == 0 {
        return 0;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    let Some(scratch) = scratch() else { return 0 };
    scratch.set_flow(&reply.client_flow(&outline.flow));
    let mut flow = TrackedFlow { scratch, service: service.id, chosen: BackendId::NONE };
    if outline.flow.protocol != protocol::TCP {
        track::answered(backend, &mut flow);
        return 1;
    }
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let (sequence, acknowledgement) =
        (be32(tcp.sequence).to_host(), be32(tcp.acknowledgement).to_host());
    let flags = tcp.flags;
    if flags & (tcp_flag::FIN | tcp_flag::RST) != 0 {
        // A reset without an acknowledgement answers one of the client's: that has closed already.
        if flags & tcp_flag::ACK != 0 {
            let reset = flags & tcp_flag::RST != 0;
            track::closed_by_backend(backend, acknowledgement, reset, &mut flow);
        }
        return 1;
    }
    if flags & tcp_flag::ACK != 0 {
        pin::note_syn_ack(&FLOWS_NEW, &flow.scratch.flow, backend, sequence, acknowledgement);
    }
    1
}

/// Where a flow lives that is given in the client's direction; `NONE` = where the ring says.
#[inline(always)]
pub fn whereabouts(flow: &FlowKey) -> BackendId {
    let Some(scratch) = scratch() else { return BackendId::NONE };
    scratch.set_flow(flow);
    BackendId(track_whereabouts())
}

/// [`whereabouts`] in the shape of a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn track_whereabouts() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    track::whereabouts(&TrackedFlow { scratch, service: 0, chosen: BackendId::NONE }).0
}

/// One flow's entries.
struct TrackedFlow {
    /// Its key is there.
    scratch: &'static mut Scratch,
    service: u32,
    /// For a new flow; `NONE` = nobody has been chosen yet.
    chosen: BackendId,
}

impl Pins for TrackedFlow {
    #[inline(always)]
    fn unconfirmed(&self) -> Option<Pin> {
        pin::read(&FLOWS_NEW, &self.scratch.flow)
    }

    #[inline(always)]
    fn confirmed(&self) -> Option<Pin> {
        pin::read(&FLOWS, &self.scratch.flow)
    }

    #[inline(always)]
    fn put_unconfirmed(&mut self, entry: &Pin) -> bool {
        self.scratch.entry = *entry;
        put_unconfirmed() != 0
    }

    #[inline(always)]
    fn put_confirmed(&mut self, entry: &Pin) -> bool {
        self.scratch.entry = *entry;
        put_confirmed() != 0
    }

    #[inline(always)]
    fn remove_unconfirmed(&mut self) {
        if !config::is_dry_run() && FLOWS_NEW.remove(&self.scratch.flow).is_ok() {
            load::add_unconfirmed(self.service, -1);
        }
    }

    #[inline(always)]
    fn remove_confirmed(&mut self) {
        if !config::is_dry_run() && FLOWS.remove(&self.scratch.flow).is_ok() {
            load::add_confirmed(self.service, -1);
        }
    }

    #[inline(always)]
    fn is_down(&self, backend: BackendId) -> bool {
        maps::backend(backend).is_none_or(|row| row.flags & backend_flag::DOWN != 0)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { generated::bpf_jiffies64() }
    }

    #[inline(always)]
    fn refused(&mut self) {
        count::reason(Reason::FlowRefused, self.service);
    }
}

impl Flows for TrackedFlow {
    #[inline(always)]
    fn choose(&mut self) -> BackendId {
        let remembered = persist::backend_of_client(self.service);
        if remembered != BackendId::NONE.0 {
            return BackendId(remembered);
        }
        if self.chosen.0 != BackendId::NONE.0 { self.chosen } else { ASK }
    }

    #[inline(always)]
    fn count(&mut self, backend: BackendId, change: Change) {
        if !config::is_dry_run() {
            load::count(self.service, backend, change);
        }
    }

    #[inline(always)]
    fn heard_of(&mut self, backend: BackendId) {
        persist::client_heard_of(self.service, backend.0);
    }
}

/// Stores the entry in the scratch. A global function, as those above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn put_unconfirmed() -> u32 {
    let Some(Scratch { flow, entry, .. }) = scratch() else { return 0 };
    let service = entry.service;
    let Some(policy) = POLICIES.get(service) else { return 0 };
    let Some(held) = SERVICE_LOADS.get(service) else { return 0 };
    let bounds = (held.unconfirmed, policy.flows_unconfirmed);
    let (stored, is_new) = put(&FLOWS_NEW, flow, entry, bounds);
    if is_new {
        load::add_unconfirmed(service, 1);
    }
    stored as u32
}

/// Stores the entry in the scratch. A global function, as those above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn put_confirmed() -> u32 {
    let Some(Scratch { flow, entry, .. }) = scratch() else { return 0 };
    let service = entry.service;
    let Some(policy) = POLICIES.get(service) else { return 0 };
    let Some(held) = SERVICE_LOADS.get(service) else { return 0 };
    let bounds = (held.confirmed, policy.flows);
    let (stored, is_new) = put(&FLOWS, flow, entry, bounds);
    if is_new {
        load::add_confirmed(service, 1);
    }
    stored as u32
}

/// Stores an entry, if there is room: whether it is there now, and whether its key is new. `bounds`: entries that the service has,
/// and may have.
#[inline(always)]
fn put(
    table: &HashMap<FlowKey, Pin>,
    key: &FlowKey,
    entry: &Pin,
    (held, most): (u64, u32),
) -> (bool, bool) {
    let is_known = table.get_ptr(key).is_some();
    let is_allowed = is_known | (held < most as u64);
    let stored = pin::insert(table, key, entry, is_allowed);
    (stored, stored & !is_known & !config::is_dry_run())
}

//! From intention to maps: one service at a time, each step leaving every flow right.
//!
//! Publication order: backend rows, reply entries, slots, the service's row, its entry in the service table; on the way
//! out the reverse, with numbers and ranges reused only after a grace period. A crash between any two steps leaves
//! whole slots, and the next start runs the same code over what it finds.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{
        Address, BackendId, ListenRow, Phase, ReplyRow, ServiceRow, Slot, address_value, key_kind,
        protocol, service_flag,
    },
    be::Be16,
    hash::HashKeys,
};

use super::{
    Node,
    alloc::Span,
    loaded::{Backend, ListenKey, Service, target},
    monotonic_milliseconds, monotonic_seconds,
    retire::Retired,
    state::Admin,
    unix_seconds,
};
use crate::{
    api::types::PhaseCount,
    config::model,
    dataplane::{Arena, List},
    events::{Happened, Kind},
    plan::{
        members::{Decision, Mode, is_up},
        phases::{self, OldRing},
        ring::{self, BaseRing, Owners},
        slow_start::SlowStart,
    },
};

/// Why nothing (more) could be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A limit that was fixed when the data plane was loaded.
    #[error(
        "{what} exhausted: {needed} needed, {left} left; raise `limits.{key}` and load the data plane anew (`lb detach`, then start)"
    )]
    Limit {
        /// What there is too little of.
        what: &'static str,
        /// The key that sizes it.
        key: &'static str,
        /// How many the change needs.
        needed: u64,
        /// How many there are.
        left: u64,
    },
    /// A file of prefixes that was not read, and no list loaded that could stay in force.
    #[error(
        "the file in `{key}_file` of service {service} cannot be read, and nothing is loaded that could stay in force: make it readable"
    )]
    Unread {
        /// `allow` or `deny`.
        key: &'static str,
        /// The service's name.
        service: String,
    },
    /// The data plane refused.
    #[error(transparent)]
    Dataplane(#[from] anyhow::Error),
}

impl Node {
    /// Makes the backends' rows, replies, ring, row and table entry of a service what they should be. Returns the
    /// number of slots that changed their owner.
    pub(super) fn reconcile(&mut self, index: usize) -> Result<u32, ApplyError> {
        // First: which backends count as DOWN depends on it.
        let now = monotonic_milliseconds();
        for backend in &mut self.services[index].backends {
            let before = backend.slow_start.since();
            backend.look(now);
            backend.unsaved |= backend.slow_start.since() != before;
        }
        let decision = self.services[index].decide();
        self.services[index].take(&decision);
        self.publish_backends(index)?;
        let moved = self.fill_ring(index, &decision)?;
        self.publish_policy(index, &decision)?;
        self.publish_server_ids(index)?;
        let service = &mut self.services[index];
        if service.row != 0 {
            service.history.moved_slots += u64::from(moved);
        }
        self.publish_service(index)?;
        self.note_service_state(index);
        self.peers.changed(self.services[index].id);
        Ok(moved)
    }

    fn note_service_state(&mut self, index: usize) {
        let service = &mut self.services[index];
        // A service that is new has no state to change before its first checks are answered.
        if service.starting_until.is_some() {
            return;
        }
        let (before, state) = (service.said, service.state());
        service.said = state;
        service.history.note(unix_seconds(), service.mode.is_up());
        if before.is_empty() || before == state {
            return;
        }
        let kind = match (is_up(before), service.mode.is_up()) {
            (true, true) => Kind::ServiceMode,
            (_, true) => Kind::ServiceUp,
            (_, false) => Kind::ServiceDown,
        };
        let usable = service.backends.iter().filter(|b| b.candidate().usable()).count();
        let cause = match service.mode_reason.as_str() {
            "" => format!("{usable} of {} backends are usable", service.backends.len()),
            reason => reason.to_owned(),
        };
        let text = format!("{} is {state}, was {before}", service.spec.name);
        self.log.add(Happened::to_node(kind, text, cause).to_service(&service.spec.name));
    }

    fn publish_backends(&mut self, index: usize) -> Result<(), ApplyError> {
        for backend in 0..self.services[index].backends.len() {
            self.publish_backend_row(index, backend);
        }
        let service = &self.services[index];
        if service.spec.forward != model::Forward::Nat {
            return Ok(());
        }
        for backend in &service.backends {
            let reply = ReplyRow {
                vip: Address::from(service.key.address),
                port: Be16::from_host(match service.spec.listen.has_one_port() {
                    true => service.key.port,
                    false => 0,
                }),
                _pad: 0,
                row: service.row,
            };
            if self.dataplane.replies().get(backend.id.0) != reply {
                self.dataplane.replies().set(backend.id.0, &reply);
            }
            if backend.spec.port == 0 {
                // Lists of ports.
                self.ports_due = true;
                continue;
            }
            self.dataplane
                .publish(
                    Address::from(backend.spec.address),
                    Be16::from_host(backend.spec.port),
                    service.key.protocol,
                    key_kind::REPLY,
                    backend.id.0,
                )
                .map_err(table_full)?;
        }
        Ok(())
    }

    fn fill_ring(&mut self, index: usize, decision: &Decision) -> Result<u32, ApplyError> {
        let now = monotonic_seconds();
        let service = &mut self.services[index];
        let members = service.ring_members(decision);
        let slots = service.wanted_slots();
        let stateful = service.stateful();
        let current = service.ring;
        let arena = self.dataplane.arena();
        // Asked by another hash, a ring of the same length is another ring, too.
        let rehash = service.by_source != service.wants_by_source() && current.slots != 0;
        let other = slots != current.slots || rehash;
        let takes = if !other || current.slots == 0 || !stateful {
            OldRing::Current
        } else {
            phases::old_ring((0..current.slots).map(|number| arena.slot(current.offset + number)))
        };
        // Half of the flows would be looked for in the wrong ring: the length stays until the earlier change is through.
        service.resize_waits = takes == OldRing::NotYet;
        let (slots, other) = match service.resize_waits {
            true => (current.slots, false),
            false => (slots, other),
        };
        let (ring, grown) = if !other {
            (current, false)
        } else {
            let ring = self.spans.take(slots).ok_or(ApplyError::Limit {
                what: "ring slots",
                key: "ring_slots",
                needed: slots as u64,
                left: self.spans.left() as u64,
            })?;
            (ring, true)
        };
        // Nobody to move to: the slots stay as they are, for the flows of drained backends.
        let keep = !grown && members.iter().all(|member| member.effective == 0);
        if keep && service.owners.is_some() {
            return Ok(0);
        }
        let wanted = match keep {
            true => Wanted::Whole(Vec::new(), None),
            false => wanted(service, slots, grown, &self.keys, &members),
        };
        let arena = self.dataplane.arena();
        let (owners, short) = match wanted {
            Wanted::Whole(owners, short) => (owners, short),
            Wanted::Changes(changes, short) => {
                let moved = change_slots(service, arena, &changes, now);
                service.owners = Some(short);
                return Ok(moved);
            }
        };
        let first = service.ring.slots == 0;
        let mut moved = 0;
        let mut phases = PhaseCount::default();
        for number in 0..slots {
            let place = ring.offset + number;
            let old = arena.slot(place);
            let new = match owners.get(number as usize) {
                None => old,
                Some(&owner) if grown && (first || !stateful) => Slot::settled(owner),
                Some(&owner) if grown => phases::new_ring_slot(owner, now),
                Some(&owner) => phases::change_owner(old, owner, now, stateful),
            };
            if grown || new != old {
                arena.set_slot(place, new);
                moved += 1;
            }
            count_phase(&mut phases, new.phase());
        }
        let service = &mut self.services[index];
        service.phases = phases;
        service.owners = short;
        if grown {
            let old = std::mem::replace(&mut service.ring, ring);
            let by_source = service.wants_by_source();
            let old_by_source = std::mem::replace(&mut service.by_source, by_source);
            if takes == OldRing::Current {
                service.old_by_source = old_by_source;
            }
            if old.slots != 0 {
                let dropped = match takes {
                    _ if !stateful => Some(old),
                    OldRing::Current => service.old_ring.replace(old),
                    OldRing::Previous | OldRing::NotYet => Some(old),
                };
                if let Some(ring) = dropped {
                    self.retire(Retired::Span(ring));
                }
            }
        }
        self.count_slots(index);
        Ok(moved)
    }

    fn count_slots(&mut self, index: usize) {
        let service = &mut self.services[index];
        let arena = self.dataplane.arena();
        let ids = || service.backends.iter().map(|backend| backend.id.0);
        // They lie close together: a table, and not a search for each of up to 655,373 slots.
        let (first, last) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0));
        let mut owned = vec![0u32; (last - first) as usize + 1];
        for number in 0..service.ring.slots {
            let owner = arena.slot(service.ring.offset + number).owner().0;
            let place = owner.checked_sub(first).map_or(usize::MAX, |place| place as usize);
            if let Some(owned) = owned.get_mut(place) {
                *owned += 1;
            }
        }
        for backend in &mut service.backends {
            backend.slots = owned[(backend.id.0 - first) as usize];
        }
        service.ring_digest.take();
    }

    pub(super) fn publish_service(&mut self, index: usize) -> Result<(), ApplyError> {
        let service = &self.services[index];
        // Before the row that says that there are any.
        self.dataplane.openings().set_rules(service.id, &super::openings::rules(&service.spec));
        let flags = service_flags(service);
        let is_spread = super::network::is_spread(&self.outer_source);
        let wanted = ServiceRow {
            ring: service.ring.offset,
            slots: service.ring.slots,
            old_ring: service.old_ring.map_or(0, |ring| ring.offset),
            old_slots: service.old_ring.map_or(0, |ring| ring.slots),
            id: service.id,
            flags,
            interfaces: self.interface_mask(&service.spec.listen.interfaces),
            allow_list: service.allow_list,
            deny_list: service.deny_list,
            vip: Address::from(service.key.address),
            port: Be16::from_host(service.key.port),
            protocol: service.key.protocol,
            forward: forward(service.spec.forward, is_spread) as u8,
            idle_seconds: service.idle_seconds() as u16,
            closed_seconds: service.spec.timeouts.tcpfin.as_secs() as u16,
            prefix: service.by_source.unwrap_or_default(),
            old_prefix: service.old_by_source.unwrap_or_default(),
        };
        let old = service.row;
        if old != 0 {
            let mut current = self.dataplane.services().get(old);
            if current.flags != flags && (current.flags ^ flags) & !service_flag::RUN_TIME == 0 {
                self.dataplane.set_service_flags(old, flags);
                current.flags = flags;
            }
            if current == wanted {
                return self.publish_entries(index, 0);
            }
        }
        let row = self.rows.take().ok_or(ApplyError::Limit {
            what: "service rows",
            key: "services",
            needed: 1,
            left: 0,
        })?;
        self.dataplane.services().set(row, &wanted);
        let key = self.services[index].key;
        let listen = ListenRow { last_port: key.last_port, prefix: key.prefix, _pad: [0; 5] };
        self.dataplane.listens().set(wanted.id, &listen);
        self.services[index].row = row;
        self.publish_replies_row(index);
        self.publish_entries(index, old)?;
        if old != 0 {
            self.retire(Retired::Row(old));
        }
        Ok(())
    }

    fn publish_replies_row(&self, index: usize) {
        let service = &self.services[index];
        if service.spec.forward != model::Forward::Nat {
            return;
        }
        for backend in &service.backends {
            let mut reply = self.dataplane.replies().get(backend.id.0);
            reply.row = service.row;
            self.dataplane.replies().set(backend.id.0, &reply);
        }
    }

    /// The service's row under its addresses and ports, in place of the row `old` (0 = none).
    fn publish_entries(&mut self, index: usize, old: u32) -> Result<(), ApplyError> {
        self.publish_fragments(index, old)?;
        let service = &mut self.services[index];
        let (row, protocol) = (service.row, service.key.protocol);
        let wanted: Vec<(IpAddr, u16)> = service.spec.listen.sockets().collect();
        self.ports_due |= service.spec.listen.listed().next().is_some();
        if old == 0 && wanted == service.entries {
            return Ok(());
        }
        let before = std::mem::replace(&mut service.entries, wanted.clone());
        for (address, port) in &wanted {
            let (address, port) = (Address::from(*address), Be16::from_host(*port));
            self.dataplane
                .publish(address, port, protocol, key_kind::SERVICE, row)
                .map_err(table_full)?;
        }
        for (address, port) in before.into_iter().filter(|entry| !wanted.contains(entry)) {
            let (address, port) = (Address::from(address), Be16::from_host(port));
            // Another service may have taken it over.
            for row in [row, old] {
                self.dataplane.unpublish_if(address, port, protocol, key_kind::SERVICE, row);
            }
            self.grace_wanted = true;
        }
        Ok(())
    }

    /// VIP and host addresses in the service table: what is answered, passed or dropped without a service.
    pub(super) fn publish_addresses(&mut self) -> Result<(), ApplyError> {
        let mut wanted: HashMap<IpAddr, u32> = self
            .snapshot
            .addresses
            .iter()
            .map(|entry| (entry.address, address_value::HOST))
            .collect();
        wanted.extend(self.ports.entries(|address| self.snapshot.is_local(address)));
        let mut prefixes = BTreeMap::new();
        for service in &self.services {
            for vip in service.spec.listen.addresses() {
                let local = self.snapshot.is_local(vip);
                let value = if local { address_value::VIP_LOCAL } else { address_value::VIP };
                wanted.insert(vip, value);
            }
            // Addresses of this host within them are in the table, and stay the host's.
            let vips = service.spec.listen.prefixes();
            prefixes.extend(vips.map(|prefix| (prefix, address_value::VIP)));
        }
        let stale: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| !wanted.contains_key(*address))
            .copied()
            .collect();
        for address in stale {
            self.dataplane.unpublish(address.into(), Be16::from_host(0), 0, key_kind::ADDRESS);
            self.addresses.remove(&address);
        }
        for (address, value) in wanted {
            self.dataplane
                .publish(address.into(), Be16::from_host(0), 0, key_kind::ADDRESS, value)
                .map_err(table_full)?;
            self.addresses.insert(address);
        }
        self.dataplane
            .publish_vip_prefixes(&prefixes)
            .map_err(|error| ApplyError::Dataplane(error.into()))
    }

    /// Takes a service out: no packet finds it from now on; its numbers follow when nothing names them.
    pub(super) fn remove_service(&mut self, index: usize) {
        let service = self.services.remove(index);
        let key = service.key;
        for (address, port) in &service.entries {
            let (address, port) = (Address::from(*address), Be16::from_host(*port));
            self.dataplane.unpublish(address, port, key.protocol, key_kind::SERVICE);
        }
        self.withdraw_fragments(&service);
        self.ports_due = true;
        for backend in &service.backends {
            self.withdraw_reply(service.spec.forward, key.protocol, backend);
        }
        self.retire(Retired::Row(service.row));
        self.retire(Retired::Span(service.ring));
        if let Some(ring) = service.old_ring {
            self.retire(Retired::Span(ring));
        }
        if service.choices.slots != 0 {
            self.retire(Retired::Span(service.choices));
        }
        for (kind, list) in [(List::Allow, service.allow_list), (List::Deny, service.deny_list)] {
            if list != 0 {
                self.retire(Retired::List(kind, list));
            }
        }
        let backends = service.backends.iter().map(|backend| backend.id).collect();
        self.dying.push(super::retire::Dying {
            service: Some(service.id),
            backends,
            graced: false,
        });
        self.grace_wanted = true;
        self.sweep_due = Instant::now();
        self.samples.retain(|id| id != service.id);
    }

    /// Replies of this backend are no longer ours, unless another service has taken over its address and port.
    pub(super) fn withdraw_reply(
        &mut self,
        forward: model::Forward,
        protocol: u8,
        backend: &Backend,
    ) {
        if forward == model::Forward::Nat {
            self.dataplane.unpublish_if(
                Address::from(backend.spec.address),
                Be16::from_host(backend.spec.port),
                protocol,
                key_kind::REPLY,
                backend.id.0,
            );
            if backend.spec.port == 0
                && let Err(error) = self.publish_ports()
            {
                tracing::error!(%error, "lists of ports could not be written");
            }
        }
        self.dataplane.replies().set(backend.id.0, &ReplyRow::default());
    }

    /// A service that is not loaded yet: numbers, allow list and backends, nothing published.
    pub(super) fn new_service(&mut self, spec: &model::Service) -> Result<Service, ApplyError> {
        let id = self.service_ids.take().ok_or(ApplyError::Limit {
            what: "services",
            key: "services",
            needed: 1,
            left: 0,
        })?;
        self.dataplane.clear_reasons(id).map_err(|error| ApplyError::Dataplane(error.into()))?;
        Ok(Service {
            key: ListenKey::of(spec),
            spec: spec.clone(),
            id,
            row: 0,
            entries: Vec::new(),
            fragment_vips: Vec::new(),
            ring: Span::default(),
            old_ring: None,
            base_ring: None,
            by_source: spec.ring_prefix(),
            old_by_source: None,
            choices: Span::default(),
            allow_list: 0,
            deny_list: 0,
            syn_flood_engaged: false,
            backends: Vec::new(),
            retired: Default::default(),
            retired_ids: Vec::new(),
            owners: None,
            ring_digest: OnceLock::new(),
            history: Default::default(),
            phases: PhaseCount::default(),
            refused: (0, None),
            mode: Mode::default(),
            mode_reason: String::new(),
            short: 0,
            said: "",
            resize_waits: false,
            starting_until: Some(Instant::now() + starting_time(spec)),
        })
    }

    /// A backend that is not loaded yet. What its number counted for another one has still to be cleared.
    pub(super) fn new_backend(
        &mut self,
        service: &model::Service,
        spec: &Arc<model::Backend>,
    ) -> Result<Backend, ApplyError> {
        let id = self.backend_ids.take().ok_or(ApplyError::Limit {
            what: "backends",
            key: "backends",
            needed: 1,
            left: 0,
        })?;
        Ok(Backend {
            id: BackendId(id),
            spec: spec.clone(),
            removed: false,
            admin: Admin::Ready,
            leaving: Default::default(),
            weight: None,
            checked: target(service, spec).is_none(),
            health: None,
            agent: Default::default(),
            slow_start: SlowStart::default(),
            ramp: 100,
            passive: Default::default(),
            pins: 0,
            slots: 0,
            waits: false,
            unsaved: false,
            voted: None,
        })
    }
}

/// Flags of a service's row.
pub(super) fn service_flags(service: &Service) -> u32 {
    let mut flags = 0;
    if service.allow_list != 0 {
        flags |= service_flag::ALLOW;
    }
    if service.deny_list != 0 {
        flags |= service_flag::DENY;
    }
    if !service.spec.listen.interfaces.is_empty() {
        flags |= service_flag::INTERFACES;
    }
    if service.by_source.is_some() {
        flags |= service_flag::BY_SOURCE;
    }
    if service.old_by_source.is_some() && service.old_ring.is_some() {
        flags |= service_flag::OLD_BY_SOURCE;
    }
    let takes_fragments = match service.spec.fragments {
        model::Fragments::Udp => service.key.protocol == protocol::UDP,
        model::Fragments::All => true,
        model::Fragments::Drop => false,
    };
    if takes_fragments {
        flags |= service_flag::FRAGMENTS;
    }
    if service.spec.count_connections {
        flags |= service_flag::COUNT_CONNECTIONS;
    }
    if service.spec.observe.is_some() {
        flags |= service_flag::OBSERVE;
    }
    flags |= super::openings::flags(&service.spec) | super::quic::flags(&service.spec);
    if service.spec.tracks() {
        flags |= service_flag::TRACK;
    }
    if service.spec.forward == model::Forward::FullNat {
        flags |= service_flag::FULLNAT;
        flags |= if service.spec.toa { service_flag::TOA } else { 0 };
    }
    if service.mode == Mode::Down {
        flags |= match service.spec.on_all_down {
            model::OnAllDown::Reject => service_flag::REJECT,
            model::OnAllDown::FailOpen | model::OnAllDown::Drop => service_flag::DROP,
        };
        // Drained or weightless backends that work keep the flows they have.
        let alive =
            service.backends.iter().map(Backend::candidate).any(|b| b.works() && !b.is_out());
        if alive && service.spec.listen.protocol.has_openings() {
            flags |= service_flag::NEW_ONLY;
        }
    }
    flags
}

/// Slots of a ring from which on its base ring is kept: 8 bytes for each, which many short rings are not worth.
const LONG_RING: u32 = 16_381;

/// What a ring should be.
enum Wanted {
    /// The owner of every slot, and the same in short if that can be said.
    Whole(Vec<BackendId>, Option<Owners>),
    /// New owners of these slots, and then all of them in short.
    Changes(Vec<(u32, BackendId)>, Owners),
}

/// Who should own the slots, by the kept base ring if it is still the right one.
fn wanted(
    service: &mut Service,
    slots: u32,
    grown: bool,
    keys: &HashKeys,
    members: &[ring::Member],
) -> Wanted {
    let before = service.owners.take().filter(|_| !grown);
    let kept = service.base_ring.take().filter(|base| base.fits(slots, members));
    let before = before.filter(|_| kept.is_some());
    let base = kept.unwrap_or_else(|| BaseRing::new(slots, keys, members));
    let wanted = match (base.short_owners(members), before) {
        (None, _) => Wanted::Whole(base.owners(members), None),
        (Some(after), before) => {
            let few = |before: &Owners| before.moved() + after.moved() <= slots as usize / FEW;
            let changes = before.filter(few).and_then(|before| base.difference(&before, &after));
            match changes {
                Some(changes) => Wanted::Changes(changes, after),
                None => Wanted::Whole(base.whole(&after), Some(after)),
            }
        }
    };
    if slots >= LONG_RING {
        service.base_ring = Some(base);
        return wanted;
    }
    match wanted {
        Wanted::Whole(owners, _) => Wanted::Whole(owners, None),
        changes @ Wanted::Changes(..) => changes,
    }
}

/// Up to one in so many slots, they are changed one by one; beyond, the whole ring is gone through.
const FEW: usize = 8;

/// Gives slots other owners, and keeps the counts right. Returns how many have changed.
fn change_slots(
    service: &mut Service,
    arena: &Arena,
    changes: &[(u32, BackendId)],
    now: u64,
) -> u32 {
    let stateful = service.stateful();
    let places: HashMap<BackendId, usize> =
        service.backends.iter().enumerate().map(|(place, backend)| (backend.id, place)).collect();
    let mut moved = 0;
    for &(number, owner) in changes {
        let place = service.ring.offset + number;
        let old = arena.slot(place);
        let new = phases::change_owner(old, owner, now, stateful);
        if new == old {
            continue;
        }
        arena.set_slot(place, new);
        moved += 1;
        *phase_mut(&mut service.phases, old.phase()) -= 1;
        *phase_mut(&mut service.phases, new.phase()) += 1;
        if let Some(&loser) = places.get(&old.owner()) {
            service.backends[loser].slots -= 1;
        }
        if let Some(&winner) = places.get(&owner) {
            service.backends[winner].slots += 1;
        }
    }
    if moved > 0 {
        service.ring_digest.take();
    }
    moved
}

/// How long a new service waits for the first results of all its probes before it believes that those without one are
/// DOWN; without this pause the first backend to answer would get every slot for a moment.
fn starting_time(spec: &model::Service) -> Duration {
    let slowest = spec.backends.iter().map(|b| b.timing.timeout + b.timing.fastinter).max();
    slowest.unwrap_or_default() + Duration::from_millis(500)
}

/// Adds one slot.
pub(super) fn count_phase(count: &mut PhaseCount, phase: Phase) {
    *phase_mut(count, phase) += 1;
}

pub(super) fn phase_mut(count: &mut PhaseCount, phase: Phase) -> &mut u32 {
    match phase {
        Phase::Settled => &mut count.settled,
        Phase::Window => &mut count.window,
        Phase::Harvest => &mut count.harvest,
        Phase::Pinned => &mut count.pinned,
    }
}

/// As the program has it: IP in IP from a prefix goes the way of the tunnels that tell flows apart.
fn forward(forward: model::Forward, is_spread: bool) -> lb_common::abi::Forward {
    match forward {
        model::Forward::Ipip if is_spread => lb_common::abi::Forward::Gue,
        model::Forward::Nat => lb_common::abi::Forward::Nat,
        model::Forward::Dsr => lb_common::abi::Forward::Dsr,
        model::Forward::Ipip => lb_common::abi::Forward::Ipip,
        model::Forward::Gue { .. } => lb_common::abi::Forward::Gue,
        model::Forward::FullNat => lb_common::abi::Forward::FullNat,
    }
}

pub(super) fn table_full(_: crate::dataplane::TableFull) -> ApplyError {
    ApplyError::Limit { what: "service table entries", key: "services", needed: 1, left: 0 }
}

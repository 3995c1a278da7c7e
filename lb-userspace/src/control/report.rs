//! Answers to the control socket: what is loaded, in words and numbers.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::abi::{
    Address, BackendId, FlowKey, HANDSHAKE_BUCKETS, HandshakeTimes, Phase, Reason, Slot, SourceKey,
    backend_flag,
};
use lb_common::{
    be::Be16,
    handshake,
    hash::{ring_hash, slot_of},
};

use super::{
    Node,
    loaded::{Backend, Service},
    node,
    retire::add,
    unix_seconds,
};
use crate::api::types::{
    AgentStatus, BackendStats, BackendStatus, Checks, Counters, Failure, FailureKind, Histogram,
    InterfaceStatus, Lookup, Observed, PinStatus, ServiceStats, ServiceStatus, Stats, Status,
    TableStatus,
};
use crate::{
    config::model,
    dataplane::List,
    health::{
        Health,
        agent::{self, AgentHealth},
    },
    metrics::MapFill,
    plan::{members::Mode, ring},
};

impl Node {
    /// `lb status`
    pub(super) fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs(),
            config: self.options.config.display().to_string(),
            revision: self.state.revision,
            config_error: self.config_error.clone(),
            trial: self.trial(),
            settings: self.state.settings.clone(),
            seed_fingerprint: self.seed.fingerprint(),
            draining: node::is_draining(&self.options.socket),
            starting: self.starting || self.is_joining(),
            interfaces: self.interfaces.iter().map(|name| self.interface_status(name)).collect(),
            warnings: self.warnings(),
            services: (0..self.services.len()).map(|index| self.service_status(index)).collect(),
            pins: PinStatus {
                confirmed: self.pin_counts[1],
                confirmed_limit: self.dataplane.pin_limit(true) as u64,
                unconfirmed: self.pin_counts[0],
                unconfirmed_limit: self.dataplane.pin_limit(false) as u64,
            },
            cluster: self.cluster_status(),
            shared: self.shared_status(),
            vip_conflicts: self.vip_conflicts(),
            name_conflict: self.name_conflict(),
            tables: self.fills().into_iter().map(table_status).collect(),
        }
    }

    fn interface_status(&self, name: &str) -> InterfaceStatus {
        let link = self.snapshot.link_by_name(name);
        let attachment = self.attached().into_iter().find(|a| {
            a.ifname == name && a.ours && Some(a.ifindex) == link.map(|link| link.ifindex)
        });
        InterfaceStatus {
            name: name.to_owned(),
            ifindex: link.map(|link| link.ifindex),
            mode: attachment.map_or_else(|| "detached".to_owned(), |a| a.mode.to_string()),
            mtu: link.map_or(0, |link| link.mtu),
            link: if link.is_some_and(|link| link.up) { "up" } else { "down" }.to_owned(),
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.interface_problems.values().cloned().collect();
        warnings.extend(self.saved.error().cloned());
        if node::is_draining(&self.options.socket) {
            warnings.push(
                "the node is drained: `lb health` says so to VRRP and BGP daemons until `lb node ready`"
                    .to_owned(),
            );
        }
        if let Some(trial) = self.trial() {
            warnings.push(format!(
                "revision {} is on trial: revision {} comes back in {} s without `lb confirm`",
                trial.revision, trial.back_to, trial.seconds_left
            ));
        }
        match crate::log::lost() {
            0 => {}
            lost => warnings.push(format!(
                "{lost} lines of the log are lost, as nobody has read them in time: see who reads standard error (`lb events` has what matters)"
            )),
        }
        warnings.extend(self.history_problem.clone());
        warnings.extend(self.metrics_problem.clone());
        warnings.extend(self.dashboard_problem.clone());
        warnings.extend(self.discovery_warnings());
        warnings.extend(self.cluster_warnings());
        warnings.extend(self.shared_warnings());
        warnings.extend(self.claim_warnings());
        warnings.extend(self.name_warnings());
        warnings.extend(self.taken_off.iter().map(|(name, times)| {
            format!(
                "{name}: lb's program was taken off {times} time(s) since the daemon's start, and attached again: find out who does that"
            )
        }));
        for attachment in self.attached() {
            if attachment.mode == crate::dataplane::AttachMode::Generic
                && self.xdp_mode != model::XdpMode::Generic
            {
                warnings.push(format!(
                    "{}: XDP runs in generic mode, several times slower than in the driver",
                    attachment.ifname
                ));
            }
        }
        for service in &self.services {
            for backend in &service.backends {
                let row = self.dataplane.backends().get(backend.id.0);
                if row.flags & backend_flag::RESOLVED == 0 {
                    warnings.push(format!(
                        "{}/{}: {}",
                        service.spec.name,
                        backend.spec.name,
                        self.next_hop_text(service, backend.spec.address, &row)
                    ));
                } else if !self.is_attached(row.ifindex) {
                    warnings.push(format!(
                        "{}/{}: its next hop is behind a NIC that lb is not attached to; add it under `interfaces`",
                        service.spec.name, backend.spec.name
                    ));
                }
            }
        }
        warnings
    }

    fn is_attached(&self, ifindex: u32) -> bool {
        self.interfaces.iter().any(|name| {
            self.snapshot.link_by_name(name).is_some_and(|link| link.ifindex == ifindex)
        })
    }

    fn service_status(&self, index: usize) -> ServiceStatus {
        let service = &self.services[index];
        ServiceStatus {
            name: service.spec.name.clone(),
            listen: service.spec.listen.to_string(),
            forward: forward_name(service.spec.forward).to_owned(),
            state: service.state().to_owned(),
            state_reason: service.mode_reason.clone(),
            ring: format!("{:08x}", self.ring_digest(service)),
            vip_on_host: self.snapshot.is_local(service.key.address),
            slots: service.phases,
            backends: service.backends.iter().map(|b| self.backend_status(service, b)).collect(),
            balance: service.spec.balance.name().to_owned(),
            tracking: self.tracking(index),
            last_change_seconds: service.history.last_change_seconds(unix_seconds()),
            downs: service.history.downs,
            down_seconds: service.history.down_seconds(unix_seconds()),
            moved_slots: service.history.moved_slots,
            syn_flood: self.syn_flood(service),
        }
    }

    pub(super) fn ring_digest(&self, service: &Service) -> u32 {
        *service.ring_digest.get_or_init(|| {
            let arena = self.dataplane.arena();
            let owners = (0..service.ring.slots)
                .map(|number| arena.slot(service.ring.offset + number).owner());
            let named = |one: &Backend| (one.id, one.spec.address, one.spec.port);
            ring::digest(owners, service.backends.iter().map(named))
        })
    }

    fn backend_status(&self, service: &Service, backend: &Backend) -> BackendStatus {
        let row = self.dataplane.backends().get(backend.id.0);
        let unix = unix_seconds();
        let checks = backend.health.as_ref().map(|health| checks(health, backend.timing(), unix));
        let health = backend.health.clone().unwrap_or_default();
        BackendStatus {
            name: backend.spec.name.clone(),
            address: backend.spec.place(),
            state: backend.state(),
            admin: backend.admin_in_force(),
            weight: backend.weight(),
            configured_weight: backend.spec.weight,
            weight_percent: backend.says().percent,
            agent: service.spec.agent_check.is_some().then(|| agent_status(&backend.agent)),
            throttle: (backend.ramp < 100).then_some(backend.ramp),
            tier: backend.spec.tier,
            sorry: backend.spec.sorry,
            tracks: backend.spec.track.as_ref().map(|tracked| tracked.name.clone()),
            from: super::discovery::origin_text(&backend.spec.origin),
            slots: backend.slots,
            pins: backend.pins,
            next_hop: self.next_hop_text(service, backend.spec.address, &row),
            last_change_seconds: match health.changed_unix {
                0 => 0,
                changed => unix.saturating_sub(changed),
            },
            check: health.code,
            check_output: health.output,
            check_milliseconds: health.milliseconds,
            checks,
            observed: service.spec.observe.map(|_| self.observed(backend)),
        }
    }

    pub(super) fn observed(&self, backend: &Backend) -> Observed {
        let counters = self.dataplane.observed(backend.id.0);
        let passive = &backend.passive;
        let left = passive.ejected_for(super::passive::monotonic());
        let kept = passive.kept();
        Observed {
            answered: counters.answered,
            unanswered: counters.unanswered,
            refused: counters.refused,
            ejections: kept.ejections,
            ejected_seconds: left.map(|left| left.as_millis().div_ceil(1_000) as u64),
            half_open: passive.is_half_open(),
            cause: kept.cause,
        }
    }

    /// `lb stats`
    pub(super) fn stats(&self) -> anyhow::Result<Stats> {
        let mut services = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let mut total = service.retired;
            let mut backends = Vec::new();
            let ids: Vec<u32> = service.backends.iter().map(|backend| backend.id.0).collect();
            let counters = self.dataplane.backend_counters(&ids)?;
            let mut handshakes = match service.spec.forward.sees_replies()
                && service.spec.listen.protocol.has_openings()
            {
                true => self.dataplane.handshakes(&ids)?.into_iter(),
                false => Vec::new().into_iter(),
            };
            for (backend, counters) in service.backends.iter().zip(counters) {
                let counters = counters_of(&counters);
                add(&mut total, &counters);
                backends.push(BackendStats {
                    name: backend.spec.name.clone(),
                    state: backend.state(),
                    admin: backend.admin_name().to_owned(),
                    weight: backend.weight(),
                    share: backend.slots as f64 / service.ring.slots.max(1) as f64,
                    counters,
                    connections: self.connections_of(index, backend.id.0),
                    handshake: handshakes.next().map(|times| handshake_histogram(&times)),
                });
            }
            services.push(ServiceStats {
                name: service.spec.name.clone(),
                listen: service.spec.listen.to_string(),
                total,
                reasons: named(&self.dataplane.reasons(service.id)?),
                backends,
            });
        }
        Ok(Stats { services, node: named(&self.dataplane.reasons(0)?) })
    }

    /// Counters of one backend.
    pub(super) fn counters_of(&self, id: BackendId) -> Counters {
        match self.dataplane.backend_counters(&[id.0]) {
            Ok(counters) => counters.first().map(counters_of).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "counters could not be read");
                Counters::default()
            }
        }
    }

    /// `lb lookup`
    pub(super) fn lookup(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        protocol: model::Protocol,
    ) -> Result<Lookup, Failure> {
        let Some(service) = self.service_at(destination, protocol) else {
            let local = self.snapshot.is_local(destination.ip());
            let is_vip = |listen: &model::Listen| match local {
                // Within a prefix, this host's own addresses are the host's.
                true => listen.addresses().any(|vip| vip == destination.ip()),
                false => listen.has(destination.ip()),
            };
            let vip = self.services.iter().any(|service| is_vip(&service.spec.listen));
            let why = match (vip, local) {
                (true, true) => {
                    "a VIP, but no service has this port and protocol; the address is local, so the packet is passed to this host"
                }
                (true, false) => {
                    "a VIP, but no service has this port and protocol: dropped as no_service"
                }
                (false, true) => "an address of this host, not a VIP: passed to this host",
                (false, false) => "no VIP: passed to this host untouched",
            };
            return Ok(Lookup {
                why: format!("{destination}/{}: {why}", protocol.name()),
                pin: "none".to_owned(),
                ..Lookup::default()
            });
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(Failure::new(
                FailureKind::Invalid,
                "source and destination are of different families",
            ));
        }
        let flow = FlowKey {
            source: Address::from(source.ip()),
            destination: Address::from(destination.ip()),
            source_port: Be16::from_host(source.port()),
            destination_port: Be16::from_host(destination.port()),
            protocol: protocol.number(),
            _pad: [0; 3],
        };
        self.lookup_flow(service, source, &flow)
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
    }

    fn lookup_flow(
        &self,
        service: &Service,
        source: SocketAddr,
        flow: &FlowKey,
    ) -> anyhow::Result<Lookup> {
        let hash = ring_hash(&self.keys, flow, service.by_source);
        let number = slot_of(hash, service.ring.slots);
        let slot = self.dataplane.arena().slot(service.ring.offset + number);
        let base = self.base(service, slot, flow);
        let confirmed = self.dataplane.pin(true, flow)?;
        let unconfirmed = self.dataplane.pin(false, flow)?;
        let resolve = |id: BackendId| {
            if self.dataplane.backends().get(id.0).flags & backend_flag::DOWN != 0 {
                slot.owner()
            } else {
                id
            }
        };
        let name = |id: BackendId| service.backend_name(id);
        let phase = slot.phase();
        let pinned =
            confirmed.or(unconfirmed).filter(|_| phase != Phase::Settled && service.stateful());
        let tracked = match service.spec.tracks() {
            true => Some((self.dataplane.flow(true, flow)?, self.dataplane.flow(false, flow)?)),
            false => None,
        };
        let entry = tracked.and_then(|(confirmed, unconfirmed)| confirmed.or(unconfirmed));
        let is_down =
            |id: BackendId| self.dataplane.backends().get(id.0).flags & backend_flag::DOWN != 0;
        let (backend, mut why) = match (phase, pinned) {
            _ if entry.is_some_and(|entry| !is_down(entry.backend)) => {
                let backend = entry.map_or(BackendId::NONE, |entry| entry.backend);
                (backend, format!("every flow is remembered, and this one is at {}", name(backend)))
            }
            (Phase::Settled, _) => {
                (slot.owner(), "the slot is settled: its owner gets every packet".to_owned())
            }
            (_, Some(pin)) => {
                (resolve(pin.backend), format!("the flow is pinned to {}", name(pin.backend)))
            }
            (Phase::Pinned, None) => (slot.owner(), "no pin: the slot's owner gets it".to_owned()),
            (_, None) => (
                resolve(base),
                format!(
                    "no pin: the flow is older than the window, and older flows live at the base, {}",
                    name(base)
                ),
            ),
        };
        if backend != slot.owner() && pinned.is_none() && resolve(base) != base {
            why = format!("{why}; that is DOWN, so the owner gets it");
        }
        if let Some(chosen) = self.chosen_how(service, flow)? {
            why = match entry {
                Some(_) => why,
                None => format!("the flow is not remembered: {why}"),
            };
            why = format!("{why}; a new flow {chosen}");
        }
        let row = self.dataplane.services().get(service.row);
        use lb_common::abi::service_flag::{DROP, NEW_ONLY, REJECT};
        if self.dataplane.list_has(List::Deny, row.deny_list, &source.ip()) {
            why = "the client is in the service's deny prefixes: dropped as denied".to_owned();
        } else if row.allow_list != 0
            && !self.dataplane.list_has(List::Allow, row.allow_list, &source.ip())
        {
            why = "the client is not in the service's allow prefixes: dropped as not_allowed"
                .to_owned();
        } else if row.flags & (REJECT | DROP) != 0 {
            let what = if row.flags & REJECT != 0 { "rejected" } else { "dropped as no_backend" };
            let which = if row.flags & NEW_ONLY != 0 { "new flows are" } else { "every packet is" };
            why = format!("no usable backend: {which} {what}; {why}");
        } else if service.mode != Mode::Normal {
            why = format!("the service is {}: {}; {why}", service.mode.name(), service.mode_reason);
        }
        Ok(Lookup {
            service: Some(service.spec.name.clone()),
            backend: Some(name(backend)),
            backend_for_new_flow: Some(name(slot.owner())),
            slot: number,
            slots: service.ring.slots,
            phase: format!("{phase:?}").to_uppercase(),
            base: matches!(phase, Phase::Window | Phase::Harvest).then(|| name(base)),
            pin: match tracked.unwrap_or((confirmed, unconfirmed)) {
                (Some(pin), _) => format!("confirmed {}", name(pin.backend)),
                (None, Some(pin)) => format!("unconfirmed {}", name(pin.backend)),
                (None, None) => "none".to_owned(),
            },
            why,
            ..Lookup::default()
        })
    }

    /// How a backend is chosen for a flow, in words, if the service remembers all.
    fn chosen_how(&self, service: &Service, flow: &FlowKey) -> anyhow::Result<Option<String>> {
        if !service.spec.tracks() {
            return Ok(None);
        }
        if service.spec.remembers_sources() {
            let prefix = self.dataplane.policies().get(service.id).prefix;
            let key =
                SourceKey { source: prefix.masked(&flow.source), service: service.id, _pad: 0 };
            let found = self.dataplane.source(&key)?.map(|source| source.backend);
            let backend = found.and_then(|id| service.backend(id)).filter(|known| !known.removed);
            if let Some(backend) = backend {
                return Ok(Some(format!(
                    "of this client goes to {}, where the client is remembered",
                    backend.spec.name
                )));
            }
        }
        let how = match (service.spec.balance, service.spec.hash_balance_factor) {
            (model::Balance::Maglev | model::Balance::Source, None) => "goes to the slot's owner",
            (model::Balance::Maglev | model::Balance::Source, Some(_)) => {
                "goes to the slot's owner, or to the next on the ring that has not too many connections"
            }
            (model::Balance::Rr | model::Balance::Wrr, _) => "goes to whose turn it is",
            (model::Balance::Leastconn, _) => "goes to who has the fewest connections",
            (model::Balance::Wlc, _) => "goes to who has the fewest connections for its weight",
            (model::Balance::Random2, _) => "goes to the less loaded of two drawn",
        };
        Ok(Some(how.to_owned()))
    }

    fn base(&self, service: &Service, slot: Slot, flow: &FlowKey) -> BackendId {
        match (slot.base(), service.old_ring) {
            (BackendId::OLD_RING, Some(ring)) => {
                let hash = ring_hash(&self.keys, flow, service.old_by_source);
                let old = self.dataplane.arena().slot(ring.offset + slot_of(hash, ring.slots));
                match old.phase() {
                    Phase::Window | Phase::Harvest => old.base(),
                    Phase::Settled | Phase::Pinned => old.owner(),
                }
            }
            (base, _) => base,
        }
    }
}

fn agent_status(agent: &AgentHealth) -> AgentStatus {
    AgentStatus {
        says: agent::words(&agent.says),
        code: agent.code.clone(),
        output: agent.output.clone(),
        milliseconds: agent.milliseconds,
    }
}

fn table_status(fill: MapFill) -> TableStatus {
    TableStatus { name: fill.map.to_owned(), entries: fill.entries, limit: fill.capacity }
}

fn forward_name(forward: model::Forward) -> &'static str {
    match forward {
        model::Forward::Nat => "nat",
        model::Forward::Dsr => "dsr",
        model::Forward::Ipip => "tunnel",
        model::Forward::Gue { .. } => "gue",
        model::Forward::FullNat => "fullnat",
    }
}

fn checks(health: &Health, timing: &model::Timing, unix: u64) -> Checks {
    let down = match (health.up, health.changed_unix) {
        (false, changed @ 1..) => unix.saturating_sub(changed),
        _ => 0,
    };
    let (rise, fall) = (timing.rise, timing.fall);
    Checks {
        failed: health.tally.failed,
        downs: health.tally.downs,
        down_seconds: health.tally.down_seconds + down,
        rise,
        fall,
        health: match health.up {
            true => (rise + fall - 1).saturating_sub(health.streak),
            false => health.streak,
        },
        codes: health.tally.codes.named(),
        durations: health.tally.durations.histogram(),
    }
}

fn handshake_histogram(times: &HandshakeTimes) -> Histogram {
    let mut count = 0;
    let mut cumulative = |buckets: &[u64]| -> Vec<(f64, u64)> {
        let bounds = (0..).map(|bucket| f64::from(handshake::FIRST_BUCKET << bucket) / 1e6);
        bounds
            .zip(buckets)
            .map(|(bound, more)| {
                count += more;
                (bound, count)
            })
            .collect()
    };
    // The last bucket has no bound.
    let buckets = cumulative(&times.buckets[..HANDSHAKE_BUCKETS - 1]);
    let count = count + times.buckets[HANDSHAKE_BUCKETS - 1];
    Histogram { buckets, count, sum_seconds: times.sum as f64 / 1e6 }
}

fn counters_of(counters: &lb_common::abi::BackendCounters) -> Counters {
    Counters {
        packets_in: counters.packets,
        bytes_in: counters.bytes,
        packets_out: counters.reply_packets,
        bytes_out: counters.reply_bytes,
        flows: counters.flows,
        resets: counters.reply_resets,
    }
}

fn named(reasons: &[u64]) -> BTreeMap<String, u64> {
    Reason::ALL
        .iter()
        .filter_map(|reason| {
            let count = *reasons.get(*reason as usize)?;
            (count > 0).then(|| (reason.name().to_owned(), count))
        })
        .collect()
}

//! Start: what is in the maps already becomes what the controller knows, so that a crash or an upgrade loses nothing.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use lb_common::{
    abi::{BackendId, ServiceRow, key_kind, protocol, service_flag},
    syn_flood::FloodState,
};

use super::{
    Node,
    alloc::Span,
    loaded::{Backend, ListenKey, Service},
    state::{Admin, ServiceState},
};
use crate::{
    api::types::PhaseCount,
    config::model,
    health::agent::AgentHealth,
    plan::{members::Mode, slow_start::SlowStart},
};

impl Node {
    /// Builds services and backends from the maps. `config` names and describes what it knows of them; what it does
    /// not know drains or goes.
    pub(super) fn adopt(&mut self, config: &model::Config) {
        let mut rows: HashMap<u32, Vec<(IpAddr, u16)>> = HashMap::new();
        let mut fragment_vips: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for (key, value) in self.dataplane.entries() {
            match key.kind {
                key_kind::SERVICE => {
                    rows.entry(value).or_default().push((key.address.into(), key.port));
                }
                key_kind::FRAGMENTS => {
                    fragment_vips.entry(value).or_default().push(key.address.into());
                }
                key_kind::ADDRESS => {
                    self.addresses.insert(key.address.into());
                }
                _ => {}
            }
        }
        for row in self.dataplane.ports().rows() {
            rows.entry(row).or_default();
        }
        let specs: HashMap<ListenKey, &model::Service> =
            config.services.iter().map(|spec| (ListenKey::of(spec), spec)).collect();
        for (number, entries) in rows {
            let row = self.dataplane.services().get(number);
            self.adopt_service(number, &row, entries, &specs);
            if let Some(service) = self.services.last_mut() {
                service.fragment_vips = fragment_vips.remove(&number).unwrap_or_default();
            }
        }
        self.drop_orphaned_lists();
        self.drop_orphaned_fragments();
        for service in &mut self.services {
            let state = self.dataplane.openings().state(service.id);
            service.syn_flood_engaged = state.flood & FloodState::ENGAGED != 0;
        }
        self.adopt_backends();
        for index in 0..self.services.len() {
            self.restore_counters(index);
        }
        tracing::info!(
            services = self.services.len(),
            backends = self.services.iter().map(|service| service.backends.len()).sum::<usize>(),
            "adopted the loaded data plane"
        );
        // The tables may name what no service does (a crash on the way out): the first sweep clears pins, and ids that
        // were not adopted are free.
        self.pins_seen = true;
    }

    fn adopt_service(
        &mut self,
        number: u32,
        row: &ServiceRow,
        entries: Vec<(IpAddr, u16)>,
        specs: &HashMap<ListenKey, &model::Service>,
    ) {
        self.rows.adopt(number);
        self.service_ids.adopt(row.id);
        for list in [row.allow_list, row.deny_list].into_iter().filter(|list| *list != 0) {
            self.list_numbers.adopt(list);
        }
        let ring = Span { offset: row.ring, slots: row.slots };
        self.spans.adopt(ring);
        let old_ring =
            (row.old_slots != 0).then_some(Span { offset: row.old_ring, slots: row.old_slots });
        if let Some(ring) = old_ring {
            self.spans.adopt(ring);
        }
        let policy = self.dataplane.policies().get(row.id);
        let choices = match policy.schedule_length {
            0 => Span { offset: policy.members, slots: policy.members_length },
            slots => Span { offset: policy.schedule, slots },
        };
        if choices.slots != 0 {
            self.spans.adopt(choices);
        }
        let listen = self.dataplane.listens().get(row.id);
        let key = ListenKey {
            address: row.vip.into(),
            prefix: listen.prefix,
            port: row.port.to_host(),
            last_port: listen.last_port,
            protocol: row.protocol,
        };
        let spec = match specs.get(&key) {
            Some(spec) => (*spec).clone(),
            None => unknown_service(key, row),
        };
        let mut phases = PhaseCount::default();
        for place in 0..ring.slots {
            super::apply::count_phase(
                &mut phases,
                self.dataplane.arena().slot(ring.offset + place).phase(),
            );
        }
        self.services.push(Service {
            key,
            spec,
            id: row.id,
            row: number,
            entries,
            fragment_vips: Vec::new(),
            ring,
            old_ring,
            base_ring: None,
            by_source: (row.flags & service_flag::BY_SOURCE != 0).then_some(row.prefix),
            old_by_source: (row.flags & service_flag::OLD_BY_SOURCE != 0).then_some(row.old_prefix),
            choices,
            allow_list: row.allow_list,
            deny_list: row.deny_list,
            syn_flood_engaged: false,
            backends: Vec::new(),
            retired: Default::default(),
            retired_ids: Vec::new(),
            owners: None,
            ring_digest: OnceLock::new(),
            history: Default::default(),
            phases,
            refused: (0, None),
            mode: Mode::default(),
            mode_reason: String::new(),
            short: 0,
            said: "",
            resize_waits: false,
            starting_until: None,
        });
    }

    fn adopt_backends(&mut self) {
        let by_id: HashMap<u32, usize> =
            self.services.iter().enumerate().map(|(index, service)| (service.id, index)).collect();
        for id in 1..self.dataplane.backends().len() {
            let row = self.dataplane.backends().get(id);
            if row.service == 0 {
                continue;
            }
            let Some(&index) = by_id.get(&row.service) else {
                self.dataplane.backends().set(id, &Default::default());
                continue;
            };
            let key = self.services[index].key.to_string();
            let retired =
                self.state.services.get(&key).is_some_and(|s| s.retired_ids.contains(&id));
            if retired {
                self.dataplane.backends().set(id, &Default::default());
                continue;
            }
            self.backend_ids.adopt(id);
            let service = &self.services[index];
            let address = row.address.into();
            let port = match service.spec.forward {
                // The row has the tunnel's.
                model::Forward::Gue { .. } => match service.spec.listen.has_one_port() {
                    true => service.spec.listen.port,
                    false => 0,
                },
                _ => row.port.to_host(),
            };
            let known =
                service.spec.backends.iter().find(|b| b.address == address && b.port == port);
            let spec = known.cloned().unwrap_or_else(|| {
                Arc::new(model::Backend {
                    name: format!("{}", std::net::SocketAddr::new(address, port)),
                    address,
                    port,
                    weight: 0,
                    timing: default_timing(),
                    slowstart: Duration::ZERO,
                    tier: 0,
                    sorry: false,
                    track: None,
                    server_id: None,
                    origin: model::Origin::Written,
                })
            });
            let mut backend = Backend {
                id: BackendId(id),
                removed: known.is_none(),
                spec,
                admin: Admin::Ready,
                leaving: Default::default(),
                weight: None,
                checked: true,
                health: None,
                agent: AgentHealth::default(),
                slow_start: SlowStart::default(),
                ramp: 100,
                passive: Default::default(),
                pins: 0,
                slots: 0,
                waits: false,
                unsaved: false,
                voted: None,
            };
            if backend.removed
                && let Some(state) = self.backend_state(index, &backend)
            {
                Arc::make_mut(&mut backend.spec).name = state;
            }
            self.restore(index, &mut backend);
            if super::loaded::target(&self.services[index].spec, &backend.spec).is_some()
                && backend.health.is_none()
            {
                backend.checked = false;
            }
            self.services[index].backends.push(backend);
        }
    }

    fn backend_state(&self, index: usize, backend: &Backend) -> Option<String> {
        let service = self.state.services.get(&self.services[index].key.to_string())?;
        let name = &service.backends.get(&super::reload::identity(backend))?.name;
        (!name.is_empty()).then(|| name.clone())
    }

    fn restore_counters(&mut self, index: usize) {
        let key = self.services[index].key.to_string();
        if let Some(ServiceState { retired, history, short, .. }) = self.state.services.get(&key) {
            self.services[index].retired = *retired;
            self.services[index].history = *history;
            self.services[index].short = *short;
        }
    }
}

/// A service in the maps that the configuration does not know: it is about to be removed.
fn unknown_service(key: ListenKey, row: &ServiceRow) -> model::Service {
    model::Service {
        name: key.to_string(),
        listen: model::Listen {
            address: key.address,
            vips: vec![key.vip()],
            port: key.port,
            last_port: key.last_port,
            protocol: match key.protocol {
                protocol::UDP if row.flags & service_flag::QUIC != 0 => model::Protocol::Quic,
                protocol::UDP => model::Protocol::Udp,
                _ => model::Protocol::Tcp,
            },
            interfaces: Vec::new(),
            add_address_to: None,
            force: true,
        },
        forward: if row.forward == lb_common::abi::Forward::Nat as u8 {
            model::Forward::Nat
        } else if row.forward == lb_common::abi::Forward::FullNat as u8 {
            model::Forward::FullNat
        } else {
            model::Forward::Dsr
        },
        allow: Vec::new(),
        allow_file: None,
        deny: Vec::new(),
        deny_file: None,
        balance: match row.flags & service_flag::BY_SOURCE {
            0 => model::Balance::Maglev,
            _ => model::Balance::Source,
        },
        hash_balance_factor: None,
        track: match row.flags & service_flag::TRACK {
            0 => model::Track::Changes,
            _ => model::Track::Always,
        },
        persistence: None,
        on_all_down: model::OnAllDown::default(),
        quorum: 1,
        hysteresis: 0,
        panic_threshold: 0,
        fragments: if row.flags & service_flag::FRAGMENTS != 0 {
            model::Fragments::All
        } else {
            model::Fragments::Drop
        },
        stateless_fragments: false,
        count_connections: row.flags & service_flag::COUNT_CONNECTIONS != 0,
        observe: None,
        rate_limit: None,
        syn_flood: None,
        mss_clamp: None,
        toa: false,
        quic_lb: None,
        on_marked_down: model::OnMarkedDown::default(),
        window: Duration::from_secs(300),
        timeouts: model::Timeouts {
            tcp: Duration::from_secs(row.idle_seconds as u64),
            tcpfin: Duration::from_secs(row.closed_seconds as u64),
            udp: Duration::from_secs(row.idle_seconds as u64),
        },
        ring_size: Some(row.slots),
        check: None,
        agent_check: None,
        backends_from: None,
        backends: Vec::new(),
    }
}

fn default_timing() -> model::Timing {
    model::Timing {
        inter: Duration::from_secs(2),
        fastinter: Duration::from_millis(500),
        downinter: Duration::from_secs(5),
        rise: 2,
        fall: 3,
        timeout: Duration::from_secs(1),
        init_state: model::InitState::Down,
    }
}

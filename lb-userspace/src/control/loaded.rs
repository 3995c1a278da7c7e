//! What is loaded: services and backends under the numbers that the packet path knows them by. The maps hold the truth;
//! this is the controller's copy with names and intentions.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Instant,
};

use ipnet::IpNet;
use lb_common::abi::{BackendId, Prefixes};

use super::{alloc::Span, history::History, state::Leaving};
use crate::{
    api::types::{Counters, PhaseCount},
    config::model::{self, listen::socket_text},
    health::{
        Health, Served, TargetKey,
        agent::{AgentHealth, AgentKey},
        passive::Passive,
    },
    plan::{
        members::{Admin, Agent, Mode},
        ring::{BaseRing, Owners},
        slow_start::SlowStart,
    },
};

/// What makes a service the same service across reloads, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenKey {
    /// The first VIP, or the network address of the first prefix.
    pub address: IpAddr,
    /// Length of the prefix, bits.
    pub prefix: u8,
    /// Its port, the first of several; 0 = any.
    pub port: u16,
    /// The last port.
    pub last_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl ListenKey {
    /// Of a configured service.
    pub fn of(service: &model::Service) -> Self {
        let listen = &service.listen;
        let full = if listen.address.is_ipv4() { 32 } else { 128 };
        Self {
            address: listen.address,
            prefix: listen.vips.first().map_or(full, IpNet::prefix_len),
            port: listen.port,
            last_port: listen.last_port,
            protocol: listen.protocol.number(),
        }
    }

    /// The first VIP.
    pub fn vip(&self) -> IpNet {
        IpNet::new(self.address, self.prefix).unwrap_or(self.address.into())
    }
}

impl fmt::Display for ListenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == lb_common::abi::protocol::UDP { "udp" } else { "tcp" };
        write!(f, "{}/{protocol}", socket_text(&self.vip(), self.port, self.last_port))
    }
}

/// One service.
#[derive(Debug)]
pub struct Service {
    /// Identity.
    pub key: ListenKey,
    /// As configured.
    pub spec: model::Service,
    /// Number in counters and pins.
    pub id: u32,
    /// Row in `SERVICES`; 0 = not published yet.
    pub row: u32,
    /// Addresses and ports under which the service table has the row.
    pub entries: Vec<(IpAddr, u16)>,
    /// Addresses whose fragments of unknown packets are its.
    pub fragment_vips: Vec<IpAddr>,
    /// Its ring.
    pub ring: Span,
    /// The ring before its length changed, while slots still ask it.
    pub old_ring: Option<Span>,
    /// How much of the client's address alone the ring is asked by; `None` = by the flow.
    pub by_source: Option<Prefixes>,
    /// The same of the old ring.
    pub old_by_source: Option<Prefixes>,
    /// Where its choices stand in the arena, if it tracks its flows: see [`lb_common::abi::Policy`].
    pub choices: Span,
    /// The base ring of a long ring, kept because making it is most of the work of a change.
    pub base_ring: Option<BaseRing>,
    /// Number in `ALLOW`; 0 = everybody may in.
    pub allow_list: u32,
    /// Number in `DENY`; 0 = nobody is denied.
    pub deny_list: u32,
    /// Whether the log has said last that the SYN-flood stage is engaged.
    pub syn_flood_engaged: bool,
    /// Backends; removed ones until nothing names them.
    pub backends: Vec<Backend>,
    /// Counters of backends that are gone.
    pub retired: Counters,
    /// Their ids, until the rows are cleared.
    pub retired_ids: Vec<u32>,
    /// Who owns which slot, in short; `None` = it has to be looked up in the arena. Always of `base_ring`.
    pub owners: Option<Owners>,
    /// [`ring::digest`](crate::plan::ring::digest) of the owners, once somebody has asked for it.
    pub ring_digest: OnceLock<u32>,
    /// What has happened to it.
    pub history: History,
    /// Slots by phase, at the last look.
    pub phases: PhaseCount,
    /// `pin_refused` at the last look, and when it last rose.
    pub refused: (u64, Option<Instant>),
    /// Who serves, and why.
    pub mode: Mode,
    /// See [`Self::mode`].
    pub mode_reason: String,
    /// [`Decision::short`](crate::plan::members::Decision::short) of the decision in force.
    pub short: u8,
    /// The state that the event log knows; empty = none yet.
    pub said: &'static str,
    /// The ring should have another length, but an earlier change of length is still under way.
    pub resize_waits: bool,
    /// New, and not all probes have answered yet: no slot moves for health before.
    pub starting_until: Option<Instant>,
}

impl Service {
    /// Whether flows of slots whose owner changes are pinned (UDP has no opening packet: each packet follows its slot's owner at
    /// once; full nat knows each flow's backend by itself).
    pub fn stateful(&self) -> bool {
        self.spec.listen.protocol.has_openings() && self.spec.forward != model::Forward::FullNat
    }

    /// How much of the client's address alone the file wants the ring to be asked by.
    pub fn wants_by_source(&self) -> Option<Prefixes> {
        self.spec.ring_prefix()
    }

    /// Whether open flows stay where they are when slots change hands.
    pub fn keeps_flows(&self) -> bool {
        self.stateful() || self.spec.tracks() || self.spec.forward == model::Forward::FullNat
    }

    /// Slots that are not settled.
    pub fn slots_on_their_way(&self) -> u32 {
        let phases = self.phases;
        phases.window + phases.harvest + phases.pinned
    }

    /// Whether any slot is on its way.
    pub fn unsettled(&self) -> bool {
        self.slots_on_their_way() > 0
    }

    /// Time after which an idle flow is forgotten, seconds; also the length of a harvest.
    pub fn idle_seconds(&self) -> u64 {
        match self.spec.listen.protocol {
            model::Protocol::Tcp => self.spec.timeouts.tcp.as_secs(),
            model::Protocol::Udp | model::Protocol::Quic => self.spec.timeouts.udp.as_secs(),
        }
    }

    /// The backend of an id.
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.id == id)
    }

    /// `name` of a backend, for people.
    pub fn backend_name(&self, id: BackendId) -> String {
        match self.backend(id) {
            Some(backend) => backend.spec.name.clone(),
            None if id == BackendId::NONE => "none".to_owned(),
            None => format!("#{}", id.0),
        }
    }

    /// The word for who serves; see [`Mode::name`].
    pub fn state(&self) -> &'static str {
        self.mode.name()
    }
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Number in maps.
    pub id: BackendId,
    /// As configured (for a removed one: as it was).
    pub spec: Arc<model::Backend>,
    /// Gone from the file; drains.
    pub removed: bool,
    /// Set by hand.
    pub admin: Admin,
    /// How far a drain has come.
    pub leaving: Leaving,
    /// Weight set by hand.
    pub weight: Option<u16>,
    /// Its probe has answered at least once, or it has none.
    pub checked: bool,
    /// What the probe says; `None` = no answer yet, or no probe.
    pub health: Option<Health>,
    /// Its probe's first answer came while its service still waits for those of others, and does not count before them.
    pub waits: bool,
    /// What its agent says.
    pub agent: AgentHealth,
    /// Its way back after it was DOWN.
    pub slow_start: SlowStart,
    /// How far that has come, percent.
    pub ramp: u8,
    /// What clients' failures have come to.
    pub passive: Passive,
    /// Pins that name it, at the last sweep.
    pub pins: u64,
    /// Slots it owns, at the last apply.
    pub slots: u32,
    /// What the nodes of the cluster find together; `None` = this one goes by its own checks.
    pub voted: Option<bool>,
    /// Something has changed that a daemon after this one should know, and is not written down.
    pub unsaved: bool,
}

impl Backend {
    /// Weight in force.
    pub fn weight(&self) -> u16 {
        self.weight.unwrap_or(self.spec.weight)
    }

    /// Whether the probe (if any) says it works.
    pub fn healthy(&self) -> bool {
        match &self.health {
            Some(health) => health.up,
            None => self.checked || self.spec.timing.init_state == model::InitState::Up,
        }
    }

    /// [`Self::healthy`] for the ring: an answer that waits does not count.
    pub fn counts_as_healthy(&self) -> bool {
        match self.waits {
            true => self.spec.timing.init_state == model::InitState::Up,
            false => self.healthy(),
        }
    }

    /// Timing of its checks, or of those of the backend that it tracks.
    pub fn timing(&self) -> &model::Timing {
        let tracked = self.spec.track.as_ref().and_then(|tracked| tracked.probe.as_ref());
        tracked.map_or(&self.spec.timing, |probe| &probe.timing)
    }

    /// Takes in what is known now; `milliseconds` of CLOCK_MONOTONIC. Whether its share of the ring changes.
    pub fn look(&mut self, milliseconds: u64) -> bool {
        let (candidate, length) = (self.candidate(), self.spec.slowstart);
        // An answer that waits is none yet: who starts with the service does not start slowly.
        self.slow_start.look(&candidate, self.checked && !self.waits, length, milliseconds);
        let ramp = self.slow_start.percent(length, milliseconds);
        std::mem::replace(&mut self.ramp, ramp) != ramp
    }

    /// `UP 1/3`, `EJECTED 12s` and the like.
    pub fn state(&self) -> String {
        if self.healthy()
            && let Some(left) = self.passive.ejected_for(super::passive::monotonic())
        {
            return format!("EJECTED {}s", left.as_millis().div_ceil(1_000));
        }
        match &self.health {
            _ if self.agent.says.down => "DOWN (agent)".to_owned(),
            Some(health) => health.display.clone(),
            None if self.checked => "NOLB".to_owned(),
            None if self.healthy() => "UP".to_owned(),
            None => "DOWN".to_owned(),
        }
    }

    /// `ready`, `drain`, `maint` or `removed`.
    pub fn admin_name(&self) -> &'static str {
        if self.removed { "removed" } else { self.admin.name() }
    }

    /// The same, with an agent's word where that is stricter.
    pub fn admin_in_force(&self) -> String {
        match (self.admin_name(), self.agent.says.admin) {
            ("ready", admin @ (Admin::Drain | Admin::Maint)) => format!("{} (agent)", admin.name()),
            ("drain", Admin::Maint) => "maint (agent)".to_owned(),
            (name, _) => name.to_owned(),
        }
    }

    /// All that it has said itself: by its agent, and by the header of its check's answers.
    pub fn says(&self) -> Agent {
        let header = self.health.as_ref().and_then(|health| health.weight_percent);
        let mut says = self.agent.says;
        if let Some(header) = header {
            let whole = u32::from(says.percent.unwrap_or(100)) * u32::from(header);
            says.percent = Some(whole.div_ceil(100) as u16);
        }
        says
    }
}

/// The agent of a backend, if its service has agents.
pub fn agent(service: &model::Service, backend: &model::Backend) -> Option<AgentKey> {
    let check = service.agent_check.as_ref()?;
    let named = |text: &String| {
        text.replace("{service}", &service.name).replace("{backend}", &backend.name)
    };
    Some(AgentKey {
        address: SocketAddr::new(check.address.unwrap_or(backend.address), check.port),
        send: check.send.as_ref().map(named),
        inter: check.inter,
        timeout: check.timeout,
    })
}

/// The probe of a backend: that of its service's check, or of the backend that it tracks.
pub fn target(service: &model::Service, backend: &model::Backend) -> Option<TargetKey> {
    if backend.sorry {
        return None;
    }
    let model::Probe { address, port, check, timing, service, backend, vip, forward } =
        match &backend.track {
            Some(tracked) => tracked.probe.clone()?,
            None => model::Probe {
                address: backend.address,
                port: backend.port,
                check: service.check.clone()?,
                timing: backend.timing,
                service: service.name.clone(),
                backend: backend.name.clone(),
                vip: SocketAddr::new(service.listen.address, service.listen.port),
                forward: service.forward,
            },
        };
    // What is asked of the same backend for several services is asked once, unless the question names the service.
    let is_particular =
        check.via == model::Via::Vip || matches!(check.kind, model::CheckKind::Exec { .. });
    let served = is_particular.then_some(Served { service, backend, vip, forward });
    Some(TargetKey { address, port: check.port.unwrap_or(port), check, timing, served })
}

//! Who has which port of the pool.

use std::{collections::HashMap, net::IpAddr};

use super::Pool;
use crate::{
    config::{Config, Service},
    generate::Translated,
    ip::TCP,
    outcome::{part, reason},
    state::State,
    transport::{Flow, Sound},
};

/// A port of the pool: the index of its address, and the number.
pub type Port = (usize, u16);

/// Who has which port.
#[derive(Debug, Default)]
pub struct Ports {
    by_port: HashMap<Port, Holder>,
    by_flow: HashMap<Flow, Port>,
    /// Flows so far.
    begun: u64,
    /// The port that lb has for the flow of the packet in hand, now that it has seen it.
    pub told: Option<Port>,
}

/// A flow that has a port.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// As its client sends it.
    pub flow: Flow,
    /// The service's number.
    service: u32,
    /// The backend's index.
    pub backend: usize,
    client_closed: bool,
    server_closed: bool,
    reset: bool,
    /// Its backend has answered.
    answered: bool,
    /// Nothing was heard of it for some seconds.
    is_old: bool,
    /// Its backend has sent data.
    pub server_spoke: bool,
    /// Which of all flows that ever had a port it is.
    pub number: u64,
}

impl Holder {
    fn is_over(&self) -> bool {
        self.reset || self.client_closed && self.server_closed
    }

    /// Whether its port is another flow's if no port is free: nobody has answered it for some seconds.
    fn gives_way(&self) -> bool {
        self.is_old && !self.answered
    }

    /// A packet of its backend's goes to the client.
    pub fn note_reply(&mut self, sound: &Sound) {
        (self.answered, self.is_old) = (true, false);
        self.server_closed |= sound.is_closing;
        self.reset |= sound.is_reset;
    }
}

impl Ports {
    /// All flows that have a port.
    pub fn translated(&self, config: &Config) -> Vec<Translated> {
        let mut all: Vec<_> = self
            .by_port
            .iter()
            .map(|(port, holder)| {
                let (flow, backend) =
                    (holder.flow, &service(config, holder).backends[holder.backend]);
                Translated {
                    pool: (config.pool.addresses[port.0].0, port.1),
                    client: (flow.source, flow.source_port),
                    vip: (flow.destination, flow.destination_port),
                    backend: (backend.address, backend.port_or(flow.destination_port)),
                    protocol: flow.protocol,
                }
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether every port of the client's family is taken.
    fn is_exhausted(&self, pool: &Pool, client: IpAddr) -> bool {
        let addresses =
            pool.addresses.iter().filter(|(address, _)| address.is_ipv4() == client.is_ipv4());
        let ports = usize::from(pool.ports.1 - pool.ports.0) + 1;
        let taken = self.by_port.keys().filter(|port| pool.has(**port, client)).count();
        taken == addresses.count() * ports
    }

    /// Some seconds go by, in which no packet comes.
    pub fn grow_old(&mut self) {
        self.by_port.values_mut().for_each(|holder| holder.is_old = true);
    }

    /// Takes a port of the client's family from a flow that gives way: the one that lb says.
    fn reclaim(
        &mut self,
        config: &Config,
        client: IpAddr,
        told: Option<Port>,
    ) -> Result<(), NoPort> {
        let mut held = self.by_port.iter();
        if !held.any(|(port, holder)| config.pool.has(*port, client) && holder.gives_way()) {
            return Err(NoPort::Exhausted);
        }
        let port = told.filter(|port| config.pool.has(*port, client)).ok_or(NoPort::Fault)?;
        let holder = self.by_port.remove(&port).filter(Holder::gives_way).ok_or(NoPort::Fault)?;
        self.by_flow.remove(&holder.flow);
        Ok(())
    }

    /// The port of a flow.
    pub fn of_flow(&self, flow: &Flow) -> Option<Port> {
        self.by_flow.get(flow).copied()
    }

    /// Who has a port.
    pub fn held(&self, port: Port) -> Option<&Holder> {
        self.by_port.get(&port)
    }

    /// Who has a port, if its backend is at this address and port.
    pub fn holder(&mut self, config: &Config, port: Port, peer: &Flow) -> Option<&mut Holder> {
        let holder = self.by_port.get_mut(&port)?;
        let backend = &service(config, holder).backends[holder.backend];
        let its_port = backend.port_or(holder.flow.destination_port);
        let is_its = (backend.address, its_port) == (peer.source, peer.source_port);
        (is_its && holder.flow.protocol == peer.protocol).then_some(holder)
    }
}

/// The service of a flow that has a port.
pub fn service<'a>(config: &'a Config, holder: &Holder) -> &'a Service {
    let mut services = config.services().iter();
    services.find(|service| service.id == holder.service).expect("flows are of services")
}

/// Why a packet has no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// It is in the middle of a connection that is not known: whoever is there is not given another one.
    NoFlow,
    /// Its slot has no backend.
    NoBackend,
    /// All are taken.
    Exhausted,
    /// The one that lb says it has given is another flow's, or there is none: a fault of lb's.
    Fault,
}

impl NoPort {
    /// The reason under which a drop is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoFlow => reason::NO_FLOW,
            Self::NoBackend => reason::NO_BACKEND,
            Self::Exhausted => reason::NO_PORT,
            Self::Fault => "a port that is taken, or none",
        }
    }
}

/// The port of a client's packet, and the backend's index; a packet that can begin a flow gets one.
pub fn place_of(
    config: &Config,
    state: &mut State,
    (flow, sound): (&Flow, &Sound),
    service: &Service,
) -> Result<(Port, usize), NoPort> {
    let told = state.ports.told.take();
    let begins = flow.protocol != TCP || sound.is_opening;
    let known = state.ports.of_flow(flow);
    if let Some(port) = known {
        let holder = state.ports.by_port.get_mut(&port).expect("both or none");
        let is_down = service.backends[holder.backend].is_down;
        if !(is_down || holder.is_over() && begins) {
            holder.is_old = false;
            holder.client_closed |= sound.is_closing;
            holder.reset |= sound.is_reset;
            return Ok((port, holder.backend));
        }
    }
    if !begins {
        return Err(NoPort::NoFlow);
    }
    let backend = service.slot_of(flow).owner.ok_or(NoPort::NoBackend)?;
    let port = match known {
        Some(port) => {
            state.met(part::PORT_KEPT);
            port
        }
        None if state.ports.is_exhausted(&config.pool, flow.source) => {
            state.ports.reclaim(config, flow.source, told)?;
            state.count(service.id, reason::PORT_RECLAIMED);
            told.ok_or(NoPort::Fault)?
        }
        None => {
            state.met(part::PORT_GIVEN);
            let is_free = |port: &Port| {
                config.pool.has(*port, flow.source) && state.ports.held(*port).is_none()
            };
            told.filter(is_free).ok_or(NoPort::Fault)?
        }
    };
    state.ports.begun += 1;
    let holder = Holder {
        flow: *flow,
        service: service.id,
        backend,
        client_closed: false,
        server_closed: false,
        reset: false,
        answered: false,
        is_old: false,
        server_spoke: false,
        number: state.ports.begun,
    };
    state.ports.by_port.insert(port, holder);
    state.ports.by_flow.insert(*flow, port);
    Ok((port, backend))
}

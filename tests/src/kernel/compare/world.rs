//! A test's world in the model's words.

use std::net::IpAddr;

use lb_common::abi::{Forward, Phase, algorithm, backend_flag, policy_flag, service_flag};
use lb_model::{
    Config,
    config::{Backend, Hop, Listen, Mode, Refusal, Route, Service},
    openings::{Cookies, Openings},
    quic::ServerIds,
    slots::{self, Slot},
    track::{Choice, Track},
};

use super::super::{INGRESS, World, hash_keys, world, world::NIC};

/// An hour, nanoseconds: the interval of a limit that refills nothing within a comparison.
pub const REFILLED_NEVER: u64 = 3_600_000_000_000;
/// SYNs in a window by which a stage is engaged that the comparison begins as an engaged one.
pub const ENGAGED: u32 = 1;

/// Keys of the SYN-flood stage in both.
const COOKIES: Cookies =
    Cookies { keys: [[0x1234, 0x5678], [0x9abc, 0xdef0]], current: 1, epoch: 0 };

/// The same world, in which so many clients can be remembered. No policy draws by lot.
pub fn config_of(world: &World, attached: &[u32], most_clients: usize) -> Config {
    let services = 0..world.services.len();
    let services = services.map(|index| service(world, index, most_clients)).collect();
    let mut config = Config::new(INGRESS, services);
    config.attached.extend(attached);
    config.hosts.extend(&world.hosts);
    config.routes = world.routes.iter().map(route).collect();
    config.pool.addresses.clone_from(&world.pool);
    config.pool.ports = world.pool_ports;
    config.cookies = COOKIES;
    config
}

fn service(world: &World, index: usize, most_clients: usize) -> Service {
    let service = &world.services[index];
    let listens = world.listens.iter().filter(|(id, _)| *id as usize == index + 1);
    let listens = listens.flat_map(|(_, listen)| {
        listen.vips.iter().map(|vip| Listen {
            prefix: (vip.addr(), u32::from(vip.prefix_len())),
            ports: (listen.port, listen.last_port),
        })
    });
    let is = |flag| service.flags & flag != 0;
    let first = world.first_backend(index);
    let count = service.backends.len();
    let owner = |slot: u32| match service.ring.get(slot as usize) {
        Some(owner) => Some(*owner as usize),
        None => (count > 0).then(|| slot as usize % count),
    };
    let refuses = match (is(service_flag::REJECT), is(service_flag::DROP)) {
        (true, _) => Some(Refusal::Reject),
        (false, true) => Some(Refusal::Drop),
        (false, false) => None,
    };
    let nics = |mask: u32| {
        let numbered = world.interfaces.iter().filter(move |(_, number)| mask & (1 << number) != 0);
        numbered.map(|(nic, _)| *nic).collect()
    };
    Service {
        id: index as u32 + 1,
        vip: service.vip,
        is_local: service.is_local,
        port: service.port,
        listens: listens.collect(),
        protocol: service.protocol,
        mode: match service.forward {
            Forward::Nat => Mode::Nat,
            Forward::Dsr => Mode::Dsr,
            Forward::Ipip => Mode::Tunnel,
            Forward::FullNat => Mode::FullNat,
            Forward::Gue => Mode::Gue,
        },
        backends: (first..).zip(&service.backends).map(|(id, row)| backend(id, row)).collect(),
        ring: (0..service.slots()).map(|index| slot(service, index, owner(index))).collect(),
        keys: hash_keys(),
        by_source: is(service_flag::BY_SOURCE)
            .then_some((u32::from(service.prefix.v4), u32::from(service.prefix.v6))),
        quic: is(service_flag::QUIC).then(|| server_ids(service)),
        fragments: is(service_flag::FRAGMENTS),
        stateless_fragments: service.stateless_fragments,
        refuses,
        only_new: is(service_flag::NEW_ONLY),
        tells: is(service_flag::TOA),
        mss: is(service_flag::CLAMP_MSS).then_some(service.openings.mss as u16),
        openings: openings(service),
        counts: is(service_flag::COUNT_CONNECTIONS),
        track: track(service, most_clients),
        interfaces: service.interfaces.map(nics),
        allow: service.allow.clone(),
        deny: service.deny.clone(),
    }
}

/// Nothing is refilled within a comparison, and a stage is engaged from its beginning, or never.
fn openings(service: &world::Service) -> Openings {
    let is = |flag| service.flags & flag != 0;
    let rules = &service.openings;
    let burst = |interval: u64, burst| match interval {
        0 => None,
        _ => {
            assert!(interval >= REFILLED_NEVER, "too soon");
            Some(burst)
        }
    };
    let limited = |of: Option<u64>| of.filter(|_| is(service_flag::LIMIT_OPENINGS));
    Openings {
        of_source: limited(burst(rules.source_interval, rules.source_burst)),
        of_all: limited(burst(rules.interval, rules.burst)),
        stage: is(service_flag::SYN_FLOOD).then(|| match rules.engage {
            ENGAGED => true,
            u32::MAX => false,
            other => panic!("a stage that {other} SYNs engage is engaged when the clock says so"),
        }),
    }
}

fn track(service: &world::Service, most_clients: usize) -> Option<Track> {
    let policy = service.policy?;
    let choices = || service.choices.iter().map(|choice| *choice as usize).collect();
    let clients = (u32::from(service.prefix.v4), u32::from(service.prefix.v6));
    Some(Track {
        choice: match policy.algorithm {
            algorithm::RING => Choice::Ring((policy.factor != 0).then_some(policy.factor.into())),
            algorithm::TURN => Choice::Turn(choices()),
            algorithm::LEAST => Choice::Least(choices()),
            other => panic!("the model knows no algorithm {other}"),
        },
        weights: service.backends.iter().map(|backend| backend.weight).collect(),
        most: policy.flows.into(),
        most_unconfirmed: policy.flows_unconfirmed.into(),
        clients: (policy.flags & policy_flag::PERSIST != 0).then_some(clients),
        most_clients,
    })
}

fn slot(service: &world::Service, index: u32, owner: Option<usize>) -> Slot {
    if service.phases.is_empty() {
        return Slot::settled(owner);
    }
    let (phase, base) = service.phases[index as usize % service.phases.len()];
    let phase = match phase {
        Phase::Settled => slots::Phase::Settled,
        Phase::Window => slots::Phase::Window,
        Phase::Harvest => slots::Phase::Harvest,
        Phase::Pinned => slots::Phase::Pinned,
    };
    Slot { owner, base: base.map(|base| base as usize), phase }
}

fn server_ids(service: &world::Service) -> ServerIds {
    let mut ids = ServerIds::default();
    for (config, server, backend) in &service.server_ids {
        ids.lengths.insert(*config, server.len());
        ids.backends.insert((*config, server.clone()), *backend as usize);
    }
    ids
}

fn backend(id: u32, backend: &world::Backend) -> Backend {
    let hop = Hop { to: backend.mac, from: NIC, nic: backend.ifindex, mtu: backend.mtu };
    Backend {
        id,
        address: backend.address,
        port: backend.port,
        is_down: backend.flags & backend_flag::DOWN != 0,
        tunnel_source: backend.source,
        hop: (backend.flags & backend_flag::RESOLVED != 0).then_some(hop),
    }
}

/// Routes of worlds that are compared have gateways.
fn route(route: &world::Route) -> Route {
    let (_, mac): (IpAddr, _) = route.gateway.expect("a gateway");
    let hop = mac.map(|to| Hop { to, from: NIC, nic: INGRESS, mtu: route.mtu });
    Route { prefix: route.prefix, hop }
}

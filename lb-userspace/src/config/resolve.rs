//! The file as written -> the model: defaults filled in. Nothing is judged here.

mod check;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZero,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::abi::POOL_ADDRESSES;

use super::{
    model::{
        Backend, BackendsFrom, Burst, Cluster, Config, Dashboard, Forward, Limits, Listen, Observe,
        OnError, Origin, Persistence, PrefixFile, QuicLb, RateLimit, Resolver, Service, SourcePool,
        SynFlood, Timeouts, Timing, Track, Tracked,
    },
    spec::{self, BackendSettings},
    tracks,
    value::{Endpoint, FilePath, Host, Period, Ports, Rate},
};

/// Where a template stands, until its name has been asked for.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Built-in settings of a backend, the last resort.
pub const BUILT_IN: BackendSettings = BackendSettings {
    weight: Some(100),
    inter: Some(Period(Duration::from_secs(2))),
    fastinter: Some(Period(Duration::from_millis(500))),
    downinter: Some(Period(Duration::from_secs(5))),
    rise: Some(2),
    fall: Some(3),
    timeout: Some(Period(Duration::from_secs(1))),
    init_state: Some(super::model::InitState::Down),
    slowstart: Some(Period(Duration::ZERO)),
};

/// The model of a file.
pub fn config(file: &spec::File) -> Config {
    let limits = &file.limits;
    let mut services: Vec<Service> =
        file.services.iter().map(|one| service(one, &file.backend_defaults)).collect();
    tracks::follow(&mut services);
    Config {
        interfaces: file.interfaces.iter().map(|name| name.0.clone()).collect(),
        xdp_mode: file.xdp_mode,
        vlan: file.vlan,
        socket_group: file.socket_group.as_ref().map(|name| name.0.clone()),
        socket_level: file.socket_level,
        // Without a port it is an error of the rules.
        metrics: file.metrics.map(|at| SocketAddr::new(at.address, at.port.unwrap_or_default())),
        dashboard: file.dashboard.as_ref().map(dashboard),
        cluster: file.cluster.as_ref().map(cluster),
        source_pool: file.source_pool.as_ref().map(source_pool),
        outer_source: file.outer_source.iter().map(|prefix| prefix.0).collect(),
        limits: Limits {
            services: limits.services,
            backends: limits.backends,
            ring_slots: limits.ring_slots,
            pins: limits.pins,
            pins_unconfirmed: limits.pins_unconfirmed,
            connections: limits.connections,
            flows: limits.flows,
            flows_unconfirmed: limits.flows_unconfirmed,
            sources: limits.sources,
            source_addresses: limits.source_addresses,
            allow_prefixes: limits.allow_prefixes,
            deny_prefixes: limits.deny_prefixes,
        },
        resolver: Resolver {
            resolv_conf: file.resolver.resolv_conf.0.as_str().into(),
            timeout: file.resolver.timeout.0,
            min_ttl: file.resolver.min_ttl.0,
            max_ttl: file.resolver.max_ttl.0,
        },
        services,
    }
}

fn source_pool(pool: &spec::SourcePool) -> SourcePool {
    // One more than there may be is enough for the rules to see that there are too many.
    let addresses = pool.addresses.iter().flat_map(|prefix| all_of(&prefix.0));
    let (first_port, last_port) = match pool.ports {
        Ports::Range(first, last) => (first, last),
        Ports::Any => (1_024, u16::MAX),
    };
    let addresses = addresses.take(POOL_ADDRESSES + 1).collect();
    SourcePool { addresses, first_port, last_port }
}

/// Every address of a prefix, its first and last ones, too: nobody broadcasts there.
fn all_of(prefix: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            Box::new((first..=last).map(|address| Ipv4Addr::from(address).into()))
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            Box::new((first..=last).map(|address| Ipv6Addr::from(address).into()))
        }
    }
}

fn dashboard(dashboard: &spec::Dashboard) -> Dashboard {
    let listen = dashboard.listen;
    Dashboard {
        // Without a port it is an error of the rules.
        listen: SocketAddr::new(listen.address, listen.port.unwrap_or_default()),
        token_file: dashboard.token_file.as_ref().map(|path| path.0.as_str().into()),
        write: dashboard.write,
        hosts: dashboard.hosts.iter().map(|name| name.0.clone()).collect(),
    }
}

fn cluster(cluster: &spec::Cluster) -> Cluster {
    // Without a port it is an error of the rules.
    let port = cluster.listen.port.unwrap_or_default();
    let peer = |peer: &Endpoint| SocketAddr::new(peer.address, peer.port.unwrap_or(port));
    Cluster {
        listen: SocketAddr::new(cluster.listen.address, port),
        peers: cluster.peers.iter().map(peer).collect(),
        secret_file: cluster.secret_file.0.as_str().into(),
    }
}

fn service(written: &spec::Service, defaults: &BackendSettings) -> Service {
    let mut service = service_as_written(written, defaults);
    if written.track.is_none() && service.needs_tracking() {
        service.track = Track::Always;
    }
    service
}

fn service_as_written(service: &spec::Service, defaults: &BackendSettings) -> Service {
    let listen = &service.listen;
    let (port, last_port) = match listen.port {
        Ports::Range(first, last) => (first, last),
        Ports::Any => (0, u16::MAX),
    };
    // Of several ports, each packet keeps its own.
    let backend_port = if port == last_port { port } else { 0 };
    Service {
        name: service.name.0.clone(),
        listen: Listen {
            address: listen.address.0.first().map_or(UNKNOWN, |vip| vip.0.network()),
            vips: listen.address.0.iter().map(|vip| vip.0).collect(),
            port,
            last_port,
            protocol: listen.protocol,
            interfaces: listen.interfaces.iter().map(|name| name.0.clone()).collect(),
            add_address_to: listen.add_address_to.as_ref().map(|name| name.0.clone()),
            force: listen.force,
        },
        forward: match service.forward {
            spec::Forward::Nat => Forward::Nat,
            spec::Forward::Dsr => Forward::Dsr,
            spec::Forward::Fullnat => Forward::FullNat,
            spec::Forward::Tunnel => match service.encap {
                Some(spec::Encap::Gue) => Forward::Gue {
                    port: service.gue_port.map_or(lb_common::gue::PORT, NonZero::get),
                },
                // `rules` wants one of them written.
                Some(spec::Encap::Ipip) | None => Forward::Ipip,
            },
        },
        allow: service.allow.iter().map(|prefix| prefix.0).collect(),
        allow_file: service.allow_file.as_ref().map(prefix_file),
        deny: service.deny.iter().map(|prefix| prefix.0).collect(),
        deny_file: service.deny_file.as_ref().map(prefix_file),
        balance: service.balance,
        hash_balance_factor: service.hash_balance_factor,
        track: service.track.unwrap_or_default(),
        persistence: service.persistence.as_ref().map(|one| Persistence {
            by: one.by,
            prefix_v4: one.prefix_v4,
            prefix_v6: one.prefix_v6,
            timeout: one.timeout.map(|timeout| timeout.0),
        }),
        on_all_down: service.on_all_down,
        quorum: service.quorum,
        hysteresis: service.hysteresis,
        panic_threshold: service.panic_threshold,
        fragments: service.fragments,
        stateless_fragments: service.stateless_fragments,
        count_connections: service.count_connections,
        observe: service.observe.as_ref().map(|one| observe(one, service.forward)),
        rate_limit: service.rate_limit.as_ref().map(rate_limit),
        syn_flood: service.syn_flood.as_ref().map(syn_flood),
        mss_clamp: service.mss_clamp,
        toa: service.toa,
        quic_lb: service.quic_lb.as_ref().map(|format| QuicLb {
            server_id_length: format.server_id_length,
            config_ids: format.config_ids.clone(),
        }),
        on_marked_down: service.on_marked_down,
        window: service.window.0,
        timeouts: Timeouts {
            tcp: service.timeouts.tcp.map_or(default_idle(service.forward), |time| time.0),
            tcpfin: service.timeouts.tcpfin.0,
            udp: service.timeouts.udp.0,
        },
        ring_size: service.ring_size,
        check: service.check.as_ref().map(check::check),
        agent_check: service.agent_check.as_ref().map(check::agent),
        backends_from: service.backends_from.as_ref().map(|path| {
            let levels =
                [&BackendSettings::default(), &service.backend_defaults, defaults, &BUILT_IN];
            BackendsFrom {
                directory: path.0.as_str().into(),
                defaults: Box::new(nameless(levels, backend_port)),
            }
        }),
        backends: service
            .backends
            .iter()
            .map(|one| {
                let levels = [&one.settings, &service.backend_defaults, defaults, &BUILT_IN];
                Arc::new(backend(one, levels, backend_port))
            })
            .collect(),
    }
}

/// How long an idle TCP flow is remembered unless the file says otherwise: in full nat its connection ends with it, and RFC 5382
/// (REQ-5) asks for two hours and four minutes.
const fn default_idle(forward: spec::Forward) -> Duration {
    match forward {
        spec::Forward::Fullnat => Duration::from_secs(7_440),
        spec::Forward::Nat | spec::Forward::Dsr | spec::Forward::Tunnel => Duration::from_secs(900),
    }
}

fn prefix_file(path: &FilePath) -> PrefixFile {
    PrefixFile { path: path.0.as_str().into(), prefixes: None }
}

fn observe(observe: &spec::Observe, forward: spec::Forward) -> Observe {
    Observe {
        mode: observe.mode,
        error_limit: observe.error_limit,
        min_sources: observe.min_sources,
        interval: observe.interval.0,
        on_error: observe.on_error.unwrap_or(match forward {
            spec::Forward::Nat => OnError::MarkDown,
            spec::Forward::Dsr | spec::Forward::Tunnel | spec::Forward::Fullnat => {
                OnError::SuddenDeath
            }
        }),
        base_ejection: observe.base_ejection.0,
        max_ejection: observe.max_ejection.0,
        max_ejection_percent: observe.max_ejection_percent,
    }
}

fn rate_limit(limit: &spec::RateLimit) -> RateLimit {
    let burst = |rate: Option<Rate>, burst: Option<u32>| {
        rate.map(|rate| Burst {
            interval: (rate.period.as_nanos() as u64).div_ceil(rate.count),
            burst: burst.map_or(rate.count, u64::from),
        })
    };
    RateLimit {
        connections: burst(limit.connections, limit.connections_burst),
        connections_per_source: burst(
            limit.connections_per_source,
            limit.connections_per_source_burst,
        ),
    }
}

fn syn_flood(stage: &spec::SynFlood) -> SynFlood {
    let per_second = |rate: Rate| rate.count.div_ceil(rate.period.as_secs());
    let engage = per_second(stage.engage);
    SynFlood { engage, release: stage.release.map_or(engage.div_ceil(2), per_second) }
}

/// A backend of nothing but settings.
fn nameless(levels: [&BackendSettings; 4], port: u16) -> Backend {
    Backend {
        name: String::new(),
        address: UNKNOWN,
        port,
        weight: first(levels, |level| level.weight),
        timing: Timing {
            inter: first(levels, |level| level.inter).0,
            fastinter: first(levels, |level| level.fastinter).0,
            downinter: first(levels, |level| level.downinter).0,
            rise: first(levels, |level| level.rise),
            fall: first(levels, |level| level.fall),
            timeout: first(levels, |level| level.timeout).0,
            init_state: first(levels, |level| level.init_state),
        },
        slowstart: first(levels, |level| level.slowstart).0,
        tier: 0,
        sorry: false,
        track: None,
        server_id: None,
        origin: Origin::Written,
    }
}

fn backend(backend: &spec::Backend, levels: [&BackendSettings; 4], port: u16) -> Backend {
    let settings = nameless(levels, port);
    let (address, port, origin) = match (&backend.address, &backend.srv) {
        (Some(Host::Address(Endpoint { address, port: own })), _) => {
            (*address, own.unwrap_or(port), Origin::Written)
        }
        (Some(Host::Name { name, port: own }), _) => {
            (settings.address, own.unwrap_or(port), Origin::Name(name.clone()))
        }
        (None, Some(name)) => (settings.address, port, Origin::Srv(name.0.to_ascii_lowercase())),
        // An error of the rules.
        (None, None) => (settings.address, port, Origin::Written),
    };
    Backend {
        name: backend.name.0.clone(),
        address,
        port,
        tier: if backend.backup { 1 } else { backend.tier },
        sorry: backend.sorry,
        track: backend.track.as_ref().map(|path| Tracked { name: path.to_string(), probe: None }),
        server_id: backend.server_id.as_ref().map(|id| id.0.as_slice().into()),
        origin,
        ..settings
    }
}

/// A backend of a file of backends, with what it does not say from `defaults`.
pub fn listed(written: &spec::Backend, defaults: &Backend) -> Backend {
    let timing = &defaults.timing;
    let level = BackendSettings {
        weight: Some(defaults.weight),
        inter: Some(Period(timing.inter)),
        fastinter: Some(Period(timing.fastinter)),
        downinter: Some(Period(timing.downinter)),
        rise: Some(timing.rise),
        fall: Some(timing.fall),
        timeout: Some(Period(timing.timeout)),
        init_state: Some(timing.init_state),
        slowstart: Some(Period(defaults.slowstart)),
    };
    backend(written, [&written.settings, &level, &BUILT_IN, &BUILT_IN], defaults.port)
}

/// The value of the first level that has one; the last has all.
fn first<T>(levels: [&BackendSettings; 4], key: impl Fn(&BackendSettings) -> Option<T>) -> T {
    levels.into_iter().find_map(key).expect("BUILT_IN has every key")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::shape;

    #[test]
    fn documented_defaults_of_backends_are_the_built_in_ones() {
        let built_in = json!({
            "weight": BUILT_IN.weight,
            "inter": BUILT_IN.inter,
            "fastinter": BUILT_IN.fastinter,
            "downinter": BUILT_IN.downinter,
            "rise": BUILT_IN.rise,
            "fall": BUILT_IN.fall,
            "timeout": BUILT_IN.timeout,
            "init_state": BUILT_IN.init_state,
            "slowstart": BUILT_IN.slowstart,
        });
        let keys = shape::all_keys().into_iter().filter(|(path, _)| path == "backend_defaults");
        let documented: serde_json::Map<_, _> =
            keys.map(|(_, key)| (key.name.clone(), key.shape.default.clone().unwrap())).collect();
        assert_eq!(built_in, serde_json::Value::Object(documented));
    }
}

//! The file as written -> the model: defaults filled in. Nothing is judged here.

mod check;

use std::{net::SocketAddr, time::Duration};

use super::{
    model::{
        Backend, Config, Dashboard, Forward, Limits, Listen, Observe, OnError, Service, Timeouts,
        Timing, Tracked,
    },
    spec::{self, BackendSettings},
    tracks,
    value::Period,
};

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
        socket_group: file.socket_group.as_ref().map(|name| name.0.clone()),
        socket_level: file.socket_level,
        // Without a port it is an error of the rules.
        metrics: file.metrics.map(|at| SocketAddr::new(at.address, at.port.unwrap_or_default())),
        dashboard: file.dashboard.as_ref().map(dashboard),
        limits: Limits {
            services: limits.services,
            backends: limits.backends,
            ring_slots: limits.ring_slots,
            pins: limits.pins,
            pins_unconfirmed: limits.pins_unconfirmed,
            connections: limits.connections,
            allow_prefixes: limits.allow_prefixes,
        },
        services,
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

fn service(service: &spec::Service, defaults: &BackendSettings) -> Service {
    let listen = &service.listen;
    Service {
        name: service.name.0.clone(),
        listen: Listen {
            address: listen.address,
            port: listen.port.get(),
            protocol: listen.protocol,
            interfaces: listen.interfaces.iter().map(|name| name.0.clone()).collect(),
            add_address_to: listen.add_address_to.as_ref().map(|name| name.0.clone()),
            force: listen.force,
        },
        forward: match service.forward {
            spec::Forward::Nat => Forward::Nat,
            spec::Forward::Dsr => Forward::Dsr,
            // The one encapsulation there is; `rules` wants it written.
            spec::Forward::Tunnel => Forward::Ipip,
        },
        allow: service.allow.iter().map(|prefix| prefix.0).collect(),
        balance: service.balance,
        on_all_down: service.on_all_down,
        quorum: service.quorum,
        hysteresis: service.hysteresis,
        panic_threshold: service.panic_threshold,
        fragments: service.fragments,
        count_connections: service.count_connections,
        observe: service.observe.as_ref().map(|one| observe(one, service.forward)),
        on_marked_down: service.on_marked_down,
        window: service.window.0,
        timeouts: Timeouts {
            tcp: service.timeouts.tcp.0,
            tcpfin: service.timeouts.tcpfin.0,
            udp: service.timeouts.udp.0,
        },
        ring_size: service.ring_size,
        check: service.check.as_ref().map(check::check),
        agent_check: service.agent_check.as_ref().map(check::agent),
        backends: service
            .backends
            .iter()
            .map(|one| {
                let levels = [&one.settings, &service.backend_defaults, defaults, &BUILT_IN];
                backend(one, levels, listen.port.get())
            })
            .collect(),
    }
}

fn observe(observe: &spec::Observe, forward: spec::Forward) -> Observe {
    Observe {
        mode: observe.mode,
        error_limit: observe.error_limit,
        min_sources: observe.min_sources,
        interval: observe.interval.0,
        on_error: observe.on_error.unwrap_or(match forward {
            spec::Forward::Nat => OnError::MarkDown,
            spec::Forward::Dsr | spec::Forward::Tunnel => OnError::SuddenDeath,
        }),
        base_ejection: observe.base_ejection.0,
        max_ejection: observe.max_ejection.0,
        max_ejection_percent: observe.max_ejection_percent,
    }
}

fn backend(backend: &spec::Backend, levels: [&BackendSettings; 4], port: u16) -> Backend {
    Backend {
        name: backend.name.0.clone(),
        address: backend.address.address,
        port: backend.address.port.unwrap_or(port),
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
        tier: if backend.backup { 1 } else { backend.tier },
        sorry: backend.sorry,
        track: backend.track.as_ref().map(|path| Tracked { name: path.to_string(), probe: None }),
    }
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

//! A node for tests: two services, three backends.

use std::time::{Duration, Instant};

use super::{
    model::{Message, Model, Sample},
    update::update,
};
use crate::api::types::{
    BackendStats, BackendStatus, Checks, Counters, Event, Events, PhaseCount, ServiceStats,
    ServiceStatus, Stats, Status, Why, WhyReason, WhySample, WhyService,
};

/// What `lb status` says.
pub fn status() -> Status {
    let backend =
        |name: &str, address: &str, state: &str, check: &str, output: &str| BackendStatus {
            name: name.into(),
            address: address.into(),
            state: state.into(),
            admin: "ready".into(),
            weight: 100,
            configured_weight: 100,
            slots: 510,
            next_hop: "eth0 via 10.0.0.1 02:00:00:00:00:01".into(),
            check: check.into(),
            check_output: output.into(),
            check_milliseconds: Some(1.25),
            last_change_seconds: 7380,
            checks: Some(Checks { failed: 3, downs: 1, down_seconds: 65, ..Checks::default() }),
            ..BackendStatus::default()
        };
    let service = |name: &str, listen: &str, forward: &str, backends| ServiceStatus {
        name: name.into(),
        listen: listen.into(),
        forward: forward.into(),
        state: "UP".into(),
        balance: "maglev".into(),
        slots: PhaseCount { settled: 1001, window: 20, ..PhaseCount::default() },
        backends,
        ..ServiceStatus::default()
    };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 65,
        revision: 3,
        services: vec![
            service(
                "web",
                "192.0.2.10:80/tcp",
                "nat",
                vec![
                    backend("web1", "10.0.0.11:80", "UP", "L7OK", "200 OK"),
                    backend("web2", "10.0.0.12:80", "DOWN 1/2", "L7STS", "503 \x1b[31mgone"),
                ],
            ),
            service(
                "dns",
                "192.0.2.53:53/udp",
                "dsr",
                vec![backend("ns1", "10.0.0.53:53", "UP", "L4OK", "connected")],
            ),
        ],
        ..Status::default()
    }
}

/// Counters of its services, after so many packets to each backend.
pub fn stats(status: &Status, packets: u64) -> Stats {
    let counters = |n: u64| Counters {
        packets_in: n,
        bytes_in: n * 1000,
        flows: n / 10,
        ..Counters::default()
    };
    let services = status.services.iter().map(|service| {
        let backends: Vec<BackendStats> = service
            .backends
            .iter()
            .map(|backend| BackendStats {
                name: backend.name.clone(),
                share: 0.5,
                weight: backend.weight,
                counters: counters(packets),
                ..BackendStats::default()
            })
            .collect();
        ServiceStats {
            name: service.name.clone(),
            listen: service.listen.clone(),
            total: counters(packets * backends.len() as u64),
            reasons: [("not_allowed".to_owned(), packets / 100)].into(),
            backends,
        }
    });
    Stats { services: services.collect(), ..Stats::default() }
}

/// Why its web drops packets.
pub fn why() -> Why {
    let reason = WhyReason {
        name: "not_allowed".into(),
        count: 12,
        drop: true,
        text: "The client is not allowed.".into(),
        remedy: "If the client should get in, add its prefix to the service's `allow`.".into(),
        samples: vec![WhySample {
            seconds_ago: 3.0,
            interface: "eth0".into(),
            length: 74,
            packet: "198.51.100.7:4711 > 192.0.2.10:80 TCP SYN, ttl 63".into(),
        }],
    };
    let service = WhyService {
        name: "web".into(),
        listen: "192.0.2.10:80/tcp".into(),
        reasons: vec![reason],
        backends: Vec::new(),
    };
    Why { services: vec![service], node: Vec::new() }
}

/// A model after three looks in two seconds, on 80 columns and 24 lines.
pub fn model() -> Model {
    let mut model = Model::new(String::new(), (80, 24));
    let start = Instant::now();
    let event = Event {
        id: 1,
        unix_milliseconds: 1_700_000_000_000,
        kind: "backend_down".into(),
        service: Some("web".into()),
        backend: Some("web2".into()),
        text: "web/web2 is DOWN".into(),
        cause: "L7STS 503".into(),
    };
    for look in 0..3u64 {
        let (status, at) = (status(), start + Duration::from_secs(look));
        let stats = stats(&status, look * look * 10_000);
        let events = Events {
            events: if look == 0 { vec![event.clone()] } else { Vec::new() },
            last: 1,
            lost: 0,
        };
        let sample = Sample { at, status, stats, events, why: None };
        update(&mut model, Message::Sample(Box::new(sample)));
    }
    model
}

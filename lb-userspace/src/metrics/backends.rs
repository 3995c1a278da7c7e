//! Backends: state, checks and traffic.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Snapshot,
    family::{Family, counter, flag, gauge, histogram},
};
use crate::api::types::{BackendStatus, Checks, Counters, Observed, Status};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    states(encoder, &all.status)?;
    checks(encoder, &all.status)?;
    observed(encoder, &all.status)?;
    traffic(encoder, all)?;
    connections(encoder, all)
}

fn states(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    type Value = fn(&BackendStatus) -> Option<f64>;
    let gauges: [(&str, &str, Value); 8] = [
        ("lb_backend_up", "1 if the backend's checks say UP, or it has none.", |backend| {
            Some(flag(backend.state.starts_with("UP") || backend.state == "NOLB"))
        }),
        (
            "lb_backend_ready",
            "1 if the backend is not drained, in maintenance or removed.",
            |backend| Some(flag(backend.admin == "ready")),
        ),
        ("lb_backend_weight", "Weight in force.", |backend| Some(backend.weight.into())),
        (
            "lb_backend_weight_ratio",
            "Share of the weight that the backend asks for by its agent or its check's answers, 1 = all of it.",
            |backend| Some(f64::from(backend.weight_percent?) / 100.0),
        ),
        (
            "lb_backend_throttle_percent",
            "How far the backend's slow start has come, percent; 100 if it is through.",
            |backend| Some(backend.throttle.unwrap_or(100).into()),
        ),
        ("lb_backend_slots", "Slots of the ring that the backend owns.", |backend| {
            Some(backend.slots.into())
        }),
        ("lb_backend_pins", "Pinned flows.", |backend| Some(backend.pins as f64)),
        ("lb_backend_last_check_duration_seconds", "Duration of the last check.", |backend| {
            Some(backend.check_milliseconds? / 1e3)
        }),
    ];
    for (name, help, value) in gauges {
        let mut samples = gauge(encoder, name, help)?;
        for (labels, backend) in each(status) {
            if let Some(value) = value(backend) {
                samples.sample(&labels, value)?;
            }
        }
    }
    Ok(())
}

fn checks(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let checked = || each(status).filter_map(|(l, backend)| Some((l, backend.checks.as_ref()?)));
    let mut durations =
        histogram(encoder, "lb_backend_check_duration_seconds", "How long checks took.")?;
    for (labels, checks) in checked() {
        durations.buckets(&labels, &checks.durations)?;
    }
    let mut codes = counter(
        encoder,
        "lb_backend_checks",
        "Checks by HAProxy's code of what they found: L4OK, L7STS...",
    )?;
    for ([service, backend], checks) in checked() {
        for (code, count) in &checks.codes {
            codes.sample(&[service, backend, ("code", code)], *count as f64)?;
        }
    }
    type Value = fn(&Checks) -> u64;
    let counters: [(&str, &str, Value); 3] = [
        ("lb_backend_check_failures", "Checks that failed while the backend was UP.", |checks| {
            checks.failed
        }),
        ("lb_backend_downs", "Times the backend went from UP to DOWN.", |checks| checks.downs),
        ("lb_backend_down_seconds", "Time the backend was DOWN.", |checks| checks.down_seconds),
    ];
    for (name, help, value) in counters {
        let mut samples = counter(encoder, name, help)?;
        for (labels, checks) in checked() {
            samples.sample(&labels, value(checks) as f64)?;
        }
    }
    Ok(())
}

fn observed(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), Error> {
    let each = || each(status).filter_map(|(l, backend)| Some((l, backend.observed.as_ref()?)));
    let mut ejected =
        gauge(encoder, "lb_backend_ejected", "1 if the backend is ejected (`observe`).")?;
    for (labels, observed) in each() {
        ejected.sample(&labels, flag(observed.ejected_seconds.is_some()))?;
    }
    let mut ejections = counter(encoder, "lb_backend_ejections", "Times the backend was ejected.")?;
    for (labels, observed) in each() {
        ejections.sample(&labels, observed.ejections as f64)?;
    }
    let mut handshakes = counter(
        encoder,
        "lb_backend_observed_handshakes",
        "SYNs by what the backend made of them: answered; unanswered or refused, of clients known to exist.",
    )?;
    for ([service, backend], observed) in each() {
        let Observed { answered, unanswered, refused, .. } = observed;
        for (result, count) in
            [("answered", *answered), ("unanswered", *unanswered), ("refused", *refused)]
        {
            handshakes.sample(&[service, backend, ("result", result)], count as f64)?;
        }
    }
    Ok(())
}

fn traffic(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    for Traffic { name, help, directions } in TRAFFIC {
        let mut samples: Family<'_> = counter(encoder, name, help)?;
        for service in &all.stats.services {
            for backend in &service.backends {
                for (direction, value) in *directions {
                    let [service, name] = labels(&service.name, &backend.name);
                    let labels = [service, name, ("direction", direction)];
                    // A count without directions comes without the label.
                    let used = if direction.is_empty() { 2 } else { 3 };
                    samples.sample(&labels[..used], value(&backend.counters) as f64)?;
                }
            }
        }
    }
    Ok(())
}

fn connections(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let each = || {
        all.stats.services.iter().flat_map(|service| {
            service.backends.iter().map(|backend| (labels(&service.name, &backend.name), backend))
        })
    };
    let mut open = gauge(
        encoder,
        "lb_backend_connections",
        "Open connections, of services with `count_connections`: active or inactive (opening, closing).",
    )?;
    for ([service, backend], counted) in each() {
        let Some(connections) = counted.connections else { continue };
        for (state, count) in [("active", connections.active), ("inactive", connections.inactive)] {
            open.sample(&[service, backend, ("state", state)], count as f64)?;
        }
    }
    let mut times = histogram(
        encoder,
        "lb_backend_handshake_seconds",
        "Time from SYN to SYN-ACK of one connection in eight (nat over TCP only).",
    )?;
    for (labels, backend) in each() {
        if let Some(handshake) = &backend.handshake {
            times.buckets(&labels, handshake)?;
        }
    }
    Ok(())
}

/// The value of the label `direction` (empty: there is no such label), and what is counted.
type Direction = (&'static str, fn(&Counters) -> u64);

/// A family of a backend's counters.
struct Traffic {
    name: &'static str,
    help: &'static str,
    directions: &'static [Direction],
}

const TRAFFIC: &[Traffic] = &[
    Traffic {
        name: "lb_backend_packets",
        help: "Packets to the backend (in) and back from it (out; nat only).",
        directions: &[("in", |c| c.packets_in), ("out", |c| c.packets_out)],
    },
    Traffic {
        name: "lb_backend_bytes",
        help: "Bytes of IP packets to the backend (in) and back from it (out; nat only).",
        directions: &[("in", |c| c.bytes_in), ("out", |c| c.bytes_out)],
    },
    Traffic {
        name: "lb_backend_flows",
        help: "TCP connections opened (SYNs).",
        directions: &[("", |c| c.flows)],
    },
    Traffic {
        name: "lb_backend_resets",
        help: "TCP resets from the backend (nat only).",
        directions: &[("", |c| c.resets)],
    },
];

type Pair<'a> = [(&'static str, &'a str); 2];

fn each(status: &Status) -> impl Iterator<Item = (Pair<'_>, &BackendStatus)> {
    status.services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| (labels(&service.name, &backend.name), backend))
    })
}

fn labels<'a>(service: &'a str, backend: &'a str) -> Pair<'a> {
    [("service", service), ("backend", backend)]
}

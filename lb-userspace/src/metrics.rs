//! What Prometheus scrapes: status and statistics as OpenMetrics text. Pure.

use std::fmt::Error;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::api::types::{Counters, ServiceStats, Stats, Status};

/// The `Content-Type` of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One scrape.
pub fn render(status: &Status, stats: &Stats) -> String {
    let mut registry = Registry::default();
    let scrape = Scrape { status: status.clone(), stats: stats.clone() };
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Scrape {
    status: Status,
    stats: Stats,
}

/// Pairs of label names and values.
type Labels<'a> = &'a [(&'static str, &'a str)];

/// One family: its samples are written one after another.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
}

impl Family<'_> {
    /// Names of services, backends and NICs have no characters that would have to be escaped: `config` sees to it.
    fn sample(&mut self, labels: Labels<'_>, value: f64) -> Result<(), Error> {
        if labels.is_empty() {
            return encode(&mut self.encoder, self.kind, value);
        }
        encode(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> Result<(), Error> {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, Error> {
    let encoder = encoder.encode_descriptor(name, help, None::<&Unit>, kind)?;
    Ok(Family { encoder, kind })
}

impl prometheus_client::collector::Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        self.node(encoder)?;
        self.services(encoder)?;
        self.backends(encoder)?;
        self.reasons(encoder)
    }
}

impl Scrape {
    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        use MetricType::Gauge;
        let status = &self.status;
        family(encoder, Gauge, "lb_build_info", "Version of the daemon.")?
            .sample(&[("version", &status.version)], 1.0)?;
        family(encoder, Gauge, "lb_uptime_seconds", "Time since the daemon started.")?
            .sample(&[], status.uptime_seconds as f64)?;
        family(encoder, Gauge, "lb_config_revision", "Number of the configuration in force.")?
            .sample(&[], status.revision as f64)?;
        family(
            encoder,
            Gauge,
            "lb_config_valid",
            "1 if the file on disk is in force, 0 if it is invalid.",
        )?
        .sample(&[], flag(status.config_error.is_none()))?;
        family(encoder, Gauge, "lb_warnings", "Things that need attention, see `lb status`.")?
            .sample(&[], status.warnings.len() as f64)?;
        let mut nics = family(
            encoder,
            Gauge,
            "lb_interface_attached",
            "1 if lb's program is on the NIC and the link is up.",
        )?;
        for nic in &status.interfaces {
            let forwards = nic.mode != "detached" && nic.link == "up";
            nics.sample(&[("interface", &nic.name), ("mode", &nic.mode)], flag(forwards))?;
        }
        let pins = &status.pins;
        let tables = [
            ("confirmed", pins.confirmed, pins.confirmed_limit),
            ("unconfirmed", pins.unconfirmed, pins.unconfirmed_limit),
        ];
        let mut used = family(encoder, Gauge, "lb_pins", "Entries of the pin tables.")?;
        for (table, count, _) in tables {
            used.sample(&[("table", table)], count as f64)?;
        }
        let mut limits = family(encoder, Gauge, "lb_pins_limit", "Room in the pin tables.")?;
        for (table, _, limit) in tables {
            limits.sample(&[("table", table)], limit as f64)?;
        }
        Ok(())
    }

    fn services(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        use MetricType::Gauge;
        let services = &self.status.services;
        let mut up =
            family(encoder, Gauge, "lb_service_up", "1 if the service has a usable backend.")?;
        for service in services {
            let labels = [("service", service.name.as_str()), ("listen", &service.listen)];
            up.sample(&labels, flag(service.state == "UP"))?;
        }
        let mut slots = family(encoder, Gauge, "lb_service_slots", "Slots of the ring by phase.")?;
        for service in services {
            let phases = service.slots;
            for (phase, count) in [
                ("settled", phases.settled),
                ("window", phases.window),
                ("harvest", phases.harvest),
                ("pinned", phases.pinned),
            ] {
                slots.sample(&[("service", &service.name), ("phase", phase)], count.into())?;
            }
        }
        Ok(())
    }

    fn backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        use MetricType::Gauge;
        type Value = fn(&crate::api::types::BackendStatus) -> Option<f64>;
        let gauges: [(&str, &str, Value); 6] = [
            ("lb_backend_up", "1 if the backend's checks say UP, or it has none.", |backend| {
                Some(flag(backend.state.starts_with("UP") || backend.state == "NOLB"))
            }),
            (
                "lb_backend_ready",
                "1 if the backend is not drained, in maintenance or removed.",
                |backend| Some(flag(backend.admin == "ready")),
            ),
            ("lb_backend_weight", "Weight in force.", |backend| Some(backend.weight.into())),
            ("lb_backend_slots", "Slots of the ring that the backend owns.", |backend| {
                Some(backend.slots.into())
            }),
            ("lb_backend_pins", "Pinned flows.", |backend| Some(backend.pins as f64)),
            ("lb_backend_check_duration_seconds", "Duration of the last check.", |backend| {
                Some(backend.check_milliseconds? / 1e3)
            }),
        ];
        for (name, help, value) in gauges {
            let mut samples = family(encoder, Gauge, name, help)?;
            for service in &self.status.services {
                for backend in &service.backends {
                    let Some(value) = value(backend) else { continue };
                    samples.sample(&labels(&service.name, &backend.name), value)?;
                }
            }
        }
        self.traffic(encoder)
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        for Traffic { name, help, directions } in TRAFFIC {
            let mut samples = family(encoder, MetricType::Counter, name, help)?;
            for service in &self.stats.services {
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

    fn reasons(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let none = ServiceStats { reasons: self.stats.node.clone(), ..ServiceStats::default() };
        for (name, help, drops) in [
            (
                "lb_drops",
                "Packets dropped, by reason; see `lb why`. Without a service: service=\"\".",
                true,
            ),
            ("lb_events", "Packets answered, passed or noted, by reason.", false),
        ] {
            let mut samples = family(encoder, MetricType::Counter, name, help)?;
            for service in self.stats.services.iter().chain([&none]) {
                for reason in lb_common::abi::Reason::ALL {
                    if reason.is_drop() != drops {
                        continue;
                    }
                    // A counter that appears only with its first event would hide it from `rate()`.
                    let always = drops && service.name.is_empty();
                    let count = service.reasons.get(reason.name()).copied();
                    if let Some(count) = count.or(always.then_some(0)) {
                        let labels =
                            [("service", service.name.as_str()), ("reason", reason.name())];
                        samples.sample(&labels, count as f64)?;
                    }
                }
            }
        }
        Ok(())
    }
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

fn labels<'a>(service: &'a str, backend: &'a str) -> [(&'static str, &'a str); 2] {
    [("service", service), ("backend", backend)]
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::api::types::{BackendStats, BackendStatus, InterfaceStatus, ServiceStatus};

    fn scrape() -> String {
        let status = Status {
            version: "1.2.3".into(),
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                mode: "native".into(),
                link: "up".into(),
                ..InterfaceStatus::default()
            }],
            services: vec![ServiceStatus {
                name: "web".into(),
                listen: "192.0.2.10:80/tcp".into(),
                state: "UP".into(),
                backends: vec![BackendStatus {
                    name: "web1".into(),
                    state: "UP 1/3".into(),
                    admin: "drain".into(),
                    check_milliseconds: Some(1.5),
                    ..BackendStatus::default()
                }],
                ..ServiceStatus::default()
            }],
            ..Status::default()
        };
        let counters = Counters { packets_in: 7, packets_out: 5, flows: 2, ..Counters::default() };
        let backend = BackendStats { name: "web1".into(), counters, ..BackendStats::default() };
        let service = ServiceStats {
            name: "web".into(),
            reasons: BTreeMap::from([("not_allowed".into(), 3), ("pin_refused".into(), 4)]),
            backends: vec![backend],
            ..ServiceStats::default()
        };
        render(&status, &Stats { services: vec![service], node: BTreeMap::new() })
    }

    #[test]
    fn samples_have_their_labels_and_values() {
        let text = scrape();
        for line in [
            "lb_build_info{version=\"1.2.3\"} 1.0",
            "lb_config_valid 1.0",
            "lb_interface_attached{interface=\"eth0\",mode=\"native\"} 1.0",
            "lb_backend_up{service=\"web\",backend=\"web1\"} 1.0",
            "lb_backend_ready{service=\"web\",backend=\"web1\"} 0.0",
            "lb_backend_check_duration_seconds{service=\"web\",backend=\"web1\"} 0.0015",
            "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"in\"} 7.0",
            "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"out\"} 5.0",
            "lb_backend_flows_total{service=\"web\",backend=\"web1\"} 2.0",
            "lb_drops_total{service=\"web\",reason=\"not_allowed\"} 3.0",
            "lb_drops_total{service=\"\",reason=\"no_service\"} 0.0",
            "lb_events_total{service=\"web\",reason=\"pin_refused\"} 4.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn every_family_is_described_once_and_every_sample_is_of_one() {
        let text = scrape();
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let distinct: HashSet<&str> = types.iter().copied().collect();
        assert_eq!(types.len(), distinct.len(), "{types:#?}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = name.strip_suffix("_total").unwrap_or(name);
            let known = types.iter().any(|kind| kind.split(' ').nth(2) == Some(family));
            assert!(known, "{line} has no TYPE");
        }
    }
}

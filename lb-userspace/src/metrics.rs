//! What Prometheus scrapes: one snapshot of the daemon as text. Pure but for [`process`].

mod backends;
mod classic;
mod cluster;
mod family;
mod node;
pub mod process;
mod services;
mod shared;

use std::{collections::BTreeMap, fmt::Error, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};

use self::process::Process;
use crate::api::types::{Histogram, Stats, Status};

/// Everything of one scrape, read at one time by the controller.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// As of `lb status`.
    pub status: Status,
    /// As of `lb stats`.
    pub stats: Stats,
    /// How full the tables are.
    pub maps: Vec<MapFill>,
    /// How long whole configurations took.
    pub apply: Histogram,
    /// How long a single change took.
    pub publish: Histogram,
    /// Configurations read, by result.
    pub reloads: [(&'static str, u64); 3],
    /// Events since the start, by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// When the daemon started.
    pub start: SystemTime,
}

/// One table of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Entries taken.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// The two formats that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, for those that ask for it.
    OpenMetrics,
    /// Text 0.0.4, which everything reads.
    Classic,
}

impl Format {
    /// As the request's `Accept` wants it.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// The `Content-Type` of [`render`]'s text.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One scrape.
pub fn render(snapshot: Snapshot, process: Process, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { snapshot, process }));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Classic => classic::from_openmetrics(&text),
    }
}

#[derive(Debug)]
struct Scrape {
    snapshot: Snapshot,
    process: Process,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        node::encode(encoder, &self.snapshot)?;
        cluster::encode(encoder, &self.snapshot)?;
        shared::encode(encoder, &self.snapshot)?;
        self.process.encode(encoder)?;
        services::encode(encoder, &self.snapshot)?;
        backends::encode(encoder, &self.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::api::types::{
        BackendStats, BackendStatus, Checks, ClusterPeer, ClusterStatus, Connections, Counters,
        InterfaceStatus, RingMismatch, ServiceStats, ServiceStatus,
    };

    fn scrape(format: Format) -> String {
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
                ring: "0000002a".into(),
                backends: vec![BackendStatus {
                    name: "web1".into(),
                    state: "UP 1/3".into(),
                    admin: "drain".into(),
                    check_milliseconds: Some(1.5),
                    checks: Some(Checks {
                        downs: 2,
                        codes: BTreeMap::from([("L7OK".into(), 4)]),
                        durations: Histogram {
                            buckets: vec![(0.001, 1), (0.01, 3)],
                            count: 4,
                            sum_seconds: 1.25,
                        },
                        ..Checks::default()
                    }),
                    ..BackendStatus::default()
                }],
                syn_flood: Some(crate::api::types::SynFlood {
                    engaged: true,
                    syns_per_second: 700,
                    engage: 500,
                    release: 250,
                }),
                ..ServiceStatus::default()
            }],
            seed_fingerprint: "a1b2c3d4".into(),
            cluster: Some(ClusterStatus {
                node: "lb-a".into(),
                peers: vec![
                    ClusterPeer { state: "this node".into(), ..ClusterPeer::default() },
                    ClusterPeer {
                        address: "10.0.9.2:7946".into(),
                        node: "lb-b".into(),
                        state: "in step".into(),
                        same_seed: Some(true),
                        sent: 12,
                        lag_milliseconds: Some(3),
                        heard_seconds: Some(0),
                        ..ClusterPeer::default()
                    },
                ],
                mismatches: vec![RingMismatch {
                    service: "web".into(),
                    node: "lb-b".into(),
                    ..RingMismatch::default()
                }],
                taken: 5,
                ..ClusterStatus::default()
            }),
            ..Status::default()
        };
        let counters = Counters { packets_in: 7, packets_out: 5, flows: 2, ..Counters::default() };
        let handshake = Histogram { buckets: vec![(0.000064, 2)], count: 2, sum_seconds: 0.0001 };
        let backend = BackendStats {
            name: "web1".into(),
            counters,
            connections: Some(Connections { active: 5, inactive: 1 }),
            handshake: Some(handshake),
            ..BackendStats::default()
        };
        let service = ServiceStats {
            name: "web".into(),
            reasons: BTreeMap::from([("not_allowed".into(), 3), ("pin_refused".into(), 4)]),
            backends: vec![backend],
            ..ServiceStats::default()
        };
        let snapshot = Snapshot {
            status,
            stats: Stats { services: vec![service], node: BTreeMap::new() },
            maps: vec![MapFill { map: "pins", entries: 3, capacity: 10 }],
            apply: Histogram::default(),
            publish: Histogram::default(),
            reloads: [("applied", 2), ("unchanged", 0), ("refused", 1)],
            events: BTreeMap::from([("admin", 2)]),
            start: SystemTime::UNIX_EPOCH,
        };
        render(snapshot, Process::read(SystemTime::UNIX_EPOCH), format)
    }

    #[test]
    fn samples_have_their_labels_and_values() {
        let text = scrape(Format::OpenMetrics);
        for line in [
            "lb_build_info{version=\"1.2.3\"} 1.0",
            "lb_config_valid 1.0",
            "lb_interface_attached{interface=\"eth0\",mode=\"native\"} 1.0",
            "lb_backend_up{service=\"web\",backend=\"web1\"} 1.0",
            "lb_backend_ready{service=\"web\",backend=\"web1\"} 0.0",
            "lb_backend_last_check_duration_seconds{service=\"web\",backend=\"web1\"} 0.0015",
            "lb_backend_check_duration_seconds_bucket{le=\"0.001\",service=\"web\",backend=\"web1\"} 1",
            "lb_backend_check_duration_seconds_bucket{le=\"0.01\",service=\"web\",backend=\"web1\"} 3",
            "lb_backend_check_duration_seconds_bucket{le=\"+Inf\",service=\"web\",backend=\"web1\"} 4",
            "lb_backend_check_duration_seconds_sum{service=\"web\",backend=\"web1\"} 1.25",
            "lb_backend_checks_total{service=\"web\",backend=\"web1\",code=\"L7OK\"} 4.0",
            "lb_backend_downs_total{service=\"web\",backend=\"web1\"} 2.0",
            "lb_backend_connections{service=\"web\",backend=\"web1\",state=\"active\"} 5.0",
            "lb_backend_handshake_seconds_count{service=\"web\",backend=\"web1\"} 2",
            "lb_map_entries{map=\"pins\"} 3.0",
            "lb_map_capacity{map=\"pins\"} 10.0",
            "lb_config_reloads_total{result=\"refused\"} 1.0",
            "lb_state_changes_total{kind=\"admin\"} 2.0",
            "lb_process_start_time_seconds 0.0",
            "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"in\"} 7.0",
            "lb_backend_packets_total{service=\"web\",backend=\"web1\",direction=\"out\"} 5.0",
            "lb_backend_flows_total{service=\"web\",backend=\"web1\"} 2.0",
            "lb_drops_total{service=\"web\",reason=\"not_allowed\"} 3.0",
            "lb_drops_total{service=\"\",reason=\"no_service\"} 0.0",
            "lb_events_total{service=\"web\",reason=\"pin_refused\"} 4.0",
            "lb_service_syn_flood_engaged{service=\"web\"} 1.0",
            "lb_service_syns_per_second{service=\"web\"} 700.0",
            "lb_seed_info{fingerprint=\"a1b2c3d4\"} 1.0",
            "lb_service_ring_fingerprint{service=\"web\"} 42.0",
            "lb_cluster_peer_in_step{peer=\"10.0.9.2:7946\",node=\"lb-b\"} 1.0",
            "lb_cluster_peer_sent_total{peer=\"10.0.9.2:7946\",node=\"lb-b\"} 12.0",
            "lb_cluster_peer_lag_seconds{peer=\"10.0.9.2:7946\",node=\"lb-b\"} 0.003",
            "lb_cluster_entries_total{outcome=\"taken\"} 5.0",
            "lb_cluster_ring_mismatch{service=\"web\",node=\"lb-b\"} 1.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn every_family_is_described_once_and_every_sample_is_of_one() {
        let text = scrape(Format::OpenMetrics);
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let distinct: HashSet<&str> = types.iter().copied().collect();
        assert_eq!(types.len(), distinct.len(), "{types:#?}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let known = types.iter().any(|kind| kind.split(' ').nth(2) == Some(family));
            assert!(known, "{line} has no TYPE");
        }
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_same_samples_in_the_older_format() {
        let samples = |text: &str| -> Vec<String> {
            let kept = text.lines().filter(|l| !l.starts_with('#') && !l.contains("lb_process_"));
            kept.map(str::to_owned).collect()
        };
        let (new, old) = (scrape(Format::OpenMetrics), scrape(Format::Classic));
        assert_eq!(samples(&new), samples(&old));
        assert!(old.contains("# TYPE lb_drops_total counter\n") && !old.contains("# EOF"), "{old}");
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Classic);
        assert_eq!(Format::accepted(None), Format::Classic);
    }
}

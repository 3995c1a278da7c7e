//! The other nodes of the cluster, and what nodes have to have in common.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Snapshot,
    family::{counter, flag, gauge},
};
use crate::api::types::{ClusterPeer, ClusterStatus};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    fingerprints(encoder, all)?;
    let Some(cluster) = &all.status.cluster else { return Ok(()) };
    let others: Vec<&ClusterPeer> =
        cluster.peers.iter().filter(|peer| peer.state != "this node").collect();
    type Value = fn(&ClusterPeer) -> f64;
    let gauges: [(&str, &str, Value); 5] = [
        ("lb_cluster_peer_in_step", "1 if both nodes have told each other everything.", |peer| {
            flag(peer.state == "in step")
        }),
        ("lb_cluster_peer_same_seed", "0 if the node is known to have another seed.", |peer| {
            flag(peer.same_seed != Some(false))
        }),
        ("lb_cluster_peer_waiting", "Entries that wait to be sent.", |peer| peer.waiting as f64),
        (
            "lb_cluster_peer_lag_seconds",
            "Time until the node last confirmed that it had heard everything before.",
            |peer| peer.lag_milliseconds.map_or(f64::NAN, |lag| lag as f64 / 1_000.0),
        ),
        ("lb_cluster_peer_heard_seconds", "Time since something came from the node.", |peer| {
            peer.heard_seconds.map_or(f64::NAN, |seconds| seconds as f64)
        }),
    ];
    for (name, help, value) in gauges {
        let mut samples = gauge(encoder, name, help)?;
        for peer in &others {
            samples.sample(&labels(peer), value(peer))?;
        }
    }
    let counters: [(&str, &str, Value); 4] = [
        ("lb_cluster_peer_sent", "Entries that were sent to the node.", |peer| peer.sent as f64),
        ("lb_cluster_peer_sent_bytes", "Bytes that were sent to the node.", |peer| {
            peer.sent_bytes as f64
        }),
        (
            "lb_cluster_peer_dropped",
            "Entries for the node that found no room; everything is sent anew for them.",
            |peer| peer.dropped as f64,
        ),
        ("lb_cluster_peer_received", "Entries from the node on its present connection.", |peer| {
            peer.received as f64
        }),
    ];
    for (name, help, value) in counters {
        let mut samples = counter(encoder, name, help)?;
        for peer in &others {
            samples.sample(&labels(peer), value(peer))?;
        }
    }
    outcomes(encoder, cluster)
}

fn labels(peer: &ClusterPeer) -> [(&'static str, &str); 2] {
    [("peer", &peer.address), ("node", &peer.node)]
}

fn fingerprints(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let help = "Fingerprint of the seed: the same on all nodes of a cluster.";
    gauge(encoder, "lb_seed_info", help)?
        .sample(&[("fingerprint", &all.status.seed_fingerprint)], 1.0)?;
    let help = "Fingerprint of the service's ring as a number: the same on nodes whose rings are.";
    let mut rings = gauge(encoder, "lb_service_ring_fingerprint", help)?;
    for service in &all.status.services {
        let number = u32::from_str_radix(&service.ring, 16).unwrap_or(0);
        rings.sample(&[("service", &service.name)], number.into())?;
    }
    Ok(())
}

fn outcomes(encoder: &mut DescriptorEncoder<'_>, cluster: &ClusterStatus) -> Result<(), Error> {
    let help = "What became of entries that other nodes have told.";
    let mut entries = counter(encoder, "lb_cluster_entries", help)?;
    for (outcome, count) in [
        ("taken", cluster.taken),
        ("known", cluster.known),
        ("unknown", cluster.unknown),
        ("conflict", cluster.conflicts),
        ("refused", cluster.refused),
    ] {
        entries.sample(&[("outcome", outcome)], count as f64)?;
    }
    let help = "Connections of others that were no peers.";
    counter(encoder, "lb_cluster_strangers", help)?.sample(&[], cluster.strangers as f64)?;
    let help = "Backends whose state by this node's checks is not the one that counts.";
    gauge(encoder, "lb_cluster_outvoted", help)?.sample(&[], cluster.outvoted.len() as f64)?;
    let help = "1 for a service whose ring has been another one on that node for some seconds.";
    let mut rings = gauge(encoder, "lb_cluster_ring_mismatch", help)?;
    for one in &cluster.mismatches {
        rings.sample(&[("service", &one.service), ("node", &one.node)], 1.0)?;
    }
    Ok(())
}

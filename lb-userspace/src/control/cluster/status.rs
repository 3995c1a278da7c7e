//! The cluster in `lb status`.

use std::{sync::atomic::Ordering, time::Instant};

use super::{super::Node, Inward, Outward};
use crate::api::types::{ClusterPeer, ClusterStatus, RingMismatch};

impl Node {
    /// The other nodes as they are known here.
    pub(in crate::control) fn cluster_status(&self) -> Option<ClusterStatus> {
        let cluster = self.config.as_ref().and_then(|config| config.cluster.as_ref())?;
        let now = Instant::now();
        let peers = match self.peers.running {
            Some(_) => (0..self.peers.out.len()).map(|peer| self.peer_status(peer, now)).collect(),
            None => cluster.peers.iter().map(|address| away(&address.to_string())).collect(),
        };
        let counts = self.peers.counts;
        let service_name = |key| {
            let found = self.services.iter().find(|one| key == one.key.into());
            found.map_or_else(String::new, |one| one.spec.name.clone())
        };
        let mismatch =
            |((node, key), known): (&(String, _), &super::views::Mismatch)| RingMismatch {
                service: service_name(*key),
                node: node.clone(),
                input: known.input.clone(),
                seconds: now.duration_since(known.since).as_secs(),
            };
        let told = self.peers.mismatches.iter().filter(|(_, known)| known.is_told);
        let outvoted = self.peers.votes.values().filter(|vote| vote.is_told);
        Some(ClusterStatus {
            node: self.options.node.clone(),
            peers,
            mismatches: told.map(mismatch).collect(),
            outvoted: outvoted.map(|vote| vote.text.clone()).collect(),
            taken: counts.taken,
            known: counts.known,
            unknown: counts.unknown,
            conflicts: counts.conflicts,
            refused: counts.refused,
            strangers: counts.strangers,
        })
    }

    /// A peer that is another node with this one's name.
    pub(in crate::control) fn namesake_in_cluster(&self) -> Option<String> {
        let peer = self.peers.out.iter().position(|out| out.is_namesake)?;
        let address = self.peers.running.as_ref()?.settings().peers[peer];
        let name = &self.options.node;
        Some(format!(
            "the node at {address} is called {name}, as this one is: neither hears the other"
        ))
    }

    fn peer_status(&self, peer: usize, now: Instant) -> ClusterPeer {
        let Some(running) = &self.peers.running else { return ClusterPeer::default() };
        let address = running.settings().peers[peer].to_string();
        let (out, outbox) = (&self.peers.out[peer], running.outbox(peer));
        if out.is_this_node {
            let node = self.options.node.clone();
            return ClusterPeer { node, state: "this node".to_owned(), ..away(&address) };
        }
        let node = out.hello.as_ref().map(|hello| hello.node.clone()).unwrap_or_default();
        let inward = self.peers.into.values().find(|one| one.hello.node == node);
        let (state, problem) = state(out, outbox.is_connected(), inward);
        let lag = outbox.answered().filter(|_| outbox.is_connected());
        ClusterPeer {
            state: state.to_owned(),
            problem,
            same_seed: out.hello.as_ref().map(|hello| hello.seed == self.seed.fingerprint()),
            sent: outbox.traffic.entries.load(Ordering::Relaxed),
            sent_bytes: outbox.traffic.bytes.load(Ordering::Relaxed),
            waiting: outbox.waiting() as u64,
            dropped: outbox.lost(),
            lag_milliseconds: lag.map(|(_, lag)| lag.as_millis() as u64),
            received: inward.map_or(0, |one| one.entries),
            heard_seconds: inward.map(|one| now.duration_since(one.heard).as_secs()),
            whole: inward.is_some_and(|one| one.whole),
            node,
            address,
        }
    }

    /// What needs attention.
    pub(in crate::control) fn cluster_warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.peers.problem.iter().cloned().collect();
        let Some(status) = self.cluster_status() else { return warnings };
        for peer in &status.peers {
            if peer.state == "away" && !peer.problem.is_empty() {
                warnings.push(format!("cluster: {} is away: {}", peer.address, peer.problem));
            }
            if peer.same_seed == Some(false) {
                warnings.push(format!(
                    "cluster: {} has another seed: flows break when they meet another node; all nodes need the same file \
                     `seed` in their state directories",
                    peer.node
                ));
            }
        }
        for RingMismatch { service, node, input, .. } in &status.mismatches {
            warnings.push(format!("cluster: {service} has another ring on {node}: {input}"));
        }
        warnings.extend(status.outvoted.iter().map(|text| format!("cluster: {text}")));
        warnings
    }
}

fn away(address: &str) -> ClusterPeer {
    ClusterPeer { address: address.to_owned(), state: "away".to_owned(), ..ClusterPeer::default() }
}

fn state(out: &Outward, takes: bool, inward: Option<&Inward>) -> (&'static str, String) {
    let why = out.why.clone().unwrap_or_default();
    match (takes, inward) {
        (true, Some(one)) if one.whole && out.telling.is_none() => ("in step", String::new()),
        (true, Some(_)) => ("in part", "not everything has been told yet".to_owned()),
        (true, None) => ("in part", "it does not send to this node".to_owned()),
        (false, Some(_)) => ("in part", why),
        (false, None) => ("away", why),
    }
}

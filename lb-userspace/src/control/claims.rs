//! VIPs of this host that another host says are its own (F53): a second machine with the address, a backend of dsr or tunnel that
//! answers ARP for it, two nodes of a pair that both believe to be the active one.
//!
//! While VIPs move, both nodes have them for a moment; so a claim counts when it was heard several times over some seconds,
//! and this host has had the address on a NIC all the time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{Event, Node};
use crate::{
    api::types::VipConflict,
    events::{Happened, Kind},
    net::{
        Snapshot,
        claims::{self, Asker, Claim},
    },
};

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(1);
/// All VIPs are asked for in so many looks, or in more if there are many.
const ROUND: usize = 5;
/// Questions of one look.
const MOST: usize = 200;
/// Heard so often, over so long, it is no transition.
const ENOUGH: (u32, Duration) = (3, Duration::from_secs(2));
/// Not heard for so long beyond two rounds, it is over.
const OVER: Duration = Duration::from_secs(2);

/// What is known of claims.
pub(super) struct Claims {
    asker: Option<Asker>,
    problem: Option<String>,
    rivals: BTreeMap<IpAddr, Rival>,
    /// Where the next look's questions begin.
    next: usize,
    look_due: Instant,
}

#[derive(Clone, Debug)]
struct Rival {
    mac: [u8; 6],
    first: Instant,
    last: Instant,
    count: u32,
    is_told: bool,
}

impl Rival {
    fn is_certain(&self) -> bool {
        self.count >= ENOUGH.0 && self.last.duration_since(self.first) >= ENOUGH.1
    }
}

impl Claims {
    /// Listens from now on.
    pub fn start(
        snapshots: &watch::Receiver<Arc<Snapshot>>,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Self {
        let (heard, mut hears) = mpsc::unbounded_channel();
        let forward = events.clone();
        tokio::spawn(async move {
            while let Some(claim) = hears.recv().await {
                if forward.send(Event::Claimed(claim)).is_err() {
                    return;
                }
            }
        });
        let started = claims::start(snapshots, &heard);
        let (asker, problem) = match started {
            Ok(asker) => (Some(asker), None),
            Err(error) => {
                let text = format!(
                    "nobody watches for other hosts that claim a VIP: {error}; lb needs CAP_NET_RAW for that"
                );
                (None, Some(text))
            }
        };
        Self { asker, problem, rivals: BTreeMap::new(), next: 0, look_due: Instant::now() }
    }
}

impl Node {
    /// Somebody says that an address of this host is theirs.
    pub(super) fn claimed(&mut self, claim: Claim) {
        let is_vip = self.services.iter().any(|service| service.key.address == claim.address);
        if !is_vip || self.nic_of_vip(claim.address).is_none() {
            return;
        }
        let now = Instant::now();
        let new = Rival { mac: claim.mac, first: now, last: now, count: 0, is_told: false };
        let rival = self.claims.rivals.entry(claim.address).or_insert(new);
        rival.last = now;
        rival.count = rival.count.saturating_add(1);
        rival.mac = claim.mac;
        if rival.is_told || !rival.is_certain() {
            return;
        }
        rival.is_told = true;
        let text = format!("another host says that the VIP {} is its own", claim.address);
        let cause = format!("MAC address {}", mac_text(claim.mac));
        self.log.add(Happened::to_node(Kind::VipConflict, text, cause));
    }

    /// Asks for some VIPs, and forgets claims that are over.
    pub(super) fn mind_claims(&mut self) {
        let now = Instant::now();
        if now < self.claims.look_due {
            return;
        }
        self.claims.look_due = now + LOOK;
        let mut vips: Vec<IpAddr> =
            self.services.iter().map(|service| service.key.address).collect();
        vips.sort();
        vips.dedup();
        let round = vips.len().div_ceil(MOST).max(ROUND) as u32;
        let over = LOOK * round * 2 + OVER;
        let gone: Vec<IpAddr> = self
            .claims
            .rivals
            .iter()
            .filter(|(vip, rival)| {
                now.duration_since(rival.last) >= over
                    || vips.binary_search(vip).is_err()
                    || self.nic_of_vip(**vip).is_none()
            })
            .map(|(vip, _)| *vip)
            .collect();
        for vip in gone {
            if self.claims.rivals.remove(&vip).is_some_and(|rival| rival.is_told) {
                let text = format!("no other host says any more that the VIP {vip} is its own");
                self.log.add(Happened::to_node(Kind::VipConflict, text, "nothing more was heard"));
            }
        }
        let Some(asker) = &self.claims.asker else { return };
        let count = vips.len().div_ceil(ROUND).min(MOST);
        let begin = if self.claims.next < vips.len() { self.claims.next } else { 0 };
        let turn = vips[begin..].iter().take(count);
        let doubtful = self.claims.rivals.iter().filter(|(_, rival)| !rival.is_told);
        for vip in turn.chain(doubtful.map(|(vip, _)| vip).take(MOST)) {
            if let Some((ifindex, mac)) = self.nic_of_vip(*vip) {
                asker.ask(ifindex, mac, *vip);
            }
        }
        self.claims.next = begin + count;
    }

    /// The NIC that a VIP is on, and its MAC address; one on a loopback is a router's matter.
    fn nic_of_vip(&self, vip: IpAddr) -> Option<(u32, [u8; 6])> {
        let snapshot = &self.snapshot;
        let places = snapshot.addresses.iter().filter(|one| one.address == vip);
        let links = places.filter_map(|one| snapshot.links.get(&one.ifindex));
        let mut usable = links.filter(|link| link.mac != [0; 6] && link.up);
        usable.next().map(|link| (link.ifindex, link.mac))
    }

    pub(super) fn vip_conflicts(&self) -> Vec<VipConflict> {
        let now = Instant::now();
        let told = self.claims.rivals.iter().filter(|(_, rival)| rival.is_told);
        told.map(|(vip, rival)| VipConflict {
            address: vip.to_string(),
            mac: mac_text(rival.mac),
            seconds: now.duration_since(rival.first).as_secs(),
            heard_seconds: now.duration_since(rival.last).as_secs(),
        })
        .collect()
    }

    pub(super) fn claim_warnings(&self) -> Vec<String> {
        let conflicts = self.vip_conflicts().into_iter().map(|one| {
            format!(
                "another host, MAC address {}, says that the VIP {} is its own: clients reach one or the other; find it, or if it is a \
                 backend of dsr or tunnel, set arp_ignore=1 and arp_announce=2 there",
                one.mac, one.address
            )
        });
        self.claims.problem.iter().cloned().chain(conflicts).collect()
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

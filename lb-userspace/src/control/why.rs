//! `lb why`: what was dropped, why, and what it looked like.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use lb_common::abi::{DroppedSample, Reason};

use super::Node;
use crate::{
    api::types::{Failure, Why, WhyReason, WhySample, WhyService},
    config::model::Listen,
    explain,
};

/// Samples kept for each service and reason.
const KEPT: usize = 3;

/// The last dropped packets, by service id and reason.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: BTreeMap<(u32, u32), VecDeque<(Instant, DroppedSample)>>,
}

impl Samples {
    /// Takes one in, for the oldest of its kind.
    pub(super) fn add(&mut self, sample: DroppedSample) {
        let kept = self.kept.entry((sample.service, sample.reason)).or_default();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), sample));
    }

    /// Forgets those of services that are gone; ids are used again.
    pub(super) fn retain(&mut self, service: impl Fn(u32) -> bool) {
        self.kept.retain(|(id, _), _| *id == 0 || service(*id));
    }

    /// The latest first.
    fn of(&self, service: u32, reason: Reason) -> impl Iterator<Item = &(Instant, DroppedSample)> {
        self.kept.get(&(service, reason as u32)).into_iter().flatten().rev()
    }
}

/// Whether a service listens on a `VIP:port` as it is written.
fn has_socket(listen: &Listen, text: &str) -> bool {
    let sockets = listen.to_string();
    let sockets = sockets.rsplit_once('/').map_or("", |(sockets, _)| sockets);
    sockets.split(", ").any(|socket| socket == text)
        || text.parse::<SocketAddr>().is_ok_and(|socket| {
            let ports = listen.port.max(1)..=listen.last_port;
            listen.has(socket.ip()) && ports.contains(&socket.port())
        })
}

impl Node {
    /// Everything that was dropped, answered or refused: of one service (by its name, VIP or `VIP:port`), or of all. What belongs
    /// to no service is always there.
    pub(super) fn why(&self, filter: Option<&str>) -> Result<Why, Failure> {
        let matching = |service: &&super::Service| {
            let Some(filter) = filter else { return true };
            service.spec.name == filter
                || filter.parse::<IpAddr>().is_ok_and(|vip| service.spec.listen.has(vip))
                || has_socket(&service.spec.listen, filter)
        };
        let services: Vec<_> = self.services.iter().filter(matching).collect();
        if let (Some(filter), true) = (filter, services.is_empty()) {
            let known = self.services.iter().map(|service| service.spec.name.as_str());
            return Err(Failure::unknown("service or VIP", filter, known));
        }
        let reasons = |id: u32| self.why_reasons(id).map_err(super::commands::failure);
        Ok(Why {
            services: services
                .into_iter()
                .map(|service| {
                    Ok(WhyService {
                        name: service.spec.name.clone(),
                        listen: service.spec.listen.to_string(),
                        reasons: reasons(service.id)?,
                        backends: self.why_backends(service),
                    })
                })
                .collect::<Result<_, Failure>>()?,
            node: reasons(0)?,
        })
    }

    fn why_backends(&self, service: &super::Service) -> Vec<String> {
        let failing = |backend: &super::loaded::Backend| {
            let observed = self.observed(backend);
            let failures = observed.unanswered + observed.refused;
            (failures + observed.ejections > 0).then(|| {
                let cause =
                    if observed.cause.is_empty() { "never ejected" } else { &observed.cause };
                format!(
                    "{} {}: {} SYNs unanswered and {} refused, ejected {} times; {cause}",
                    backend.spec.name,
                    backend.state(),
                    observed.unanswered,
                    observed.refused,
                    observed.ejections
                )
            })
        };
        match service.spec.observe {
            Some(_) => service.backends.iter().filter_map(failing).collect(),
            None => Vec::new(),
        }
    }

    /// Drops first, then the most frequent.
    fn why_reasons(&self, service: u32) -> anyhow::Result<Vec<WhyReason>> {
        let counts = self.dataplane.reasons(service)?;
        let mut reasons: Vec<WhyReason> = Reason::ALL
            .iter()
            .filter_map(|reason| {
                let count = *counts.get(*reason as usize)?;
                (count > 0).then(|| WhyReason {
                    name: reason.name().to_owned(),
                    count,
                    drop: reason.is_drop(),
                    text: reason.text().to_owned(),
                    remedy: explain::remedy::of(*reason).to_owned(),
                    samples: self.samples.of(service, *reason).map(|s| self.shown(s)).collect(),
                })
            })
            .collect();
        reasons.sort_by_key(|reason| (!reason.drop, std::cmp::Reverse(reason.count)));
        Ok(reasons)
    }

    fn shown(&self, (at, sample): &(Instant, DroppedSample)) -> WhySample {
        let nic = self.snapshot.links.get(&sample.ifindex).map(|link| link.name.clone());
        WhySample {
            seconds_ago: at.elapsed().as_secs_f64(),
            interface: nic.unwrap_or_else(|| format!("#{}", sample.ifindex)),
            length: sample.length,
            packet: explain::packet::line(&sample.bytes[..sample.captured as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(service: u32, length: u16) -> DroppedSample {
        let reason = Reason::NoService as u32;
        DroppedSample { service, reason, ifindex: 2, length, captured: 0, bytes: [0; 96] }
    }

    #[test]
    fn the_latest_samples_are_kept_and_those_of_gone_services_are_not() {
        let mut samples = Samples::default();
        for length in 1..=5 {
            samples.add(sample(7, length));
        }
        samples.add(sample(0, 9));
        let lengths = |samples: &Samples, service| -> Vec<u16> {
            samples.of(service, Reason::NoService).map(|(_, sample)| sample.length).collect()
        };
        assert_eq!(lengths(&samples, 7), [5, 4, 3]);
        samples.retain(|service| service != 7);
        assert_eq!((lengths(&samples, 7), lengths(&samples, 0)), (vec![], vec![9]));
    }
}

//! Limits of rate and SYN-flood stages: rules for the program, and what it has decided, for those who look. The program decides
//! alone; nothing here has to be in time.

use std::time::{Duration, Instant};

use lb_common::{
    abi::{OpeningRules, service_flag},
    syn_flood::{FloodState, in_window, window},
};

use super::{Node, loaded::Service};
use crate::{
    api::types::SynFlood,
    config::model,
    events::{Happened, Kind},
};

/// A key of cookies makes new ones for so long; they are good for two minutes at most.
const KEY_LIFE: Duration = Duration::from_secs(600);

/// The rules of a service as the program has them.
pub(super) fn rules(spec: &model::Service) -> OpeningRules {
    let limit = spec.rate_limit.as_ref();
    let burst =
        |rate: Option<model::Burst>| rate.map_or((0, 0), |rate| (rate.interval, rate.burst));
    let (interval, burst_of_all) = burst(limit.and_then(|limit| limit.connections));
    let (source_interval, source_burst) =
        burst(limit.and_then(|limit| limit.connections_per_source));
    OpeningRules {
        interval,
        burst: burst_of_all,
        source_interval,
        source_burst,
        engage: spec.syn_flood.map_or(0, |stage| in_window(stage.engage)),
        release: spec.syn_flood.map_or(0, |stage| in_window(stage.release)),
        mss: spec.mss_clamp.unwrap_or_default().into(),
        _reserved: [0; 2],
    }
}

/// The flags of a service's row that go with them.
pub(super) fn flags(spec: &model::Service) -> u32 {
    let limits = if spec.rate_limit.is_some() { service_flag::LIMIT_OPENINGS } else { 0 };
    let stage = if spec.syn_flood.is_some() { service_flag::SYN_FLOOD } else { 0 };
    let clamp = if spec.mss_clamp.is_some() { service_flag::CLAMP_MSS } else { 0 };
    limits | stage | clamp
}

/// Whether the program has to look at openings at all.
pub(super) fn wanted(config: &model::Config) -> bool {
    config.services.iter().any(|service| flags(service) & !service_flag::CLAMP_MSS != 0)
}

impl Node {
    /// The SYN-flood stage of a service, if it has one.
    pub(super) fn syn_flood(&self, service: &Service) -> Option<SynFlood> {
        let stage = service.spec.syn_flood?;
        let release = self.dataplane.openings().rules(service.id).release;
        let state = FloodState(self.dataplane.openings().state(service.id).flood);
        let now = nanoseconds();
        Some(SynFlood {
            engaged: state.is_engaged(window(now), release),
            syns_per_second: state.rate(now),
            engage: stage.engage,
            release: stage.release,
        })
    }

    /// Tells when stages are engaged and released, and changes the key of cookies now and then.
    pub(super) fn mind_openings(&mut self) {
        for index in 0..self.services.len() {
            let service = &self.services[index];
            let stage = self.syn_flood(service);
            let engaged = stage.as_ref().is_some_and(|stage| stage.engaged);
            if engaged == service.syn_flood_engaged {
                continue;
            }
            let name = &service.spec.name;
            let rate = stage.map_or(0, |stage| stage.syns_per_second);
            let (text, cause) = match (engaged, service.spec.syn_flood) {
                (true, Some(limit)) => (
                    format!(
                        "{name}: the SYN-flood stage is engaged: unknown clients are challenged"
                    ),
                    format!("{rate} SYNs/s, more than {}", limit.engage),
                ),
                (_, Some(limit)) => (
                    format!("{name}: the SYN-flood stage is released"),
                    format!("{rate} SYNs/s, fewer than {}", limit.release),
                ),
                (_, None) => (
                    format!("{name}: the SYN-flood stage is released"),
                    "it is no longer configured".to_owned(),
                ),
            };
            self.log.add(Happened::to_node(Kind::SynFlood, text, cause).to_service(name));
            self.services[index].syn_flood_engaged = engaged;
        }
        if self.config.as_ref().is_some_and(wanted) && self.cookie_key_due <= Instant::now() {
            self.dataplane.openings().rotate_key();
            self.cookie_key_due = Instant::now() + KEY_LIFE;
        }
    }
}

/// CLOCK_MONOTONIC, the program's clock.
fn nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

//! Who may open a connection: limits for each source and for the whole service, and the SYN-flood stage, which answers SYNs of unknown
//! sources by a challenge (`limits` and `syn_flood` of a service). A world's limits refill nothing within a comparison, and its stages
//! are engaged from the beginning, or never.

mod cookie;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    answer,
    config::{Config, Service},
    ip::{Packet, TCP},
    outcome::{Outcome, part, reason},
    state::State,
    transport::{Flow, Sound},
};

pub use cookie::Cookies;

/// What a service wants of those who open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// So many connections of a source; none = no limit.
    pub of_source: Option<u64>,
    /// So many of all together.
    pub of_all: Option<u64>,
    /// It has a SYN-flood stage, and that is engaged.
    pub stage: Option<bool>,
}

/// What is remembered of connections that were opened.
#[derive(Debug, Default)]
pub struct Opened {
    by_source: HashMap<(u32, IpAddr), u64>,
    by_service: HashMap<u32, u64>,
    proven: HashSet<IpAddr>,
}

impl Opened {
    /// Sources that have proven that they see what is sent to them.
    pub fn proven(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.proven.iter().copied()
    }

    /// Services, and sources that have opened connections to them.
    pub fn sources(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        self.by_source.keys().copied()
    }
}

/// Lets a packet in, or says what becomes of it.
pub fn check(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (flow, sound): (&Flow, &Sound),
    service: &Service,
) -> Result<(), Outcome> {
    let rules = &service.openings;
    // Whoever is refused new connections only has nothing to prove.
    let may_prove = sound.is_reset && rules.stage == Some(true) && !service.only_new;
    if *rules == Openings::default() || flow.protocol != TCP || !(sound.is_opening || may_prove) {
        return Ok(());
    }
    state.met(part::OPENING);
    let (source, number) = (source_of(flow.source), sound.numbers.0);
    let drop = |reason| Err(Outcome::dropped(reason, service.id));
    if may_prove {
        if !config.cookies.has(number, flow.source, flow.destination) {
            return Ok(());
        }
        state.openings.proven.insert(source);
        return drop(reason::SYN_PROOF);
    }
    if rules.stage == Some(true) {
        if !state.openings.proven.contains(&source) {
            let cookie = config.cookies.of(flow.source, flow.destination);
            return Err(match answer::challenge(packet, flow, cookie) {
                Some(frame) => Outcome::answered(frame, reason::SYN_CHALLENGE, service.id),
                None => Outcome::dropped(reason::SYN_UNPROVEN, service.id),
            });
        }
        state.met(part::VERIFIED);
    }
    if let Some(most) = rules.of_source {
        let opened = state.openings.by_source.entry((service.id, source)).or_default();
        // Who comes for the first time is let in.
        if *opened > 0 && *opened >= most {
            return drop(reason::SOURCE_RATE);
        }
        *opened += 1;
    }
    if let Some(most) = rules.of_all {
        let opened = state.openings.by_service.entry(service.id).or_default();
        if *opened >= most {
            return drop(reason::SERVICE_RATE);
        }
        *opened += 1;
    }
    state.met(part::OPENED);
    Ok(())
}

/// What counts as one source: an IPv4 address, or a /64 of IPv6, in which a host chooses its addresses.
fn source_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

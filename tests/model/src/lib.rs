//! The reference model: what lb does with a packet, in plain Rust, written from the specification and the RFCs for whoever
//! wants to read it, not for a verifier or for speed. It shares no code with lb and depends on nothing; the packet path is
//! compared with it, byte for byte.
//!
//! [`Model::judge`] takes a frame and says what becomes of it: the action, the frame that leaves, and what is counted. It is
//! the way of a packet from top to bottom; each step beside it is a module. Checksums are worked out over whole packets
//! ([`bytes`]), never by a difference of words.
//!
//! Its world is data ([`Config`]): services, owners of slots, next hops, routes. Out of the model: what time does
//! to pins, tracked flows, limits and stages, and the ways back that nat requests leave behind for replies without a next hop.

mod address;
mod answer;
pub mod bytes;
pub mod config;
mod counted;
mod error;
mod forward;
mod fragment;
pub mod fullnat;
pub mod generate;
mod gue;
mod hash;
mod ip;
mod local;
mod mss;
pub mod openings;
pub mod outcome;
pub mod quic;
mod reply;
mod siphash;
pub mod slots;
mod state;
mod tcp_options;
pub mod track;
pub mod transport;
mod vlan;

pub use config::Config;
pub use outcome::{Action, Counted, Outcome, part, reason};

use config::{Mode, Service};
use ip::Packet;
use slots::Segment;
use state::State;
use transport::Flow;

/// The model, and what it remembers from packet to packet.
#[derive(Debug)]
pub struct Model {
    config: Config,
    state: State,
}

/// Whether the rate limit of ICMP errors has room for another one: the model has no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It has.
    Open,
    /// It has not.
    Exhausted,
}

/// A decision that ends a packet's way.
type Ended = Outcome;

impl Model {
    /// A model that has seen no packet yet.
    pub fn new(config: Config) -> Self {
        Self { config, state: State::default() }
    }

    /// Its world.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Forgets all packets that it has seen.
    pub fn forget(&mut self) {
        self.state = State::default();
    }

    /// Pins, to be prepared.
    pub fn pins(&mut self) -> &mut slots::Pins {
        &mut self.state.pins
    }

    /// The flow of a packet that lb may give a port of its pool, and has to be asked for ([`Model::tell_port`]) before the packet
    /// is judged.
    pub fn flow_with_a_port(&self, frame: &[u8]) -> Option<Flow> {
        let packet = Packet::new(frame, ip::version_of(frame)?).ok()?;
        let flow = Flow::plain(&packet).or_else(|| fragment::first_flow(&packet))?;
        (self.config.service_of(&flow)?.mode == Mode::FullNat).then_some(flow)
    }

    /// The port that lb has for that flow, having seen the packet.
    pub fn tell_port(&mut self, port: Option<fullnat::Port>) {
        self.state.ports.told = port;
    }

    /// Flows of full nat that have a port, in a row that follows from them.
    pub fn translated(&self) -> Vec<generate::Translated> {
        self.state.ports.translated(&self.config)
    }

    /// Some seconds go by for flows of full nat, in which no packet comes.
    pub fn grow_old(&mut self) {
        self.state.ports.grow_old();
    }

    /// What of openings it has seen.
    pub fn opened(&mut self) -> &mut openings::Opened {
        &mut self.state.openings
    }

    /// How many connections it has counted that are still there.
    pub fn connections(&self) -> usize {
        self.state.connections.count()
    }

    /// What it remembers of tracked flows.
    pub fn tracked(&self) -> &track::Tracked {
        &self.state.tracked
    }

    /// The epoch that cookies are of from now on.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.config.cookies.epoch = epoch;
    }

    /// What becomes of a frame (at least 14 bytes).
    pub fn judge(&mut self, frame: &[u8], limit: Limit) -> Outcome {
        let outcome = self.judge_any(frame, limit);
        self.state.concluded(outcome)
    }

    fn judge_any(&mut self, frame: &[u8], limit: Limit) -> Outcome {
        match vlan::tags(frame).filter(|_| self.config.takes_tagged) {
            Some(tags) => {
                let untagged = vlan::without(frame, &tags);
                vlan::with(self.judge_untagged(&untagged, limit), &tags)
            }
            None => self.judge_untagged(frame, limit),
        }
    }

    fn judge_untagged(&mut self, frame: &[u8], limit: Limit) -> Outcome {
        // Group frames and other protocols are the host's (B08, B09).
        if frame[0] & 1 != 0 {
            return Outcome::passed(frame, reason::PASSED);
        }
        let Some(is_v6) = ip::version_of(frame) else {
            return Outcome::passed(frame, reason::PASSED);
        };
        let packet = match Packet::new(frame, is_v6) {
            Ok(packet) => packet,
            Err(reason) => return Outcome::dropped(reason, 0),
        };
        let (config, state) = (&self.config, &mut self.state);
        if let Some(flow) = Flow::plain(&packet)
            && let Some(service) = config.service_of(&flow)
        {
            return for_service(config, state, &packet, &flow, service, limit);
        }
        if packet.is_v6 && address::is_mapped(packet.destination()) {
            return Outcome::dropped(reason::MARTIAN, 0);
        }
        let to = packet.destination();
        if let Some(vip) = config.vip(to) {
            return local::for_vip(config, state, &packet, vip);
        }
        if let Some(address) = config.pool.find(to) {
            return fullnat::to_pool(config, state, &packet, address, limit);
        }
        if config.hosts.contains(&to) {
            return Outcome::passed(frame, reason::PASSED);
        }
        reply::packet(config, state, &packet, limit)
    }
}

/// A whole TCP or UDP packet to a service.
fn for_service(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    flow: &Flow,
    service: &Service,
    limit: Limit,
) -> Outcome {
    match admit_and_forward(config, state, packet, flow, service, limit) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

fn admit_and_forward(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    flow: &Flow,
    service: &Service,
    limit: Limit,
) -> Result<Outcome, Ended> {
    let drop = |reason| Outcome::dropped(reason, service.id);
    let sound = transport::examine(packet, flow).map_err(drop)?;
    let segment = match (&service.quic, sound.numbers) {
        (Some(_), _) => quic::segment(packet),
        (None, (sequence, _)) if sound.is_opening => Segment::Opening(sequence),
        (None, (sequence, acknowledgement)) => Segment::Other(sequence, acknowledgement),
    };
    let is_opening = matches!(segment, Segment::Opening(_));
    if address::is_martian(flow.source, flow.destination) {
        return Err(drop(reason::MARTIAN));
    }
    if packet.has_source_route() {
        return Err(drop(reason::SOURCE_ROUTE));
    }
    service.check_lists(flow.source).map_err(drop)?;
    let is_met = !service.only_new || is_opening;
    if is_met && service.refuses == Some(config::Refusal::Reject) {
        return Err(answer::refusal(packet, flow, service.id, limit));
    }
    if is_met && service.refuses == Some(config::Refusal::Drop) {
        return Err(drop(reason::NO_BACKEND));
    }
    openings::check(config, state, packet, (flow, &sound), service)?;
    let offers = mss::of_syn(state, packet, &sound, service);
    let packet = &offers.as_ref().map_or(*packet, |frame| packet.with(frame));
    if packet.hop_limit() <= 1 {
        let about = answer::About::request(packet, service.id);
        return Err(answer::time_exceeded(&about, limit));
    }
    if service.mode == Mode::FullNat {
        return fullnat::request(config, state, packet, (flow, &sound), service, limit);
    }
    let named = service.quic.as_ref();
    let named = named.and_then(|ids| quic::named_backend(state, service, ids, packet));
    let backend = match named {
        Some(backend) => backend,
        None => track::backend_of(state, service, flow, &sound)
            .or_else(|| slots::backend_of(config, state, service, flow, (segment, sound.tail())))
            .ok_or_else(|| drop(reason::NO_BACKEND))?,
    };
    let backend = &service.backends[backend];
    counted::request(state, service, flow, &sound);
    let what = forward::What::Flow { flow, is_opening };
    forward::packet(config, state, packet, what, service, backend).map_err(
        |refused| match refused {
            forward::Refused::Dropped(reason) => drop(reason),
            forward::Refused::TooBig(mtu) => {
                let about = answer::About::request(packet, service.id);
                answer::too_big(&about, mtu, limit)
            }
        },
    )
}

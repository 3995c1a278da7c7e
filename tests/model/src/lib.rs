//! The reference model: what lb does with a packet, in plain Rust, written from the specification and the RFCs for whoever
//! wants to read it, not for a verifier or for speed. It shares no code with lb and depends on nothing; the packet path is
//! compared with it, byte for byte.
//!
//! [`Model::judge`] takes a frame and says what becomes of it: the action, the frame that leaves, and what is counted. It is
//! the way of a packet from top to bottom; each step beside it is a module. Checksums are worked out over whole packets
//! ([`bytes`]), never by a difference of words.
//!
//! Its world is data ([`Config`]): services, owners of slots, next hops, routes. Out of the model: slots that change (pins),
//! tracked flows, limits of openings, the SYN-flood stage, and the ways back that nat requests leave behind for replies
//! without a next hop.

mod address;
mod answer;
pub mod bytes;
pub mod config;
mod error;
mod forward;
mod fragment;
pub mod generate;
mod hash;
mod ip;
mod local;
pub mod outcome;
mod reply;
mod transport;
mod vlan;

pub use config::Config;
pub use outcome::{Action, Counted, Outcome, reason};

use config::Service;
use fragment::Memory;
use ip::Packet;
use transport::Flow;

/// The model, and what it remembers from packet to packet.
#[derive(Debug)]
pub struct Model {
    config: Config,
    fragments: Memory,
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
        Self { config, fragments: Memory::default() }
    }

    /// Its world.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Forgets all fragments.
    pub fn forget(&mut self) {
        self.fragments = Memory::default();
    }

    /// What becomes of a frame (at least 14 bytes).
    pub fn judge(&mut self, frame: &[u8], limit: Limit) -> Outcome {
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
        if let Some(flow) = Flow::plain(&packet)
            && let Some(service) = self.config.service_of(&flow)
        {
            return self.for_service(&packet, &flow, service, limit);
        }
        if packet.is_v6 && address::is_mapped(packet.destination()) {
            return Outcome::dropped(reason::MARTIAN, 0);
        }
        let vip = self.config.vip(packet.destination());
        match vip {
            Some(vip) => local::for_vip(&self.config, &mut self.fragments, &packet, vip),
            None if self.config.hosts.contains(&packet.destination()) => {
                Outcome::passed(frame, reason::PASSED)
            }
            None => reply::packet(&self.config, &mut self.fragments, &packet, limit),
        }
    }

    /// A whole TCP or UDP packet to a service.
    fn for_service(
        &self,
        packet: &Packet<'_>,
        flow: &Flow,
        service: &Service,
        limit: Limit,
    ) -> Outcome {
        match self.admit_and_forward(packet, flow, service, limit) {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    fn admit_and_forward(
        &self,
        packet: &Packet<'_>,
        flow: &Flow,
        service: &Service,
        limit: Limit,
    ) -> Result<Outcome, Ended> {
        let drop = |reason| Outcome::dropped(reason, service.id);
        let sound = transport::examine(packet, flow).map_err(drop)?;
        if address::is_martian(flow.source, flow.destination) {
            return Err(drop(reason::MARTIAN));
        }
        if packet.has_source_route() {
            return Err(drop(reason::SOURCE_ROUTE));
        }
        service.check_lists(flow.source).map_err(drop)?;
        let is_met = !service.only_new || sound.is_opening;
        if is_met && service.refuses == Some(config::Refusal::Reject) {
            return Err(answer::refusal(packet, flow, service.id, limit));
        }
        if is_met && service.refuses == Some(config::Refusal::Drop) {
            return Err(drop(reason::NO_BACKEND));
        }
        if packet.hop_limit() <= 1 {
            let about = answer::About::request(packet, service.id);
            return Err(answer::time_exceeded(&about, limit));
        }
        let backend = service.backend_of(flow).ok_or_else(|| drop(reason::NO_BACKEND))?;
        let what = forward::What::Flow { flow, is_opening: sound.is_opening };
        forward::packet(&self.config, packet, what, service, backend).map_err(|refused| {
            match refused {
                forward::Refused::Dropped(reason) => drop(reason),
                forward::Refused::TooBig(mtu) => {
                    let about = answer::About::request(packet, service.id);
                    answer::too_big(&about, mtu, limit)
                }
            }
        })
    }
}

//! Packets of flows that full nat has given a port: backends' packets, and errors about them in both directions; and what only
//! looks like that.

use std::net::IpAddr;

use super::{Random, build::Draft, kinds::World};

/// Address and port.
type End = (IpAddr, u16);

/// A flow that has a port of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translated {
    /// The pool's address and the port.
    pub pool: End,
    /// Where its client is.
    pub client: End,
    /// Where its client sends to.
    pub vip: End,
    /// Where its packets go.
    pub backend: End,
    /// 6 or 17.
    pub protocol: u8,
}

impl World<'_> {
    /// A packet of one of these flows.
    pub(super) fn translated(&mut self, flows: &[Translated]) -> Draft {
        let kind = self.random.below(12);
        // Fragments are of few, so that they meet.
        let many = if kind < 10 { flows.len() } else { flows.len().min(4) };
        let mut flow = flows[self.random.index(many)];
        let end = (flow.vip.0, flow.vip.1, flow.protocol);
        let services = self.config.services();
        self.in_hand =
            services.iter().find(|service| (service.vip, service.port, service.protocol) == end);
        // Of one end something is wrong, at times.
        match self.random.below(24) {
            0 => flow.pool.1 ^= 1,
            1 => flow.backend.1 ^= 1,
            2 => flow.backend.0 = self.client(flow.backend.0),
            3 => flow.protocol = if flow.protocol == 6 { 17 } else { 6 },
            4 => flow.client.1 ^= 1,
            _ => {}
        }
        match kind {
            0..=3 => self.of_backend(&flow),
            4..=5 => {
                let ends = (flow.pool.0, flow.backend.0);
                self.error(ends, (flow.pool.1, flow.backend.1), flow.protocol)
            }
            6 => {
                let ends = (flow.vip.0, flow.client.0);
                self.error(ends, (flow.vip.1, flow.client.1), flow.protocol)
            }
            7..=9 => self.of_client(&flow),
            _ => {
                let is_reply = self.random.one_in(2);
                let mut draft =
                    if is_reply { self.of_backend(&flow) } else { self.of_client(&flow) };
                self.fragmented(&mut draft);
                draft
            }
        }
    }

    fn of_backend(&mut self, flow: &Translated) -> Draft {
        let ends = (flow.backend.0, flow.pool.0);
        let body = self.transport(flow.protocol, ends, (flow.backend.1, flow.pool.1));
        self.draft(ends, flow.protocol, body)
    }

    fn of_client(&mut self, flow: &Translated) -> Draft {
        let ends = (flow.client.0, flow.vip.0);
        let body = self.transport(flow.protocol, ends, (flow.client.1, flow.vip.1));
        self.draft(ends, flow.protocol, body)
    }
}

/// One of them, for a packet in so many.
pub fn wanted(flows: &[Translated], random: &mut Random) -> bool {
    !flows.is_empty() && random.one_in(2)
}

//! Few flows that come again and again, with sequence numbers of few handshakes: for services that remember something of them.

use std::net::IpAddr;

use super::Random;
use crate::{
    config::{Config, Mode, Service},
    openings::Openings,
    slots::{Phase, Pin},
    transport::Flow,
};

const FIRST_PORT: u16 = 40_000;

/// Sequence numbers of SYNs: clients' and backends'.
const CLIENTS: [u32; 3] = [7_000, 0xffff_fff0, 9_000_000];
const BACKENDS: [u32; 3] = [50_000, 0xffff_ffff, 1];

impl Service {
    /// Whether its clients are few, and how many ports each of them has.
    pub(super) fn few_ports(&self) -> Option<u16> {
        let changes = || self.ring.iter().take(8).any(|slot| slot.phase != Phase::Settled);
        match self.mode {
            // More flows than the pool has ports.
            Mode::FullNat => Some(16),
            _ if self.track.is_some() || self.counts => Some(3),
            _ if self.openings != Openings::default() => Some(1_024),
            _ => changes().then_some(8),
        }
    }
}

/// A client's port.
pub fn port(random: &mut Random, ports: u16) -> u16 {
    FIRST_PORT + random.below(u64::from(ports)) as u16
}

/// A sequence or acknowledgement number: that of a SYN, or one that follows it, or one too far away.
pub fn number(random: &mut Random) -> u32 {
    let of = if random.one_in(2) { CLIENTS } else { BACKENDS };
    random.pick(&of).wrapping_add(random.pick(&[0, 0, 1, 1, 1, 1, 65_535, 65_536]))
}

/// A pin that is there before the first packet.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its flow.
    pub flow: Flow,
    /// The service's number.
    pub service: u32,
    /// The number of the pin's backend.
    pub backend: u32,
    /// It is in the table of those whose handshake is complete.
    pub is_confirmed: bool,
    /// The pin.
    pub pin: Pin,
}

/// Pins of some of the flows of services whose slots change, as many as have room.
pub fn pins(config: &Config, clients: &[IpAddr], random: &mut Random) -> Vec<Prepared> {
    let mut prepared = Vec::new();
    let changes = |service: &&Service| {
        let is_of_pins = service.track.is_none() && service.openings == Openings::default();
        service.mode != Mode::FullNat && is_of_pins
    };
    for service in config.services().iter().filter(changes) {
        let Some(ports) = service.few_ports() else { continue };
        let clients = clients.iter().filter(|client| client.is_ipv4() == service.vip.is_ipv4());
        for client in clients {
            for port in FIRST_PORT..FIRST_PORT + ports {
                let flow = Flow {
                    source: *client,
                    destination: service.vip,
                    source_port: port,
                    destination_port: service.port,
                    protocol: service.protocol,
                };
                for is_confirmed in [false, true] {
                    if random.one_in(3) {
                        prepared.push(pin(service, flow, is_confirmed, random));
                    }
                }
            }
        }
    }
    let mut left = [config.most_pins; 2];
    prepared.retain(|pin| {
        let left = &mut left[usize::from(pin.is_confirmed)];
        let has_room = *left > 0;
        *left = left.saturating_sub(1);
        has_room
    });
    prepared
}

fn pin(service: &Service, flow: Flow, is_confirmed: bool, random: &mut Random) -> Prepared {
    let backend = random.index(service.backends.len());
    let mut sometimes = |of: [u32; 3]| random.one_in(2).then(|| random.pick(&of));
    let (second, server) = (sometimes(CLIENTS), sometimes(BACKENDS));
    let client = if service.quic.is_some() { 0 } else { random.pick(&CLIENTS) };
    let is_old = !is_confirmed && random.one_in(4);
    let second = second.filter(|_| !is_confirmed);
    Prepared {
        flow,
        service: service.id,
        backend: service.backends[backend].id,
        is_confirmed,
        pin: Pin { backend, client, second, server, is_old, closing: None, promoted: false },
    }
}

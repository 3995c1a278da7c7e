//! The clients of a history: what they send, and what they hold the rule to.

use lb_common::{
    abi::{BackendId, Phase, pin_flag},
    select::{HANDSHAKE_WINDOW, Segment, note_syn_ack},
};
use rand::Rng;

use super::world::{CLIENTS, CLOSING_IDLE, HZ, IDLE, Way, World};

/// One tuple: at most one flow at a time.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where its initial sequence numbers begin (RFC 6528: a secret number plus a clock of 4 us).
    secret: u32,
    flow: Option<Live>,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    /// Who got the SYN.
    backend: BackendId,
    /// When that was, jiffies.
    opened: u64,
    isn: u32,
    /// Next sequence number.
    sequence: u32,
    stage: Stage,
    /// When it sends next, jiffies.
    next: u64,
    /// When it begins to close.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The SYN is sent; `answered` if it has reached its backend.
    Opening { answered: bool },
    /// The handshake has completed.
    Open,
    /// A FIN is sent; so many more ACKs will follow.
    Closing { more: u32 },
}

impl Client {
    pub fn new(secret: u32) -> Self {
        Self { secret, flow: None }
    }
}

impl World {
    /// Everything that clients send in this step.
    pub fn packets(&mut self) {
        for service in 0..self.services.len() {
            for client in 0..CLIENTS {
                let flow = self.clients[service][client as usize].flow;
                match flow {
                    None if self.chance(0.02) => self.open(service, client),
                    Some(flow) if flow.next <= self.now => self.proceed(service, client, flow),
                    _ => {}
                }
            }
            self.forge(service);
        }
    }

    /// Packets that no client sent, or that nobody waits for.
    fn forge(&mut self, service: usize) {
        if self.chance(0.05) {
            let isn = self.random.random();
            let client = self.random.random_range(0..CLIENTS);
            // Not promised: of more than two SYNs in a few seconds, the pin of a tuple knows the first and the last.
            let pin = self.tables.unconfirmed.get(&(service, client));
            let third = pin.is_some_and(|pin| pin.flags & pin_flag::SECOND_ISN != 0);
            // Nor: a forger who guesses the flow's sequence number (one in 65,536) passes for its client.
            let live = self.clients[service][client as usize].flow;
            let guessed =
                live.is_some_and(|flow| flow.sequence.wrapping_sub(isn) <= HANDSHAKE_WINDOW);
            if !third && !guessed {
                self.route(service, client, &Segment::Opening { isn });
            }
        }
        if self.chance(0.05) {
            let segment = Segment::Other {
                sequence: self.random.random(),
                acknowledgement: self.random.random(),
                length: 0,
                closing: false,
            };
            let client = self.random.random_range(0..2 * CLIENTS);
            self.route(service, client, &segment);
        }
    }

    fn open(&mut self, service: usize, client: u32) {
        let clock = (self.now * 1_000_000 / HZ / 4) as u32;
        let isn = self.clients[service][client as usize].secret.wrapping_add(clock);
        self.clients[service][client as usize].flow = None;
        let Some((backend, answered)) = self.syn(service, client, isn) else {
            return;
        };
        let life = [1, 30, 200, 2000][self.random.random_range(0..4)];
        self.clients[service][client as usize].flow = Some(Live {
            backend,
            opened: self.now,
            isn,
            sequence: isn.wrapping_add(1),
            stage: Stage::Opening { answered },
            next: self.now + self.random.random_range(1..4 * HZ),
            end: self.now + life * HZ,
        });
    }

    /// Sends a SYN; who got it, and whether it was answered. `None`: nobody, or somebody of whom nothing is promised.
    fn syn(&mut self, service: usize, client: u32, isn: u32) -> Option<(BackendId, bool)> {
        let way = self.route(service, client, &Segment::Opening { isn });
        if way.backend == BackendId::NONE || self.down[way.backend.0 as usize] {
            return None;
        }
        // Not promised: a flow that could not be pinned while the backend was DOWN that it was to live with instead (that
        // of an earlier flow's pin, else the base). It opened at the owner, and moves once that backend is back.
        let earlier = self.tables.confirmed.get(&(service, client));
        let instead = earlier.map_or(way.base, |pin| pin.backend);
        if way.refused && (instead == BackendId::NONE || self.down[instead.0 as usize]) {
            return None;
        }
        let answered = self.chance(0.85);
        if answered && self.services[service].sees_replies {
            let pin = self.tables.unconfirmed.get_mut(&(service, client));
            if let Some(pin) = pin.filter(|pin| pin.backend == way.backend) {
                note_syn_ack(pin, server_isn(way.backend, isn), isn.wrapping_add(1));
            }
        }
        Some((way.backend, answered))
    }

    fn proceed(&mut self, service: usize, client: u32, flow: Live) {
        if let Stage::Opening { answered } = flow.stage
            && (!answered || self.chance(0.1))
        {
            return self.retransmit(service, client, flow, answered);
        }
        let mut flow = flow;
        let mut length = [0, 0, 1, 700, 14_600][self.random.random_range(0..5)];
        let mut closing = false;
        match flow.stage {
            Stage::Closing { .. } => length = 0,
            Stage::Open if self.now >= flow.end => {
                (length, closing) = (length + 1, true);
            }
            _ => {}
        }
        let acknowledgement =
            server_isn(flow.backend, flow.isn).wrapping_add(self.random.random_range(1..30_000));
        let segment = Segment::Other { sequence: flow.sequence, acknowledgement, length, closing };
        let way = self.route(service, client, &segment);
        if !self.check(service, client, &flow, way) {
            self.clients[service][client as usize].flow = None;
            return;
        }
        flow.sequence = flow.sequence.wrapping_add(length);
        let mut silence = [HZ / 10, 2 * HZ, 20 * HZ, IDLE * HZ][self.random.random_range(0..4)];
        flow.stage = match flow.stage {
            Stage::Opening { .. } => {
                self.late_syn(service, client, &flow);
                Stage::Open
            }
            Stage::Open if closing => Stage::Closing { more: self.random.random_range(0..4) },
            Stage::Closing { more: 0 } => {
                self.clients[service][client as usize].flow = None;
                return;
            }
            Stage::Closing { more } => Stage::Closing { more: more - 1 },
            Stage::Open => Stage::Open,
        };
        if matches!(flow.stage, Stage::Closing { .. }) {
            silence = silence.min(CLOSING_IDLE * HZ);
        }
        // A step may come late: never silent for longer than the idle time.
        flow.next = self.now + self.random.random_range(0..=silence).saturating_sub(400);
        let slot = &mut self.clients[service][client as usize].flow;
        if slot.is_some() {
            *slot = Some(flow);
        }
    }

    /// The SYN again, or another one: the client has given up and begins anew.
    fn retransmit(&mut self, service: usize, client: u32, mut flow: Live, answered: bool) {
        if self.chance(0.2) {
            return self.open(service, client);
        }
        let again = self.syn(service, client, flow.isn);
        // Not promised: a handshake whose SYNs have reached two backends.
        let kept = again.filter(|(backend, _)| !answered || *backend == flow.backend);
        self.clients[service][client as usize].flow = kept.map(|(backend, now_answered)| {
            if !answered {
                (flow.backend, flow.opened) = (backend, self.now);
            }
            flow.stage = Stage::Opening { answered: answered || now_answered };
            flow.next = self.now + self.random.random_range(1..4 * HZ);
            flow
        });
    }

    /// A copy of the SYN that arrives after the handshake.
    fn late_syn(&mut self, service: usize, client: u32, flow: &Live) {
        if self.chance(0.1) {
            let way = self.route(service, client, &Segment::Opening { isn: flow.isn });
            // Not promised: as in `retransmit`. A flow that has a pin keeps its backend.
            let pinned = self.tables.confirmed.get(&(service, client));
            let own = pinned.is_some_and(|pin| pin.client_isn == flow.isn);
            if way.backend != flow.backend && !own {
                self.clients[service][client as usize].flow = None;
            }
        }
    }

    /// Holds a packet to the promise; false if its flow is over.
    fn check(&mut self, service: usize, client: u32, flow: &Live, way: Way) -> bool {
        if self.was_down(flow.backend, flow.opened) {
            return way.backend == flow.backend;
        }
        self.outcome.promised += 1;
        self.outcome.pinned_elsewhere +=
            (way.slot.phase() != Phase::Settled && way.slot.owner() != flow.backend) as u64;
        if way.backend != flow.backend {
            self.outcome.misdirected.push(format!(
                "at {} service {service} client {client}: {way:?} for {flow:?}\nconfirmed: {:?}\nunconfirmed: {:?}",
                self.now,
                self.tables.confirmed.get(&(service, client)),
                self.tables.unconfirmed.get(&(service, client)),
            ));
        }
        way.backend == flow.backend
    }
}

/// A server's initial sequence number for a client's.
fn server_isn(backend: BackendId, isn: u32) -> u32 {
    isn.wrapping_mul(0x85EB_CA6B).wrapping_add(backend.0.wrapping_mul(0xC2B2_AE35))
}

//! Packet tests as tables: one row a packet, what becomes of it, and what is counted.

use std::net::IpAddr;

use lb_common::abi::{Forward, Reason};

use super::{
    Delta, Kernel, action,
    bytes::tagged,
    packet::{Packet, hex},
    world::{CLIENT, NIC, World},
};

/// One row.
pub struct Case {
    /// What the row is about, in words.
    pub name: String,
    /// The frame that comes in.
    pub frame: Vec<u8>,
    /// What becomes of it.
    pub expected: Expected,
}

/// What becomes of a packet.
pub struct Expected {
    action: u32,
    /// The frame that leaves; `None` = whatever (dropped).
    frame: Option<Vec<u8>>,
    counted: Counted,
}

/// What is counted.
enum Counted {
    /// Exactly this.
    As(Delta),
    /// One packet under this reason and nothing else; at which service depends on how far the packet could be read.
    Somewhere(Reason),
}

impl Counted {
    fn is(&self, delta: &Delta) -> bool {
        match self {
            Self::As(expected) => expected == delta,
            Self::Somewhere(reason) => {
                delta.backends.is_empty() && delta.reasons.len() == 1 && delta.total(*reason) == 1
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::As(delta) => format!("{delta:?}"),
            Self::Somewhere(reason) => format!("[{} +1]", reason.name()),
        }
    }
}

impl Expected {
    /// Dropped, and counted once under this reason.
    pub fn dropped(service: u32, reason: Reason) -> Self {
        Self::of(action::DROP, None, Delta::reason(service, reason))
    }

    /// The same, at whichever service.
    pub fn dropped_somewhere(reason: Reason) -> Self {
        Self { action: action::DROP, frame: None, counted: Counted::Somewhere(reason) }
    }

    fn of(action: u32, frame: Option<Vec<u8>>, delta: Delta) -> Self {
        Self { action, frame, counted: Counted::As(delta) }
    }

    /// Left to the host, byte by byte as it came.
    pub fn passed(frame: &[u8]) -> Self {
        Self::passed_as(frame, Reason::Passed)
    }

    /// The same, counted under another reason.
    pub fn passed_as(frame: &[u8], reason: Reason) -> Self {
        Self::of(action::PASS, Some(frame.to_vec()), Delta::reason(0, reason))
    }

    /// Sent back as this frame.
    pub fn answered(frame: Vec<u8>, delta: Delta) -> Self {
        Self::of(action::TX, Some(frame), delta)
    }

    /// Sent to a backend (its id) as this frame.
    pub fn forwarded(packet: &Packet, backend: u32, is_opening: bool, frame: Vec<u8>) -> Self {
        Self::of(action::TX, Some(frame), Delta::request(backend, packet.length(), is_opening))
    }

    /// Counted differently.
    pub fn counted(mut self, delta: Delta) -> Self {
        self.counted = Counted::As(delta);
        self
    }

    /// Sent by another NIC.
    pub fn redirected(mut self) -> Self {
        self.action = action::REDIRECT;
        self
    }
}

impl Case {
    /// A row.
    pub fn new(name: impl Into<String>, frame: Vec<u8>, expected: Expected) -> Self {
        Self { name: name.into(), frame, expected }
    }

    /// A packet that leaves as it came.
    pub fn passes(name: impl Into<String>, frame: Vec<u8>) -> Self {
        let expected = Expected::passed(&frame);
        Self::new(name, frame, expected)
    }

    /// A packet that is dropped and counted.
    pub fn drops(name: impl Into<String>, frame: Vec<u8>, service: u32, reason: Reason) -> Self {
        Self::new(name, frame, Expected::dropped(service, reason))
    }

    /// The same, at whichever service.
    pub fn drops_somewhere(name: impl Into<String>, frame: Vec<u8>, reason: Reason) -> Self {
        Self::new(name, frame, Expected::dropped_somewhere(reason))
    }

    /// The same row, with VLAN tags on what comes and on what leaves.
    pub fn tagged(mut self, tags: &[[u8; 4]]) -> Self {
        self.name = format!("{} under {tags:x?}", self.name);
        self.frame = tagged(&self.frame, tags);
        self.expected.frame = self.expected.frame.map(|frame| tagged(&frame, tags));
        self
    }

    /// A packet that reaches backend `number` (from 0) of service `service` (from 1) of the world, as its mode says.
    pub fn forwards(
        name: impl Into<String>,
        world: &World,
        packet: &Packet,
        service: u32,
        number: usize,
    ) -> Self {
        let frame = expected_frame(world, packet, service, number);
        let backend = world.first_backend(service as usize - 1) + number as u32;
        let expected = Expected::forwarded(packet, backend, packet.is_opening(), frame);
        Self::new(name, packet.bytes(), expected)
    }
}

/// What a packet looks like on its way to a backend.
pub fn expected_frame(world: &World, packet: &Packet, service: u32, number: usize) -> Vec<u8> {
    let service = &world.services[service as usize - 1];
    let backend = &service.backends[number];
    let packet = packet.clone().hop(NIC, backend.mac);
    match service.forward {
        Forward::Nat => {
            let port = if backend.port == 0 { packet.port() } else { backend.port };
            packet.destined(backend.address, port).bytes()
        }
        Forward::Dsr => packet.bytes(),
        Forward::Ipip => {
            let first: IpAddr = backend.source.expect("a tunnel has an outer source");
            let source = packet.source_of_flow(first, backend.source_bits);
            packet.tunnelled(source, backend.address).bytes()
        }
        Forward::FullNat => panic!("that depends on the port it was given"),
        Forward::Gue => {
            let source: IpAddr = backend.source.expect("a tunnel has an outer source");
            packet.in_gue(source, backend.address, backend.port).bytes()
        }
    }
}

/// What a nat reply looks like on its way to the client.
pub fn expected_reply(world: &World, reply: &Packet, service: u32) -> Vec<u8> {
    let service = &world.services[service as usize - 1];
    reply.clone().hop(NIC, CLIENT).sourced(service.vip, service.port).bytes()
}

/// Runs all rows, then fails with all that went wrong.
///
/// # Panics
/// If a row's packet met another fate.
pub fn check(kernel: &mut Kernel, cases: &[Case]) {
    assert!(!cases.is_empty(), "no cases");
    let failures: Vec<String> = cases.iter().filter_map(|case| failure(kernel, case)).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn failure(kernel: &mut Kernel, case: &Case) -> Option<String> {
    let (outcome, delta) = kernel.count(&case.frame);
    let expected = &case.expected;
    let mut wrong = Vec::new();
    if outcome.action != expected.action {
        wrong.push(format!("action {} instead of {}", outcome.action, expected.action));
    }
    if let Some(frame) = &expected.frame
        && *frame != outcome.frame
    {
        let at = frame.iter().zip(&outcome.frame).take_while(|(a, b)| a == b).count();
        wrong.push(format!(
            "frames differ from byte {at} on\n      in       {}\n      out      {}\n      expected {}",
            hex(&case.frame),
            hex(&outcome.frame),
            hex(frame)
        ));
    }
    if !expected.counted.is(&delta) {
        wrong.push(format!("counted {delta:?} instead of {}", expected.counted.text()));
    }
    if wrong.is_empty() { None } else { Some(format!("  {}: {}", case.name, wrong.join("; "))) }
}

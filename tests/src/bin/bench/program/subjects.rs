//! Every stream that is measured: mode, state and number of flows.

use lb_common::abi::{Forward, Phase, service_flag};
use lb_tests::kernel::{
    World, action,
    lab::{Stream, Varied},
    packet::{Packet, flag},
    world::{GUE_MODES, MODES, Service},
};

use super::{
    fullnat,
    quiet::{Kept, Turns},
    worlds::{
        self, BACKENDS, DENY_FLOWS, GUARDED_DIGIT, GUARDS, Guard, backend, datagram, error, reply,
        request, stranger, vip,
    },
};

/// Numbers of the programs that are called.
pub mod program {
    /// The bare MAC swap.
    pub const FLOOR: u32 = 0;
    /// The balancer.
    pub const BALANCER: u32 = 1;
    /// The flow table.
    pub const COMPARE: u32 = 2;
    /// The balancer with services that do not let everybody in.
    pub const GUARDED: u32 = 3;
    /// With services that use gue.
    pub const GUE: u32 = 4;
    /// With slots that are not settled.
    pub const CHANGING: u32 = 5;
    /// With services that remember every flow.
    pub const TRACKED: u32 = 6;
    /// With services of QUIC.
    pub const QUIC: u32 = 7;
    /// With a service of full nat for IPv4, whose pool is as large as one can be.
    pub const FULLNAT4: u32 = 8;
    /// The same of IPv6.
    pub const FULLNAT6: u32 = 9;
    /// As the first one, and its servers are told the clients' addresses.
    pub const FULLNAT4_TOA: u32 = 10;
}

/// Digit of the first service that uses gue.
pub const GUE_DIGIT: u8 = 41;
/// Digit of the first service whose slots change.
const CHANGING_DIGIT: u8 = 61;
/// Digit of the service that remembers every flow.
pub const TRACKED_DIGIT: u8 = 81;
/// Digit of the service of QUIC.
const QUIC_DIGIT: u8 = 82;

/// Flows as rows name them.
pub const FLOWS: [(u32, &str); 5] =
    [(1, "1"), (1 << 10, "1Ki"), (1 << 16, "64Ki"), (1 << 20, "1Mi"), (10 << 20, "10Mi")];
/// Where a pin is for each flow.
const PINNED_FLOWS: [(u32, &str); 3] = [(1, "1"), (1 << 10, "1Ki"), (1 << 16, "64Ki")];
/// The phases of slots.
pub const PHASES: [(&str, Phase); 3] =
    [("window", Phase::Window), ("harvest", Phase::Harvest), ("pinned", Phase::Pinned)];
/// Whose slots change: name, mode, whether IPv4.
const CHANGING: [(&str, Forward, bool); 4] = [
    ("nat4", Forward::Nat, true),
    ("dsr4", Forward::Dsr, true),
    ("tunnel-ipip4", Forward::Ipip, true),
    ("tunnel-ipip6", Forward::Ipip, false),
];

/// A row before and while it is measured.
pub struct Subject {
    pub mode: &'static str,
    pub state: &'static str,
    pub flows: &'static str,
    pub program: u32,
    /// Bytes that it puts in front.
    pub moved: u32,
    pub expected: u32,
    /// Something is remembered of each flow.
    pub remembers: bool,
    pub stream: Stream,
    /// What goes before it, once.
    pub opening: Option<Stream>,
    /// Packets of a round, if not as many as of other rows.
    pub packets: Option<u32>,
    pub turns: Turns,
    /// What of them counts.
    pub kept: Kept,
}

impl Subject {
    /// As rows have it.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.mode, self.state, self.flows)
    }
}

/// What a program makes of a packet.
#[derive(Clone, Copy)]
pub struct Way {
    program: u32,
    moved: u32,
    expected: u32,
}

impl Way {
    pub fn tx(program: u32, moved: u32) -> Self {
        Self { program, moved, expected: action::TX }
    }
}

/// A row that has not been measured.
pub fn subject(
    (mode, state, flows): (&'static str, &'static str, &'static str),
    way: Way,
    stream: Stream,
) -> Subject {
    Subject {
        mode,
        state,
        flows,
        program: way.program,
        moved: way.moved,
        expected: way.expected,
        remembers: way.program == program::COMPARE,
        stream,
        opening: None,
        packets: None,
        turns: Turns::default(),
        kept: Kept::default(),
    }
}

/// All of them; of the less interesting with `quick` some only.
pub fn all(quick: bool) -> Vec<Subject> {
    let mut subjects = Vec::new();
    steady(quick, &mut subjects);
    guarded(&mut subjects);
    changing(quick, &mut subjects);
    tracked(&mut subjects);
    quic(&mut subjects);
    fullnat::subjects(&mut subjects);
    others(quick, &mut subjects);
    compared(&mut subjects);
    subjects
}

/// Bytes that a mode puts in front.
pub fn overhead(forward: Forward, backend_is_v4: bool) -> u32 {
    match (forward, backend_is_v4) {
        (Forward::Ipip, true) => 20,
        (Forward::Ipip, false) => 40,
        (Forward::Gue, true) => 32,
        (Forward::Gue, false) => 52,
        (Forward::Nat | Forward::Dsr | Forward::FullNat, _) => 0,
    }
}

/// Each mode with slots that are settled.
fn steady(quick: bool, subjects: &mut Vec<Subject>) {
    let numbered = |first: u8| move |(index, mode)| (index as u8 + first, mode);
    let plain = MODES.into_iter().enumerate().map(numbered(1));
    let gue = GUE_MODES.into_iter().enumerate().map(numbered(GUE_DIGIT));
    for (digit, (mode, forward, is_v4, backend_is_v4)) in plain.chain(gue) {
        let program = if forward == Forward::Gue { program::GUE } else { program::BALANCER };
        let way = Way::tx(program, overhead(forward, backend_is_v4));
        let vip = vip(is_v4, digit);
        let syn = request(is_v4, &vip, flag::SYN);
        let established = request(is_v4, &vip, flag::ACK);
        let varied = Varied::Source;
        for (flows, text) in FLOWS {
            let mut add = |state, stream| subjects.push(subject((mode, state, text), way, stream));
            add("established", Stream::new(&established, varied, flows));
            add("syn", Stream::new(&syn, varied, flows));
            if quick && flows != 1 << 10 {
                continue;
            }
            if is_v4 {
                add("icmp-error", Stream::quoting(&error(true, &vip), flows));
            } else {
                add("icmp-error", Stream::quoting6(&error(false, &vip), flows));
            }
            let fragments = datagram(is_v4, &vip).filled(64);
            add("fragment", Stream::of_fragments(&fragments, flows));
        }
        if forward == Forward::Nat {
            let packet = reply(&backend(backend_is_v4, digit, 7));
            let mode = if is_v4 { "nat4-reply" } else { "nat6-reply" };
            for (flows, text) in FLOWS {
                let stream = Stream::new(&packet, Varied::Destination, flows);
                subjects.push(subject((mode, "established", text), way, stream));
            }
        }
    }
    let (vip, flows) = (vip(true, 5), 1 << 20);
    let established = request(true, &vip, flag::ACK);
    let stream = Stream::new(&established, Varied::Source, flows);
    let name = ("tunnel-ipip4", "syn-flood", "1Mi");
    subjects.push(subject(name, Way::tx(program::BALANCER, 20), flooded(stream, &vip)));
}

/// Of ten packets nine are SYNs that nobody has seen before.
fn flooded(stream: Stream, vip: &str) -> Stream {
    stream.flooded_by(&Stream::new(&stranger(vip), Varied::Source, 1 << 24), 230)
}

fn guarded(subjects: &mut Vec<Subject>) {
    let way = Way::tx(program::GUARDED, 0);
    for (index, (mode, guard)) in GUARDS.into_iter().enumerate() {
        let vip = vip(true, index as u8 + GUARDED_DIGIT);
        let mut add = |state, flags, (flows, text)| {
            let stream = Stream::new(&request(true, &vip, flags), Varied::Source, flows);
            subjects.push(subject((mode, state, text), way, stream));
        };
        for flows in FLOWS.into_iter().filter(|(flows, _)| *flows <= DENY_FLOWS) {
            add("established", flag::ACK, flows);
        }
        if !matches!(guard, Guard::Deny(_)) {
            FLOWS.into_iter().for_each(|flows| add("syn", flag::SYN, flows));
        }
    }
}

/// Services whose slots change: a row of phases for each mode.
pub fn changing_world() -> World {
    let mut services = Vec::new();
    let modes = CHANGING.into_iter().flat_map(|mode| PHASES.map(|_| mode));
    for (digit, (_, forward, is_v4)) in (CHANGING_DIGIT..).zip(modes) {
        let mut service = Service::new(&vip(is_v4, digit), forward, &[]);
        service.backends = (0..BACKENDS).map(|n| backend(is_v4, digit, n)).collect();
        services.push(service);
    }
    World::of(services)
}

fn changing(quick: bool, subjects: &mut Vec<Subject>) {
    let mut digit = CHANGING_DIGIT;
    for (mode, forward, is_v4) in CHANGING {
        for (phase, _) in PHASES {
            let way = Way::tx(program::CHANGING, overhead(forward, is_v4));
            let vip = vip(is_v4, digit);
            let (established, syn) = match phase {
                "window" => ("established-window", "syn-window"),
                "harvest" => ("established-harvest", "syn-harvest"),
                _ => ("established-pinned", "syn-pinned"),
            };
            for (flows, text) in PINNED_FLOWS.into_iter().filter(|(flows, _)| !quick || *flows > 1)
            {
                for (state, flags) in [(established, flag::ACK), (syn, flag::SYN)] {
                    let stream = Stream::new(&request(is_v4, &vip, flags), Varied::Source, flows);
                    let mut one = subject((mode, state, text), way, stream);
                    one.remembers = true;
                    subjects.push(one);
                }
            }
            digit += 1;
        }
    }
}

fn tracked(subjects: &mut Vec<Subject>) {
    let vip = vip(true, TRACKED_DIGIT);
    let way = Way::tx(program::TRACKED, 0);
    for (flows, text) in FLOWS.into_iter().filter(|(flows, _)| *flows <= 1 << 20) {
        let syn = Stream::new(&request(true, &vip, flag::SYN), Varied::Source, flows);
        let next = request(true, &vip, flag::ACK).with_tcp(|tcp| tcp.sequence += 1);
        let established = Stream::new(&next, Varied::Source, flows);
        for (state, stream, opening) in
            [("established", established, Some(syn.clone())), ("syn", syn, None)]
        {
            let mut one = subject(("track-always-dsr4", state, text), way, stream);
            (one.remembers, one.opening) = (true, opening);
            subjects.push(one);
        }
    }
}

/// A service of QUIC, whose backends' ids have no known form.
pub fn quic_world() -> World {
    let service = worlds::dsr(QUIC_DIGIT).udp().flags(service_flag::QUIC);
    World::of([service])
}

fn quic(subjects: &mut Vec<Subject>) {
    let vip = vip(true, QUIC_DIGIT);
    let way = Way::tx(program::QUIC, 0);
    let datagram = |payload: &[u8]| -> Packet { worlds::datagram(true, &vip).payload(payload) };
    // RFC 9000 17.2.2: version 1, ids of eight bytes, no token; and 17.3.1.
    let mut initial = vec![0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8];
    initial.extend([9, 8, 7, 6, 5, 4, 3, 2, 0, 0x44, 0x96]);
    initial.resize(1_200, 0x55);
    let mut short = vec![0x40, 1, 2, 3, 4, 5, 6, 7, 8];
    short.resize(60, 0x55);
    for (flows, text) in FLOWS {
        for (state, payload) in [("initial", &initial), ("short", &short)] {
            let stream = Stream::new(&datagram(payload), Varied::Source, flows);
            subjects.push(subject(("quic-dsr4", state, text), way, stream));
        }
    }
}

/// Nobody's packets.
fn others(quick: bool, subjects: &mut Vec<Subject>) {
    let way = Way { program: program::BALANCER, moved: 0, expected: action::PASS };
    for (mode, is_v4) in [("non-vip4", true), ("non-vip6", false)] {
        let vip = if is_v4 { "198.51.100.200" } else { "2001:db8:5::200" };
        for (flows, text) in FLOWS {
            let packet = request(is_v4, vip, flag::ACK);
            let stream = Stream::new(&packet, Varied::Source, flows);
            subjects.push(subject((mode, "established", text), way, stream));
            if !quick {
                let stream = Stream::new(&request(is_v4, vip, flag::SYN), Varied::Source, flows);
                subjects.push(subject((mode, "syn", text), way, stream));
            }
        }
    }
}

/// The flow table.
fn compared(subjects: &mut Vec<Subject>) {
    const MODE: &str = "compare-flow-table-ipip4";
    let (vip, way) = ("198.51.100.9", Way::tx(program::COMPARE, 20));
    // More than a CPU's part of the table are not remembered.
    for (flows, text) in FLOWS.into_iter().filter(|(flows, _)| *flows <= 1 << 20) {
        for (state, flags) in [("established", flag::ACK), ("syn", flag::SYN)] {
            let stream = Stream::new(&request(true, vip, flags), Varied::Source, flows);
            subjects.push(subject((MODE, state, text), way, stream));
        }
    }
    let established = request(true, vip, flag::ACK);
    let stream = Stream::new(&established, Varied::Source, 1 << 20);
    subjects.push(subject((MODE, "syn-flood", "1Mi"), way, flooded(stream, vip)));
}

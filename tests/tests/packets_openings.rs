//! Who may open a connection: limits of rate, and the challenge of the SYN-flood stage, packet by packet.

use std::sync::MutexGuard;

use lb_common::abi::{
    CookieKeys, Forward, OpeningRules, OpeningState, Reason, VerifiedSources, map, service_flag,
};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    packet::{Packet, flag},
    world::{CLIENT, NIC, Service},
};

/// SYNs in a window that engage the stage of these tests.
const ENGAGE: u32 = 10;
/// An hour: nothing is refilled while a test runs.
const NEVER: u64 = 3_600_000_000_000;
const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";

fn kernel() -> MutexGuard<'static, Kernel> {
    let mut kernel = Kernel::shared_with(Options { limit_openings: true, ..Options::default() });
    let keys = CookieKeys { current: 0, keys: [[0x1234, 0x5678], [0x9abc, 0xdef0]] };
    kernel.array::<CookieKeys>(map::COOKIE_KEYS).set(0, keys, 0).unwrap();
    kernel
}

fn service(vip: &str, forward: Forward) -> Service {
    Service::new(vip, forward, &[if vip.contains(':') { "fd01::1" } else { "10.1.0.1" }])
}

/// A service with a stage (1, or 2 for IPv6), and one without (3).
fn staged(kernel: &mut Kernel, forward: Forward) {
    let staged = |vip: &str| {
        let mut service = service(vip, forward).flags(service_flag::SYN_FLOOD);
        service.openings = OpeningRules { engage: ENGAGE, release: 5, ..OpeningRules::default() };
        service
    };
    let other = service(VIP_V4, forward).port(81);
    kernel.enter(World::of([staged(VIP_V4), staged(VIP_V6), other]));
}

fn vip(source: &str) -> &'static str {
    if source.contains(':') { VIP_V6 } else { VIP_V4 }
}

fn packet(source: &str, flags: u8) -> Packet {
    Packet::tcp(&format!("{source}@40001"), &format!("{}@80", vip(source)), flags)
}

/// Enough SYNs for the stage, even if a window ends among them.
fn flood(kernel: &Kernel, v6: bool) {
    for number in 0..3 * ENGAGE {
        let source = match v6 {
            true => format!("2001:db8:f:{number:x}::1"),
            false => format!("203.0.113.{number}"),
        };
        kernel.run(&packet(&source, flag::SYN).bytes());
    }
}

/// The challenge for a SYN, as an independent builder makes it, but for its acknowledgement number.
fn challenge(syn: &Packet, cookie: u32) -> Packet {
    let mut answer = syn.clone();
    (answer.from, answer.to) = (NIC, CLIENT);
    (answer.ip.source, answer.ip.destination) = (syn.ip.destination, syn.ip.source);
    (answer.ip.hop_limit, answer.ip.label, answer.ip.dont_fragment) = (64, 0, true);
    answer.ip.class &= !3;
    answer.ip.options.clear();
    answer.payload(&[]).trailer(&[]).with_tcp(|tcp| {
        (tcp.source, tcp.destination) = (tcp.destination, tcp.source);
        (tcp.sequence, tcp.acknowledgement) = (0, cookie);
        (tcp.flags, tcp.window) = (flag::SYN | flag::ACK, 0);
        tcp.options.clear();
    })
}

/// Runs a SYN that has to be challenged; the cookie.
#[track_caller]
fn challenged(kernel: &mut Kernel, service: u32, syn: &Packet) -> u32 {
    let (outcome, delta) = kernel.count(&syn.bytes());
    assert_eq!(outcome.action, action::TX, "{outcome:?} {delta:?}");
    assert_eq!(delta, Delta::reason(service, Reason::SynChallenge));
    let transport = if syn.ip.source.is_ipv4() { 34 } else { 54 };
    let number = outcome.frame[transport + 8..transport + 12].try_into().unwrap();
    let cookie = u32::from_be_bytes(number);
    let expected = challenge(syn, cookie).bytes();
    assert_eq!(outcome.frame, expected, "{outcome:?}");
    assert!(outcome.frame.len() <= syn.bytes().len(), "amplified");
    cookie
}

/// The reset by which a client refuses a challenge.
fn refusal(syn: &Packet, cookie: u32) -> Packet {
    let mut reset = syn.clone().payload(&[]);
    reset = reset.with_tcp(|tcp| {
        (tcp.sequence, tcp.acknowledgement, tcp.flags, tcp.window) = (cookie, 0, flag::RST, 0);
        tcp.options.clear();
    });
    reset
}

#[track_caller]
fn forwarded(kernel: &mut Kernel, packet: &Packet) {
    let (outcome, delta) = kernel.count(&packet.bytes());
    assert_eq!((outcome.action, delta.forwarded()), (action::TX, 1), "{outcome:?} {delta:?}");
}

#[test]
fn unknown_clients_are_challenged_and_those_who_answer_get_in() {
    let mut kernel = kernel();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        for (service, source, other) in
            [(1, "192.0.2.33", "192.0.2.34"), (2, "2001:db8:c::33", "2001:db8:d::33")]
        {
            staged(&mut kernel, forward);
            clear_verified(&mut kernel);
            let syn = packet(source, flag::SYN);
            forwarded(&mut kernel, &syn);
            flood(&kernel, service == 2);
            let cookie = challenged(&mut kernel, service, &syn);
            assert_eq!(challenged(&mut kernel, service, &syn), cookie, "nothing is remembered");
            // With options and data, as TCP Fast Open sends it; the answer has neither.
            let long = syn.clone().filled(100).with_tcp(|tcp| tcp.options = vec![2, 4, 5, 180]);
            assert_eq!(challenged(&mut kernel, service, &long), cookie);
            // Others' packets, and all but SYNs of this one, go on as ever.
            forwarded(&mut kernel, &packet(other, flag::ACK));
            forwarded(&mut kernel, &packet(source, flag::ACK | flag::PSH).filled(10));
            forwarded(&mut kernel, &packet(source, flag::FIN | flag::ACK));
            forwarded(&mut kernel, &packet(source, flag::SYN | flag::ACK));
            // Resets that prove nothing.
            forwarded(&mut kernel, &refusal(&syn, cookie ^ 4));
            forwarded(&mut kernel, &refusal(&packet(other, flag::SYN), cookie));
            challenged(&mut kernel, service, &syn);
            challenged(&mut kernel, service, &packet(other, flag::SYN));
            // The right one ends here, and its source is let in, from every port, and to every service.
            let (outcome, delta) = kernel.count(&refusal(&syn, cookie).bytes());
            assert_eq!(outcome.action, action::DROP);
            assert_eq!(delta, Delta::reason(service, Reason::SynProof));
            forwarded(&mut kernel, &syn);
            forwarded(&mut kernel, &syn.clone().with_tcp(|tcp| tcp.source = 50_000));
            challenged(&mut kernel, service, &packet(other, flag::SYN));
        }
    }
}

fn clear_verified(kernel: &mut Kernel) {
    let mut verified = kernel.array::<VerifiedSources>(map::VERIFIED);
    for index in 0..verified.len() {
        verified.set(index, VerifiedSources::default(), 0).unwrap();
    }
}

#[test]
fn one_services_flood_engages_no_others_stage() {
    let mut kernel = kernel();
    staged(&mut kernel, Forward::Nat);
    clear_verified(&mut kernel);
    flood(&kernel, false);
    challenged(&mut kernel, 1, &packet("192.0.2.50", flag::SYN));
    forwarded(&mut kernel, &packet("2001:db8:c::50", flag::SYN));
    let other = Packet::tcp("192.0.2.50@40001", &format!("{VIP_V4}@81"), flag::SYN);
    forwarded(&mut kernel, &other);
    let state: OpeningState = kernel.array(map::OPENING_STATES).get(&3, 0).unwrap();
    assert_eq!(state, OpeningState::default(), "who has no stage is not even counted");
}

#[test]
fn a_cookie_of_the_last_key_is_good_and_older_ones_are_not() {
    let mut kernel = kernel();
    staged(&mut kernel, Forward::Dsr);
    clear_verified(&mut kernel);
    flood(&kernel, false);
    let syn = packet("192.0.2.60", flag::SYN);
    let cookie = challenged(&mut kernel, 1, &syn);
    let mut keys: CookieKeys = kernel.array(map::COOKIE_KEYS).get(&0, 0).unwrap();
    (keys.keys[1], keys.current) = ([77, 78], 1);
    kernel.array(map::COOKIE_KEYS).set(0, keys, 0).unwrap();
    assert_ne!(challenged(&mut kernel, 1, &syn), cookie);
    let answer = refusal(&syn, cookie).bytes();
    assert_eq!(kernel.run(&answer).action, action::DROP, "the key before");
    clear_verified(&mut kernel);
    (keys.keys[0], keys.current) = ([79, 80], 0);
    kernel.array(map::COOKIE_KEYS).set(0, keys, 0).unwrap();
    forwarded(&mut kernel, &refusal(&syn, cookie));
    challenged(&mut kernel, 1, &syn);
}

#[test]
fn a_challenge_that_the_client_would_take_for_an_answer_is_not_sent() {
    let mut kernel = kernel();
    staged(&mut kernel, Forward::Nat);
    clear_verified(&mut kernel);
    flood(&kernel, false);
    let syn = packet("192.0.2.70", flag::SYN);
    let cookie = challenged(&mut kernel, 1, &syn);
    let unlucky = syn.with_tcp(|tcp| tcp.sequence = cookie.wrapping_sub(1));
    let (outcome, delta) = kernel.count(&unlucky.bytes());
    assert_eq!(outcome.action, action::DROP, "{outcome:?}");
    assert_eq!(delta, Delta::reason(1, Reason::SynUnproven));
}

/// A service with limits, in both families (1 and 2), and one more (3).
fn limited(kernel: &mut Kernel, rules: OpeningRules) {
    let limited = |vip: &str, port| {
        let mut service = service(vip, Forward::Nat).port(port).flags(service_flag::LIMIT_OPENINGS);
        service.openings = rules;
        service
    };
    kernel.enter(World::of([limited(VIP_V4, 80), limited(VIP_V6, 80), limited(VIP_V4, 81)]));
}

#[test]
fn a_service_gets_no_more_connections_than_its_limit() {
    let mut kernel = kernel();
    let rules = OpeningRules { interval: NEVER, burst: 5, ..OpeningRules::default() };
    limited(&mut kernel, rules);
    for number in 1..=5 {
        forwarded(&mut kernel, &packet(&format!("192.0.2.{number}"), flag::SYN));
    }
    for number in 1..=9 {
        let source = format!("192.0.2.{number}");
        let (outcome, delta) = kernel.count(&packet(&source, flag::SYN).bytes());
        assert_eq!(outcome.action, action::DROP);
        assert_eq!(delta, Delta::reason(1, Reason::ServiceRate));
        // What is open goes on.
        forwarded(&mut kernel, &packet(&source, flag::ACK));
        forwarded(&mut kernel, &packet(&source, flag::RST));
    }
    // Each service has a limit of its own.
    forwarded(&mut kernel, &packet("2001:db8:c::1", flag::SYN));
    let other = Packet::tcp("192.0.2.1@40001", &format!("{VIP_V4}@81"), flag::SYN);
    forwarded(&mut kernel, &other);
}

#[test]
fn a_client_gets_no_more_connections_than_its_limit() {
    let mut kernel = kernel();
    let rules = OpeningRules { source_interval: NEVER, source_burst: 3, ..OpeningRules::default() };
    limited(&mut kernel, rules);
    for (service, source, neighbour, stranger) in [
        (1, "192.0.2.90", "192.0.2.91", "192.0.2.92"),
        (2, "2001:db8:c::90", "2001:db8:c:1::90", "2001:db8:c:2::90"),
    ] {
        for number in 0..3 {
            let syn = packet(source, flag::SYN).with_tcp(|tcp| tcp.source = 1_000 + number);
            forwarded(&mut kernel, &syn);
        }
        forwarded(&mut kernel, &packet(neighbour, flag::SYN));
        let (outcome, delta) = kernel.count(&packet(source, flag::SYN).bytes());
        assert_eq!(outcome.action, action::DROP);
        assert_eq!(delta, Delta::reason(service, Reason::SourceRate));
        if service == 2 {
            // A host changes the lower half of its address at will.
            let (_, delta) = kernel.count(&packet("2001:db8:c::dead", flag::SYN).bytes());
            assert_eq!(delta, Delta::reason(service, Reason::SourceRate));
        }
        forwarded(&mut kernel, &packet(source, flag::ACK));
        forwarded(&mut kernel, &packet(stranger, flag::SYN));
    }
    let other = Packet::tcp("192.0.2.90@40001", &format!("{VIP_V4}@81"), flag::SYN);
    forwarded(&mut kernel, &other);
}

#[test]
fn who_is_over_his_own_limit_takes_nothing_of_the_services() {
    let mut kernel = kernel();
    let rules = OpeningRules {
        interval: NEVER,
        burst: 10,
        source_interval: NEVER,
        source_burst: 2,
        ..OpeningRules::default()
    };
    limited(&mut kernel, rules);
    for _ in 0..100 {
        kernel.run(&packet("192.0.2.1", flag::SYN).bytes());
    }
    for number in 2..=9 {
        forwarded(&mut kernel, &packet(&format!("192.0.2.{number}"), flag::SYN));
    }
    let (_, delta) = kernel.count(&packet("192.0.2.10", flag::SYN).bytes());
    assert_eq!(delta, Delta::reason(1, Reason::ServiceRate));
}

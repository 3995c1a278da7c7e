use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const IDLE: u16 = 7440;
const CLOSED: u16 = 120;
const FIN: u8 = tcp_flag::FIN | tcp_flag::ACK;

fn begun(protocol: u8) -> State {
    State::default().begun(protocol)
}

fn established() -> State {
    begun(protocol::TCP)
        .after_client(tcp_flag::SYN)
        .after_server(tcp_flag::SYN | tcp_flag::ACK)
        .after_client(tcp_flag::ACK)
}

#[test]
fn a_connection_has_the_time_that_its_state_deserves() {
    let syn = begun(protocol::TCP).after_client(tcp_flag::SYN);
    assert_eq!(syn.patience(IDLE, CLOSED), TRANSITORY_SECONDS);
    let answered = syn.after_server(tcp_flag::SYN | tcp_flag::ACK);
    assert_eq!(answered.patience(IDLE, CLOSED), TRANSITORY_SECONDS);
    assert!(!answered.is_established());
    let open = answered.after_client(tcp_flag::ACK);
    assert!(open.is_established());
    assert_eq!(open.patience(IDLE, CLOSED), IDLE.into());
    for half in [open.after_client(FIN), open.after_server(FIN)] {
        assert!(!half.is_closed());
        assert_eq!(half.patience(IDLE, CLOSED), TRANSITORY_SECONDS);
    }
    let both = open.after_client(FIN).after_server(FIN);
    assert!(both.is_closed());
    assert_eq!(both.patience(IDLE, CLOSED), CLOSED.into());
    for reset in [open.after_client(tcp_flag::RST), open.after_server(tcp_flag::RST)] {
        assert!(reset.is_closed());
        assert_eq!(reset.patience(IDLE, CLOSED), CLOSED.into());
    }
    // An acknowledgement before anybody has answered establishes nothing.
    assert!(!syn.after_client(tcp_flag::ACK).is_established());
}

#[test]
fn a_datagram_flow_knows_only_whether_it_was_answered() {
    let udp = begun(protocol::UDP);
    assert_eq!(udp.patience(300, CLOSED), 300);
    assert_eq!(udp.after_client(0), udp);
    assert!(udp.gives_way(6 * SECOND) && !udp.gives_way(4 * SECOND));
    assert!(!udp.after_server(0).gives_way(6 * SECOND));
    assert!(udp.after_server(0).is_established());
    // What would be flags of TCP means nothing.
    assert!(!udp.after_server(0xff).after_client(0xff).is_closed());
}

#[test]
fn a_port_is_free_when_its_time_is_over_and_not_before() {
    assert!(State::default().is_free(0, 0, 0), "never used");
    let open = established();
    let age = u64::from(IDLE) * SECOND;
    assert!(!open.is_free(age, IDLE, CLOSED));
    assert!(open.is_free(age + 1, IDLE, CLOSED));
    assert!(!open.gives_way(u64::MAX), "somebody has answered it");
    let writing = open.writing();
    assert!(!writing.is_used() && !writing.gives_way(u64::MAX));
    assert!(!writing.is_free(WRITING_SECONDS * SECOND, 0, 0));
    assert!(writing.is_free(WRITING_SECONDS * SECOND + 1, 0, 0));
    assert!(writing.given_up().is_free(0, IDLE, CLOSED));
    assert_eq!(writing.written(protocol::UDP).protocol(), protocol::UDP);
    assert!(writing.written(protocol::UDP).is_used());
    assert_ne!(writing.0 >> 32, open.0 >> 32, "a generation of its own");
    assert_eq!(writing.0 >> 32, writing.written(protocol::TCP).0 >> 32);
    assert_eq!(State(u64::MAX).writing().0 >> 32, 0, "generations go round");
}

#[test]
fn a_clock_that_is_behind_makes_nothing_old() {
    assert_eq!(age(10, 4), 6);
    assert_eq!(age(4, 10), 0);
    assert_eq!(age(u64::MAX, 0), 0);
}

#[test]
fn as_many_ports_as_there_are_attempts_are_all_found() {
    for hash in (0..u32::MAX).step_by(0x0123_4567) {
        let (first, last) = (2_000, 2_000 + PROBES / 2 - 1);
        let mut seen = HashSet::new();
        let mut probe = Probe::first(hash, 2, first, last);
        for _ in 0..PROBES {
            assert!(probe.address < 2 && (first..=last).contains(&probe.port), "{probe:?}");
            assert!(seen.insert((probe.address, probe.port)), "{probe:?} twice from {hash:#x}");
            probe = probe.next(2, first, last);
        }
        assert_eq!(seen.len(), PROBES as usize);
    }
}

#[test]
fn flows_begin_their_search_everywhere() {
    // 64 Ki flows over 64 Ki ports: as even as a hash is, no port begins more than a few searches.
    let mut begun = vec![0u32; 1 << 16];
    for flow in 0..1u32 << 16 {
        let hash = (u64::from(flow).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        begun[Probe::first(hash, 1, 1024, 65_535).port as usize] += 1;
    }
    let most = begun.iter().max().copied().unwrap_or(0);
    assert!(most < 40, "{most} searches begin at one port");
}

proptest! {
    /// Whatever comes in whatever order: flags only come, the protocol and the generation stay, and no state lets go of a
    /// port at once.
    #[test]
    fn no_packet_ends_a_flow_by_itself(
        is_tcp in any::<bool>(),
        packets in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..40),
    ) {
        let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
        let mut state = begun(protocol);
        let generation = state.0 >> 32;
        for (from_client, flags) in packets {
            let after = if from_client { state.after_client(flags) } else { state.after_server(flags) };
            prop_assert_eq!(after.0 & state.0, state.0, "a flag has gone");
            prop_assert_eq!(after.0 >> 32, generation);
            prop_assert_eq!(after.protocol(), protocol);
            prop_assert!(after.is_used());
            prop_assert!(!after.is_free(60 * SECOND, 60, 60));
            state = after;
        }
    }

    /// A search never leaves the pool, and never looks at a port twice before it has been round.
    #[test]
    fn a_search_goes_round_the_pool(
        hash in any::<u32>(),
        addresses in 1u32..64,
        first in 1024u32..65_535,
        length in 1u32..200,
    ) {
        let last = (first + length - 1).min(65_535);
        let all = addresses * (last - first + 1);
        let mut seen = HashSet::new();
        let mut probe = Probe::first(hash, addresses, first, last);
        for _ in 0..all {
            prop_assert!(probe.address < addresses && (first..=last).contains(&probe.port));
            prop_assert!(seen.insert((probe.address, probe.port)));
            probe = probe.next(addresses, first, last);
        }
        prop_assert_eq!(probe, Probe::first(hash, addresses, first, last));
    }
}

//! The table of modes, line by line, and what holds for whatever is said of backends.

use proptest::prelude::*;

use super::*;

fn up() -> Candidate {
    Candidate::default()
}

fn down() -> Candidate {
    Candidate { healthy: false, ..up() }
}

fn tier(tier: u8, candidate: Candidate) -> Candidate {
    Candidate { tier, ..candidate }
}

fn sorry() -> Candidate {
    Candidate { sorry: true, ..up() }
}

fn decided(rules: &Rules, candidates: &[Candidate]) -> Decision {
    decide(rules, candidates, Before::default())
}

/// Who is in the ring, by index.
fn members(decision: &Decision) -> Vec<usize> {
    let parts = decision.parts.iter().enumerate();
    parts.filter(|(_, part)| part.effective > 0).map(|(index, _)| index).collect()
}

/// Name, rules, backends, and who should be in the ring in which mode.
type Case<'a> = (&'a str, Rules, &'a [Candidate], Mode, &'a [usize]);

#[test]
fn each_line_of_the_table() {
    let plain = Rules::default();
    let quorum = |quorum| Rules { quorum, ..plain };
    let panic = |panic_threshold| Rules { panic_threshold, ..plain };
    let reject = Rules { on_all_down: OnAllDown::Reject, ..plain };
    let backup = |candidate| tier(1, candidate);
    let drained = Candidate { admin: Admin::Drain, ..up() };
    #[rustfmt::skip]
    let cases: &[Case<'_>] = &[
        ("all work", plain, &[up(), up()], Mode::Normal, &[0, 1]),
        ("one is DOWN", plain, &[up(), down()], Mode::Normal, &[0]),
        ("backups wait", plain, &[up(), backup(up())], Mode::Normal, &[0]),
        ("backups step in, all of a tier together", plain, &[down(), backup(up()), backup(up()), tier(2, up())], Mode::Backup(1), &[1, 2]),
        ("the second tier has nobody either", plain, &[down(), backup(down()), tier(2, up())], Mode::Backup(2), &[2]),
        ("tiers may have gaps", plain, &[down(), tier(7, up())], Mode::Backup(7), &[1]),
        ("no first tier at all", plain, &[tier(3, up())], Mode::Backup(3), &[0]),
        ("too few: the next tier joins", quorum(2), &[up(), down(), backup(up())], Mode::Backup(1), &[0, 2]),
        ("too few in all", quorum(3), &[up(), down(), backup(up())], Mode::UnderQuorum, &[0, 2]),
        ("too few, and a sorry backend", quorum(2), &[up(), down(), sorry()], Mode::Sorry, &[2]),
        ("nobody, and a sorry backend", plain, &[down(), down(), sorry()], Mode::Sorry, &[2]),
        ("backups come before the sorry backend", plain, &[down(), backup(up()), sorry()], Mode::Backup(1), &[1]),
        ("the sorry backend is drained", plain, &[down(), Candidate { admin: Admin::Drain, ..sorry() }], Mode::FailOpen, &[0]),
        ("all drained: the sorry backend", plain, &[drained, sorry()], Mode::Sorry, &[1]),
        ("panic", panic(50), &[up(), down(), down()], Mode::Panic, &[0, 1, 2]),
        ("just no panic", panic(50), &[up(), down()], Mode::Normal, &[0]),
        ("drained ones do not count", panic(50), &[up(), down(), Candidate { admin: Admin::Drain, ..down() }], Mode::Normal, &[0]),
        ("panic takes nobody in that is drained", panic(100), &[up(), down(), drained], Mode::Panic, &[0, 1]),
        ("a healthy next tier averts the panic", panic(50), &[up(), down(), down(), backup(up())], Mode::Backup(1), &[0, 3]),
        ("nobody is less than the threshold", Rules { panic_threshold: 50, ..reject }, &[down(), down()], Mode::Panic, &[0, 1]),
        ("nobody, sorry before panic", panic(50), &[down(), sorry()], Mode::Sorry, &[1]),
        ("fail open", plain, &[down(), backup(down()), drained], Mode::FailOpen, &[0, 1]),
        ("reject", reject, &[down(), drained], Mode::Down, &[0]),
        ("all drained", plain, &[drained, drained], Mode::Down, &[]),
        ("ejected", plain, &[Candidate { ejected: true, ..up() }, up()], Mode::Normal, &[1]),
        ("the agent says down", plain, &[Candidate { agent: Agent { down: true, ..Agent::default() }, ..up() }, up()], Mode::Normal, &[1]),
        ("the agent says 0 %", plain, &[Candidate { agent: Agent { percent: Some(0), ..Agent::default() }, ..up() }, up()], Mode::Normal, &[1]),
        ("the agent says drain", plain, &[Candidate { agent: Agent { admin: Admin::Drain, ..Agent::default() }, ..up() }], Mode::Down, &[]),
        ("no weight", plain, &[Candidate { weight: 0, ..up() }, up()], Mode::Normal, &[1]),
        ("removed", plain, &[Candidate { removed: true, ..up() }, up()], Mode::Normal, &[1]),
        ("nobody at all", plain, &[], Mode::Down, &[]),
    ];
    for (name, rules, candidates, mode, expected) in cases {
        let decision = decided(rules, candidates);
        assert_eq!(decision.mode, *mode, "{name}: {}", decision.reason);
        assert_eq!(members(&decision), *expected, "{name}: {}", decision.reason);
        assert_eq!(decision.reason.is_empty(), *mode == Mode::Normal, "{name}");
    }
}

#[test]
fn words_tell_which_modes_are_up() {
    use Mode::{Backup, Down, FailOpen, Normal, Panic, Sorry, UnderQuorum};
    let all = [Normal, Backup(1), UnderQuorum, Panic, FailOpen, Sorry, Down];
    assert_eq!(all.map(Mode::name), Mode::NAMES);
    assert!(all.into_iter().all(|mode| is_up(mode.name()) == mode.is_up()));
}

#[test]
fn hysteresis_on_both_sides_of_the_quorum() {
    let rules = Rules { quorum: 3, hysteresis: 1, ..Rules::default() };
    let mut short = 0;
    let mut seen = Vec::new();
    for usable in [4, 3, 2, 1, 2, 3, 4, 3, 2] {
        let mut candidates = vec![up(); usable];
        candidates.push(tier(1, up()));
        let decision = decide(&rules, &candidates, Before { short, new_ring: false });
        short = decision.short;
        seen.push(decision.mode.name());
    }
    // 1 is less than 3 - 1, and 4 is 3 + 1.
    let expected = ["UP", "UP", "UP", "BACKUP", "BACKUP", "BACKUP", "UP", "UP", "UP"];
    assert_eq!(seen, expected);
}

#[test]
fn who_steps_in_for_others_has_no_place_in_the_base_ring() {
    let decision = decided(&Rules::default(), &[up(), tier(1, up()), sorry()]);
    let configured: Vec<u16> = decision.parts.iter().map(|part| part.configured).collect();
    assert_eq!(configured, [100, 0, 0]);
}

#[test]
fn drained_backends_have_places_in_a_new_ring_only() {
    let drained =
        [Candidate { admin: Admin::Drain, ..up() }, Candidate { configured: 0, weight: 0, ..up() }];
    let rules = Rules::default();
    let new = decide(&rules, &drained, Before { new_ring: true, ..Before::default() });
    assert_eq!((new.mode, members(&new)), (Mode::Down, vec![0, 1]));
    assert_eq!(members(&decided(&rules, &drained)), Vec::<usize>::new());
}

#[test]
fn the_agents_weight_never_exceeds_the_largest_there_is() {
    let percent = |percent, weight| {
        let agent = Agent { percent, ..Agent::default() };
        Candidate { agent, weight, ..up() }.percent()
    };
    assert_eq!(percent(None, 100), 100);
    assert_eq!(percent(Some(7), 100), 7);
    assert_eq!(percent(Some(0), 100), 1, "0 is no weight, but no use of the backend: see `wanted`");
    assert_eq!(percent(Some(200), 100), 200);
    assert_eq!(percent(Some(65_535), 100), 256);
    assert_eq!(percent(Some(200), 256), 100);
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let admin =
        || prop_oneof![4 => Just(Admin::Ready), 1 => Just(Admin::Drain), 1 => Just(Admin::Maint)];
    let agent = (proptest::option::of(0u16..300), proptest::bool::weighted(0.1), admin())
        .prop_map(|(percent, down, admin)| Agent { percent, down, admin });
    let weights = (0u16..=256, 0u16..=256);
    let flags = (proptest::bool::weighted(0.1), any::<bool>(), proptest::bool::weighted(0.1));
    let place = (0u8..4, proptest::bool::weighted(0.1));
    (weights, admin(), flags, agent, 1u8..=100, place).prop_map(
        |((configured, weight), admin, (removed, healthy, ejected), agent, ramp, (tier, sorry))| {
            Candidate {
                configured,
                weight,
                admin,
                removed,
                healthy,
                agent,
                ejected,
                ramp,
                tier,
                sorry,
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    let actions =
        prop_oneof![Just(OnAllDown::FailOpen), Just(OnAllDown::Reject), Just(OnAllDown::Drop)];
    (actions, 1u32..6, 0u32..6, 0u8..=100).prop_map(
        |(on_all_down, quorum, hysteresis, panic_threshold)| Rules {
            on_all_down,
            quorum,
            hysteresis,
            panic_threshold,
        },
    )
}

proptest! {
    #[test]
    fn what_holds_whatever_is_said(
        rules in rules(), candidates in proptest::collection::vec(candidate(), 0..12), short in 0u8..5,
    ) {
        let decision = decide(&rules, &candidates, Before { short, new_ring: false });
        let usable = candidates.iter().filter(|c| !c.sorry && c.usable()).count();
        let wanted = candidates.iter().any(|c| !c.sorry && c.wanted());
        let sorry = candidates.iter().any(|c| c.sorry && c.wanted());
        let in_ring = members(&decision);
        prop_assert_eq!(decision.parts.len(), candidates.len());
        for (candidate, part) in candidates.iter().zip(&decision.parts) {
            if part.effective == 0 { continue }
            prop_assert!(candidate.wanted(), "nobody drained or removed takes new flows");
            prop_assert_eq!(candidate.sorry, decision.mode == Mode::Sorry);
            prop_assert!(decision.mode.ignores_health() || decision.mode == Mode::Down || candidate.works() || candidate.sorry);
            prop_assert!(part.percent > 0 && part.effective as u32 * part.percent as u32 <= 25_600);
        }
        // Somebody is in the ring whenever somebody may be.
        prop_assert_eq!(in_ring.is_empty(), !wanted && decision.mode != Mode::Sorry);
        prop_assert!(decision.mode != Mode::Down || usable == 0 && !sorry);
        prop_assert!(decision.mode != Mode::FailOpen || usable == 0 && rules.on_all_down == OnAllDown::FailOpen);
        prop_assert!(!decision.mode.is_up() || usable > 0);
        prop_assert!(decision.mode != Mode::Panic || rules.panic_threshold > 0);
        // Everybody of the tiers in use who is usable takes part.
        if let Mode::Backup(tier) = decision.mode {
            for (index, candidate) in candidates.iter().enumerate() {
                let expected = !candidate.sorry && candidate.usable() && candidate.tier <= tier;
                prop_assert_eq!(in_ring.contains(&index), expected);
            }
        }
        // The same once more is the same: a decision does not swing by itself.
        let again = decide(&rules, &candidates, Before { short: decision.short, new_ring: false });
        prop_assert_eq!(again, decision);
    }

    #[test]
    fn one_more_usable_backend_never_makes_it_worse(
        rules in rules(), mut candidates in proptest::collection::vec(candidate(), 1..10), short in 0u8..5, which in any::<proptest::sample::Index>(),
    ) {
        let rank = |mode: Mode| match mode {
            Mode::Normal => 0,
            Mode::Backup(tier) => 1 + tier as u32,
            Mode::UnderQuorum => 300,
            Mode::Panic => 400,
            Mode::Sorry | Mode::FailOpen => 500,
            Mode::Down => 600,
        };
        let before = Before { short, new_ring: false };
        let worse = decide(&rules, &candidates, before);
        let healed = which.get_mut(&mut candidates);
        healed.healthy = true;
        healed.ejected = false;
        healed.agent.down = false;
        let better = decide(&rules, &candidates, before);
        // A sorry backend covers what would be a panic.
        prop_assume!(!(worse.mode == Mode::Sorry || better.mode == Mode::Sorry));
        prop_assert!(rank(better.mode) <= rank(worse.mode), "{:?} -> {:?}", worse.mode, better.mode);
    }
}

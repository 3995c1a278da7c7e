use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::config::model::{ObserveMode, OnError};

const SECOND: Duration = Duration::from_secs(1);

fn rules(error_limit: u16, min_sources: u16) -> Observe {
    Observe {
        mode: ObserveMode::Layer4,
        error_limit,
        min_sources,
        interval: 10 * SECOND,
        on_error: OnError::MarkDown,
        base_ejection: 30 * SECOND,
        max_ejection: 300 * SECOND,
        max_ejection_percent: 30,
    }
}

fn client(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn failure(milliseconds: u64, number: u8, answered: u64) -> Failure {
    Failure { time: Duration::from_millis(milliseconds), source: client(number), answered }
}

/// Which of these failures (client, connections accepted before) reaches the limit, a millisecond from one to the next.
fn limit_at(rules: &Observe, failures: &[(u8, u64)]) -> Option<usize> {
    let mut passive = Passive::default();
    failures.iter().enumerate().position(|(index, (number, answered))| {
        passive.failed(rules, &failure(index as u64, *number, *answered), *answered)
    })
}

#[test]
fn failures_in_a_row_of_enough_clients_reach_the_limit() {
    let rules = rules(4, 2);
    assert_eq!(limit_at(&rules, &[(1, 0), (2, 0), (1, 0), (2, 0)]), Some(3));
    assert_eq!(limit_at(&rules, &[(1, 0), (2, 0), (3, 0), (4, 0)]), Some(3));
    // A connection was accepted in between.
    assert_eq!(limit_at(&rules, &[(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]), None);
    assert_eq!(limit_at(&rules, &[(1, 0), (2, 1), (3, 1), (4, 1), (5, 1)]), Some(4));
    // One client alone never does.
    assert_eq!(limit_at(&rules, &[(1, 0); 200]), None);
}

#[test]
fn one_network_of_ipv6_is_one_client() {
    let rules = rules(2, 2);
    let mut passive = Passive::default();
    let mut fails = |source: &str| {
        let failure = Failure { time: SECOND, source: source.parse().unwrap(), answered: 0 };
        passive.failed(&rules, &failure, 0)
    };
    assert!(!fails("2001:db8::1") && !fails("2001:db8::2") && !fails("2001:db8::1:2"));
    assert!(fails("2001:db8:0:1::1"));
}

#[test]
fn old_failures_do_not_count_nor_those_that_were_followed_by_an_answer() {
    let rules = rules(2, 2);
    let mut passive = Passive::default();
    assert!(!passive.failed(&rules, &failure(0, 1, 0), 0));
    assert!(!passive.failed(&rules, &failure(10_000, 2, 0), 0), "the first is ten seconds old");
    assert!(passive.failed(&rules, &failure(19_999, 1, 0), 0));
    // A daemon that was frozen reads what is over: the backend has answered since.
    let mut passive = Passive::default();
    for number in 0..20 {
        assert!(!passive.failed(&rules, &failure(0, number, 5), 6));
    }
    passive.be_deaf(SECOND);
    assert!(!passive.failed(&rules, &failure(998, 1, 6), 6));
    assert!(!passive.failed(&rules, &failure(999, 2, 6), 6));
    assert!(!passive.failed(&rules, &failure(1_000, 1, 6), 6));
    assert!(passive.failed(&rules, &failure(1_001, 2, 6), 6));
}

#[test]
fn ejections_take_longer_each_time_and_good_conduct_makes_them_shorter() {
    let rules = rules(1, 1);
    let mut passive = Passive::default();
    let mut now = 1_000 * SECOND;
    let mut times = Vec::new();
    for _ in 0..6 {
        let time = passive.eject(&rules, now, "");
        times.push(time.as_secs());
        assert!(!passive.end(now + time - Duration::from_millis(1), 0) && passive.is_ejected());
        now += time;
        assert!(passive.end(now, 0) && passive.is_half_open());
        assert!(!passive.end(now, 0), "only once");
    }
    assert_eq!(times, [30, 60, 120, 240, 300, 300]);
    // Six doublings; five times 30 s take five back.
    now += 5 * rules.base_ejection;
    assert_eq!(passive.eject(&rules, now, ""), 60 * SECOND);
    let again = Passive::restored(passive.kept());
    assert_eq!(again.ejected_for(now + 10 * SECOND), Some(50 * SECOND), "survives a restart");
    assert_eq!(again.kept().ejections, 7);
    assert!(passive.forgive() && !passive.is_ejected() && passive.kept().ejections == 7);
}

#[test]
fn a_backend_that_has_returned_is_on_trial_until_it_has_answered_enough() {
    let rules = rules(6, 2);
    let returned = || {
        let mut passive = Passive::default();
        let time = passive.eject(&rules, SECOND, "");
        assert!(!passive.failed(&rules, &failure(2_000, 1, 7), 7), "it is out");
        assert!(passive.end(SECOND + time, 7));
        passive
    };
    let mut bad = returned();
    assert!(!bad.failed(&rules, &failure(40_000, 1, 7), 7));
    assert!(!bad.failed(&rules, &failure(40_001, 1, 7), 7), "the same client");
    assert!(bad.failed(&rules, &failure(40_002, 2, 7), 7));
    let mut good = returned();
    good.hear(&rules, 12);
    assert!(good.is_half_open());
    good.hear(&rules, 13);
    assert!(!good.is_half_open());
    assert!(!good.failed(&rules, &failure(40_000, 1, 13), 13));
    assert!(!good.failed(&rules, &failure(40_001, 2, 13), 13));
}

#[test]
fn the_share_and_the_last_one_are_respected() {
    let rules = rules(1, 1);
    let census = |wanted, ejected, usable| Census { wanted, ejected, usable };
    assert!(may_eject(census(2, 0, 2), &rules).is_ok(), "one always may");
    assert!(may_eject(census(2, 1, 1), &rules).unwrap_err().contains("last"));
    assert!(may_eject(census(5, 0, 1), &rules).is_err(), "the others are DOWN");
    assert!(may_eject(census(10, 2, 8), &rules).is_ok());
    assert!(may_eject(census(10, 3, 7), &rules).unwrap_err().contains("30 %"));
}

proptest! {
    /// Whatever clients do, fewer than `min_sources` of them eject nobody, and neither do fewer failures than the limit since
    /// the last answer.
    #[test]
    fn too_few_clients_or_failures_eject_nobody(
        error_limit in 1u16..20,
        min_sources in 1u16..6,
        failures in proptest::collection::vec((0u8..6, any::<bool>(), 0u64..3_000), 1..200),
    ) {
        let rules = rules(error_limit.max(min_sources), min_sources);
        let mut passive = Passive::default();
        let (mut answered, mut now) = (0, 0);
        let mut in_a_row: Vec<u8> = Vec::new();
        for (number, accepted, wait) in failures {
            now += wait;
            if accepted {
                answered += 1;
                in_a_row.clear();
            }
            in_a_row.push(number);
            if passive.failed(&rules, &failure(now, number, answered), answered) {
                let clients: HashSet<u8> = in_a_row.iter().copied().collect();
                prop_assert!(clients.len() >= usize::from(min_sources), "{in_a_row:?}");
                prop_assert!(in_a_row.len() >= usize::from(rules.error_limit), "{in_a_row:?}");
                in_a_row.clear();
            }
            prop_assert!(passive.row.len() <= usize::from(rules.error_limit));
        }
    }

    /// A dead backend is found after `error_limit` failures when at least `min_sources` clients take turns.
    #[test]
    fn enough_clients_eject_a_dead_backend(
        error_limit in 1u16..50, min_sources in 1u16..10, more in 0u16..10,
    ) {
        let rules = rules(error_limit.max(min_sources), min_sources);
        let clients = min_sources + more;
        let row: Vec<(u8, u64)> =
            (0..200).map(|number: u16| ((number % clients) as u8, 0)).collect();
        let found = limit_at(&rules, &row);
        prop_assert_eq!(found, Some(usize::from(rules.error_limit) - 1));
    }

    /// Ejections never leave nobody, nor take more than the share (but the first).
    #[test]
    fn nobody_is_ejected_beyond_the_bounds(
        wanted in 1usize..60, down in 0usize..60, percent in 1u8..=100,
    ) {
        let rules = Observe { max_ejection_percent: percent, ..rules(1, 1) };
        let mut census = Census { wanted, ejected: 0, usable: wanted.saturating_sub(down) };
        while census.usable > 0 && may_eject(census, &rules).is_ok() {
            census.usable -= 1;
            census.ejected += 1;
        }
        if census.ejected > 0 {
            prop_assert!(census.usable >= 1);
            prop_assert!(census.ejected == 1 || census.ejected * 100 <= wanted * usize::from(percent));
        }
    }
}

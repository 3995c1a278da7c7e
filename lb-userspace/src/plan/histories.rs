//! The promise of DESIGN.md 3, over random histories: a packet of a live flow reaches the backend that got its SYN,
//! unless that backend has been DOWN since.
//!
//! The histories run the real rule (`lb_common::select`), the real phases and the real sweep over modelled tables and
//! clients: rings of several services, changes of owner, backends DOWN and UP, tables that are full, changes of a ring's
//! length, a controller that stops in the middle of an apply or of a sweep and comes back later with nothing but slots
//! and pins, packets that were on their way while a slot changed, retransmitted, late and forged SYNs, tuples used
//! again. What is not promised, and therefore not counted, is written where it happens in [`clients`].
//!
//! That the histories would notice a broken rule is a test, too: each [`Mutant`] leaves one clause out.

mod clients;
mod controller;
mod tables;
mod world;

use world::{Mutant, Outcome, World};

/// Histories of an ordinary run; LB_HISTORIES in the environment asks for more.
const HISTORIES: u64 = 200;

fn histories() -> u64 {
    std::env::var("LB_HISTORIES").map_or(HISTORIES, |number| number.parse().expect("a number"))
}

#[test]
fn no_packet_of_a_live_flow_is_misdirected() {
    let mut sum = Outcome::default();
    for seed in 0..histories() {
        let outcome = World::new(seed, Mutant::None).run();
        assert!(outcome.misdirected.is_empty(), "seed {seed}:\n{}", outcome.misdirected.join("\n"));
        sum.add(&outcome);
    }
    println!("{sum:#?}");
    // The histories have been where it matters.
    assert!(sum.promised > 500_000, "{sum:?}");
    assert!(sum.pinned_elsewhere > 10_000, "{sum:?}");
    assert!(sum.refused > 1_000 && sum.promoted > 100, "{sum:?}");
    assert!(sum.settled > 1_000 && sum.lengths > 100 && sum.crashes > 100, "{sum:?}");
}

#[test]
fn each_clause_left_out_misdirects_packets() {
    let mut toothless = Vec::new();
    for &mutant in Mutant::ALL {
        let failure =
            (0..HISTORIES).find(|&seed| !World::new(seed, mutant).run().misdirected.is_empty());
        println!("{mutant:?}: first history that fails: {failure:?}");
        toothless.extend(failure.is_none().then_some(mutant));
    }
    assert!(toothless.is_empty(), "nothing notices that these clauses are missing: {toothless:?}");
}

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

fn backend(id: u32, connections: u64, weight: u64) -> Candidate {
    Candidate { id, connections, weight }
}

#[test]
fn the_fewest_connections_for_the_weight_win() {
    assert!(backend(1, 3, 100).is_better_than(&backend(2, 4, 100)));
    assert!(!backend(1, 4, 100).is_better_than(&backend(2, 4, 100)), "strictly");
    assert!(backend(1, 7, 200).is_better_than(&backend(2, 4, 100)));
    assert!(!backend(1, 9, 200).is_better_than(&backend(2, 4, 100)));
    assert!(backend(1, 9, 1).is_better_than(&Candidate::NOBODY));
    assert!(!Candidate::NOBODY.is_better_than(&Candidate::NOBODY));
    assert!(!backend(1, 0, 0).is_better_than(&backend(2, 99, 1)), "weight 0 takes nobody");
    assert!(backend(2, 99, 1).is_better_than(&backend(1, 0, 0)));
}

proptest! {
    /// The load of no backend ever exceeds its bound, and somebody always has room: the least loaded.
    #[test]
    fn a_bounded_load_is_never_exceeded(
        weights in proptest::collection::vec(1u64..=256, 1..20),
        factor in 101u32..300,
        seed: u64,
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let total: u64 = weights.iter().sum();
        let mut backends: Vec<Candidate> =
            (1..).zip(&weights).map(|(id, weight)| backend(id, 0, *weight)).collect();
        for all in 0..400 {
            let first = random.random_range(0..backends.len());
            let has_room = |other: &&Candidate| other.has_room(factor, all, total as u32);
            let chosen = match backends[first..].iter().chain(&backends[..first]).find(has_room) {
                Some(chosen) => chosen.id,
                None => panic!("nobody has room: {backends:?}"),
            };
            let mut least = Candidate::NOBODY;
            for other in &backends {
                least = if other.is_emptier_than(&least) { *other } else { least };
            }
            prop_assert!(least.has_room(factor, all, total as u32), "{least:?} of {backends:?}");
            let chosen = &mut backends[chosen as usize - 1];
            chosen.connections += 1;
            let bound = (u64::from(factor) * (all + 1) * chosen.weight).div_ceil(100 * total);
            prop_assert!(chosen.connections <= bound, "{chosen:?}, bound {bound}");
        }
    }
}

#[test]
fn draws_reach_every_place_alike_and_are_two() {
    const LENGTH: u32 = 10;
    let mut counts = [[0u32; LENGTH as usize]; 2];
    let mut same = 0;
    for turn in 0..20_000 {
        let (one, other) = draw(turn, 0x1234_5678, LENGTH);
        counts[0][one as usize] += 1;
        counts[1][other as usize] += 1;
        same += u32::from(one == other);
    }
    for count in counts.iter().flatten() {
        assert!((1_800..2_200).contains(count), "{counts:?}");
    }
    assert!((1_800..2_200).contains(&same), "independent: {same}");
}

//! What rings promise, on sets of backends drawn with fixed seeds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::hash::expand_seed;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedMutRandom, SliceRandom},
};

use super::*;

fn keys() -> HashKeys {
    expand_seed(&[7; 32])
}

/// Backends 10.0.0.1, 10.0.0.2, ... with these weights, all of them UP; ids from 1.
fn members(weights: &[u16]) -> Vec<Member> {
    let address = |index: usize| IpAddr::from(Ipv4Addr::from(0x0a00_0001 + index as u32));
    let member = |(index, &weight): (usize, &u16)| Member {
        id: BackendId(index as u32 + 1),
        address: address(index),
        port: 80,
        configured: weight,
        effective: weight,
        percent: 100,
        ramp: 100,
    };
    weights.iter().enumerate().map(member).collect()
}

fn count(owners: &[BackendId], id: BackendId) -> usize {
    owners.iter().filter(|&&owner| owner == id).count()
}

/// Slots that changed hands although neither owner is in `touched`.
fn bystanders(before: &[BackendId], after: &[BackendId], touched: &[BackendId]) -> usize {
    let bystander = |(old, new): &(&BackendId, &BackendId)| {
        old != new && !touched.contains(old) && !touched.contains(new)
    };
    before.iter().zip(after).filter(bystander).count()
}

fn moved(before: &[BackendId], after: &[BackendId]) -> usize {
    before.iter().zip(after).filter(|(old, new)| old != new).count()
}

#[test]
fn lengths_come_in_classes_of_configured_weights() {
    let length = |weights: &[u16]| ring_length(weights.iter().copied(), None);
    assert_eq!(length(&[100; 3]), 1_021);
    assert_eq!(length(&[100; 10]), 1_021);
    assert_eq!(length(&[100; 11]), 4_093);
    assert_eq!(length(&[100; 40]), 4_093);
    assert_eq!(length(&[100; 100]), 16_381);
    assert_eq!(length(&[100; 600]), 65_537);
    assert_eq!(length(&[100; 1000]), 131_071);
    assert_eq!(length(&[100; 2000]), 262_139);
    assert_eq!(length(&[100; 3000]), 655_373);
    assert_eq!(length(&[100; 20_000]), 655_373);
    assert_eq!(length(&[1, 10]), 4_093);
    assert_eq!(length(&[1, 9, 0]), 1_021);
    assert_eq!(length(&[1, 256]), 65_537);
    assert_eq!(length(&[0, 0]), 1_021);
    assert_eq!(length(&[]), 1_021);
    assert_eq!(ring_length([100; 3].into_iter(), Some(65_537)), 65_537);
}

#[test]
fn order_and_ids_of_backends_do_not_matter() {
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..1000 {
        let mut set: Vec<Member> = (0..random.random_range(1..12))
            .map(|index| {
                let v6 = Ipv6Addr::from(random.random::<u128>());
                let v4 = Ipv4Addr::from(random.random::<u32>());
                let configured = random.random_range(0..=256);
                Member {
                    id: BackendId(index + 1),
                    address: if random.random() { v4.into() } else { v6.into() },
                    port: random.random_range(1..=3),
                    configured,
                    effective: if random.random() {
                        configured
                    } else {
                        random.random_range(0..=256)
                    },
                    percent: random.random_range(1..=100),
                    ramp: if random.random() { 100 } else { random.random_range(1..=100) },
                }
            })
            .collect();
        let expected = owners(1021, &keys(), &set);
        set.shuffle(&mut random);
        assert_eq!(owners(1021, &keys(), &set), expected, "round {round}: {set:?}");
        for member in &mut set {
            member.id.0 += 1000;
        }
        let renumbered: Vec<BackendId> = expected
            .iter()
            .map(|id| if id.0 == 0 { *id } else { BackendId(id.0 + 1000) })
            .collect();
        assert_eq!(owners(1021, &keys(), &set), renumbered, "round {round}: ids {set:?}");
    }
}

#[test]
fn another_seed_makes_another_ring() {
    let set = members(&[100; 10]);
    let other = owners(4093, &expand_seed(&[8; 32]), &set);
    let same = 4093 - moved(&owners(4093, &keys(), &set), &other);
    assert!((300..520).contains(&same), "{same} of 4093 slots alike; chance is a tenth");
}

#[test]
fn shares_are_weights_to_one_slot() {
    let mixed: Vec<u16> = (1..=100).collect();
    for weights in [&[1, 10][..], &[100; 3], &[100; 100], &[1, 256, 3], &mixed] {
        let set = members(weights);
        let total: u32 = weights.iter().map(|&weight| weight as u32).sum();
        let slots = ring_length(weights.iter().copied(), None);
        let owners = owners(slots, &keys(), &set);
        for member in &set {
            let ideal = slots as f64 * member.effective as f64 / total as f64;
            let got = count(&owners, member.id) as f64;
            assert!((got - ideal).abs() < 1.0, "{slots} slots, {member:?}: {got} for {ideal}");
        }
    }
}

/// The table of what Maglev moves, L05: at most 1 % of the slots of others when one of N <= 100 goes.
#[test]
fn removing_or_adding_a_backend_disturbs_others_within_maglevs_bounds() {
    for (slots, number, limit) in [
        (65_537, 3, 0.001),
        (65_537, 10, 0.005),
        (65_537, 100, 0.010),
        (65_537, 1000, 0.010),
        (16_381, 10, 0.008),
        (16_381, 100, 0.020),
    ] {
        let full = members(&vec![100; number]);
        let before = owners(slots, &keys(), &full);
        let mut worst = 0f64;
        for gone in [0, number / 2, number - 1] {
            let mut rest = full.clone();
            let gone = rest.remove(gone).id;
            let after = owners(slots, &keys(), &rest);
            assert_eq!(count(&after, gone), 0);
            let unaffected = slots as usize - count(&before, gone);
            worst = worst.max(bystanders(&before, &after, &[gone]) as f64 / unaffected as f64);
        }
        println!(
            "{slots} slots, {number} backends, one removed: {:.3} % of the others' moved",
            worst * 100.0
        );
        assert!(worst <= limit, "{slots} slots, {number} backends: {worst} > {limit}");
    }
}

#[test]
fn a_backend_down_moves_exactly_its_own_slots_and_up_again_exactly_those_back() {
    let mixed: Vec<u16> = (1..=60).map(|index| index * 4).collect();
    for weights in [&[100; 3][..], &[100; 10], &[100; 100], &[1, 256, 7], &mixed] {
        let set = members(weights);
        let slots = ring_length(weights.iter().copied(), None);
        let base = BaseRing::new(slots, &keys(), &set);
        let before = base.owners(&set);
        for down in 0..set.len().min(20) {
            let mut changed = set.clone();
            changed[down].effective = 0;
            assert!(base.fits(slots, &changed));
            let after = base.owners(&changed);
            let own = count(&before, set[down].id);
            assert_eq!(moved(&before, &after), own, "{:?} of {weights:?}", set[down]);
            assert_eq!(count(&after, set[down].id), 0);
            assert_eq!(after, owners(slots, &keys(), &changed), "the cached base ring differs");
            let share = |weight: u16, total: u32| slots as f64 * weight as f64 / total as f64;
            let total: u32 = changed.iter().map(|member| member.effective as u32).sum();
            for member in &changed {
                let (got, ideal) = (count(&after, member.id), share(member.effective, total));
                assert!((got as f64 - ideal).abs() <= 2.0, "{member:?}: {got} for {ideal}");
            }
        }
        assert_eq!(base.owners(&set), before);
    }
}

/// What a second backend DOWN moves beyond its own slots: some of those that the first one left.
#[test]
fn a_second_backend_down_moves_little_more_than_its_own_slots() {
    for number in [4usize, 10, 100] {
        let mut set = members(&vec![100; number]);
        let slots = ring_length(set.iter().map(|member| member.configured), None);
        let base = BaseRing::new(slots, &keys(), &set);
        set[0].effective = 0;
        let before = base.owners(&set);
        set[1].effective = 0;
        let after = base.owners(&set);
        let more = bystanders(&before, &after, &[set[1].id]);
        println!(
            "{number} backends, {slots} slots: a second one DOWN moved {more} slots of others"
        );
        assert!(more <= slots as usize / 50, "{number} backends: {more} slots of others moved");
        let first = base.owners(&members(&vec![100; number]));
        for (slot, owner) in first.iter().enumerate().filter(|(_, owner)| owner.0 > 2) {
            assert_eq!(after[slot], *owner, "slot {slot} belongs to a backend that was never DOWN");
        }
    }
}

#[test]
fn run_time_weights_move_hardly_more_than_they_must() {
    for (number, weight) in [(3, 50), (10, 10), (10, 200), (10, 256), (100, 1), (100, 256)] {
        let mut set = members(&vec![100; number]);
        let slots = ring_length(set.iter().map(|member| member.configured), None);
        let base = BaseRing::new(slots, &keys(), &set);
        let before = base.owners(&set);
        set[1].effective = weight;
        let after = base.owners(&set);
        let must = count(&before, set[1].id).abs_diff(count(&after, set[1].id));
        let did = moved(&before, &after);
        println!(
            "{number} backends, one from 100 to {weight}: {did} of {slots} slots moved, {must} had to"
        );
        assert!(
            did <= must + must / 10 + number,
            "{number} backends, weight {weight}: {did} for {must}"
        );
        let total: u32 = set.iter().map(|member| member.effective as u32).sum();
        for member in &set {
            let ideal = slots as f64 * member.effective as f64 / total as f64;
            let got = count(&after, member.id) as f64;
            assert!((got - ideal).abs() <= 2.0, "{member:?}: {got} for {ideal}");
        }
    }
}

#[test]
fn weights_that_all_change_alike_move_nothing() {
    let mut set = members(&[100, 200, 60]);
    let before = owners(1021, &keys(), &set);
    for percent in [10, 50, 120] {
        for member in &mut set {
            member.effective = (member.configured as u32 * percent / 100) as u16;
        }
        let after = owners(1021, &keys(), &set);
        assert!(moved(&before, &after) <= set.len(), "{percent} %: {}", moved(&before, &after));
    }
}

#[test]
fn slow_start_moves_slots_to_the_starting_backend_and_ends_where_it_was() {
    let mut set = members(&[100; 10]);
    let base = BaseRing::new(1021, &keys(), &set);
    set[3].effective = 0;
    let mut before = base.owners(&set);
    for weight in (10..=100).step_by(10) {
        set[3].effective = weight;
        let after = base.owners(&set);
        let bystanders = bystanders(&before, &after, &[set[3].id]);
        assert!(bystanders <= 1021 / 50, "weight {weight}: {bystanders} slots of others moved");
        before = after;
    }
    assert_eq!(before, base.owners(&members(&[100; 10])));
}

/// As the controller steps.
#[test]
fn each_step_of_a_slow_start_moves_what_the_backend_gains_and_nothing_else() {
    for (number, weight, starting) in [(3, 1, 1), (10, 100, 1), (10, 100, 4), (100, 7, 3)] {
        let full = members(&vec![weight; number]);
        let slots = ring_length(full.iter().map(|member| member.configured), None);
        let base = BaseRing::new(slots, &keys(), &full);
        let mut set = full.clone();
        set[..starting].iter_mut().for_each(|member| member.effective = 0);
        let mut before = base.owners(&set);
        set[..starting].iter_mut().for_each(|member| member.effective = weight);
        for percent in (5..=100).step_by(5) {
            set[..starting].iter_mut().for_each(|member| member.ramp = percent);
            assert!(base.fits(slots, &set));
            let after = base.owners(&set);
            let mut gained = 0;
            for member in &set[..starting] {
                let (now, then) = (count(&after, member.id), count(&before, member.id));
                gained += now - then;
                let all = count(&base.owners(&full), member.id);
                assert_eq!(now, (all * percent as usize).div_ceil(100), "{percent} % of {all}");
            }
            let ids: Vec<BackendId> = set[..starting].iter().map(|member| member.id).collect();
            // Several DOWN at once leave slots that move between those who stay: once, at the first step.
            if starting == 1 || percent > 5 {
                assert_eq!(moved(&before, &after), gained, "{number} backends, {percent} %");
                assert_eq!(bystanders(&before, &after, &ids), 0);
            }
            before = after;
        }
        assert_eq!(before, base.owners(&full));
    }
}

#[test]
fn backends_that_all_start_slowly_share_everything() {
    let mut set = members(&[100, 50, 60]);
    let full = owners(1021, &keys(), &set);
    set.iter_mut().for_each(|member| member.ramp = 5);
    assert_eq!(owners(1021, &keys(), &set), full);
}

#[test]
fn a_percentage_of_a_weight_is_a_smaller_weight() {
    let mut set = members(&[1, 1, 1]);
    set[1].percent = 50;
    let finer = owners(1021, &keys(), &set);
    let counts: Vec<usize> = set.iter().map(|member| count(&finer, member.id)).collect();
    assert!(counts[1].abs_diff(1021 / 5) <= 2, "{counts:?}");
    let mut weights = members(&[2, 2, 2]);
    weights[1].effective = 1;
    assert_eq!(finer, owners(1021, &keys(), &weights), "the same shares");
}

#[test]
fn nobody_to_own_a_slot_and_weights_only_at_run_time() {
    let mut set = members(&[0, 0]);
    assert!(owners(1021, &keys(), &set).iter().all(|owner| *owner == BackendId::NONE));
    assert!(owners(1021, &keys(), &[]).iter().all(|owner| *owner == BackendId::NONE));
    assert!(owners(0, &keys(), &members(&[1])).is_empty());
    set[1].effective = 5;
    assert!(owners(1021, &keys(), &set).iter().all(|owner| *owner == set[1].id));
    let mut set = members(&[100, 0]);
    set[1].effective = 100;
    let shared = owners(1021, &keys(), &set);
    assert_eq!(count(&shared, set[1].id).abs_diff(count(&shared, set[0].id)), 1);
    set = members(&[100, 100]);
    for member in &mut set {
        member.effective = 0;
    }
    assert!(owners(1021, &keys(), &set).iter().all(|owner| *owner == BackendId::NONE));
}

#[test]
fn a_base_ring_fits_only_the_members_it_was_made_of() {
    let set = members(&[100, 50, 0]);
    let base = BaseRing::new(1021, &keys(), &set);
    assert!(base.fits(1021, &set));
    assert!(!base.fits(4093, &set));
    assert!(!base.fits(1021, &set[..1]));
    let mut other = set.clone();
    other[0].configured = 99;
    assert!(!base.fits(1021, &other));
    let mut other = set.clone();
    other[2].effective = 1;
    assert!(
        !base.fits(1021, &other),
        "a weight at run time gives a seat to a backend that had none"
    );
    let mut other = set.clone();
    other[1].port = 81;
    assert!(!base.fits(1021, &other));
    let mut other = set;
    other[1].effective = 0;
    other.reverse();
    assert!(base.fits(1021, &other));
}

/// Nodes of a cluster must agree whenever they were built: this ring never changes.
#[test]
fn rings_are_the_same_in_every_build() {
    let mut set = members(&[100, 50, 256, 1]);
    set[3].address = "2001:db8::7".parse().expect("an address");
    set[1].effective = 10;
    let owners = owners(4093, &keys(), &set);
    let digest = owners.iter().fold(0u64, |digest, owner| {
        digest.wrapping_mul(0x100_0000_01b3).wrapping_add(owner.0 as u64)
    });
    assert_eq!(digest, 0x0e67_263c_064d_3bc8, "{digest:#x}");
}

#[test]
fn a_digest_tells_rings_apart_and_knows_owners_by_their_names() {
    let address = || "10.0.0.1".parse().expect("an address");
    let of = |owners: &[u32], first: u32| {
        let names = [(first, 80u16), (first + 1, 81)];
        let names = names.map(|(id, port)| (BackendId(id), address(), port));
        digest(owners.iter().map(|id| BackendId(*id)), names.into_iter())
    };
    let ring = of(&[7, 8, 0], 7);
    assert_eq!(ring, of(&[1, 2, 0], 1), "ids are each node's own");
    assert_eq!(ring, of(&[7, 8, 9], 7), "who has no name is nobody");
    for another in [&[8, 7, 0][..], &[7, 8, 7], &[7, 8]] {
        assert_ne!(ring, of(another, 7), "{another:?}");
    }
    digest([BackendId(3)].into_iter(), [].into_iter());
}

/// Whatever changes, the difference from what was before leads to what the whole ring is.
#[test]
fn a_difference_leads_where_the_whole_ring_is() {
    let mut random = StdRng::seed_from_u64(5);
    let mut set = members(&[100, 50, 50, 7, 0, 256, 100, 100, 30, 9]);
    let base = BaseRing::new(1021, &keys(), &set);
    let mut short = base.short_owners(&set).expect("nobody starts slowly");
    let mut ring = base.owners(&set);
    let mut kinds = [0; 2];
    for round in 0..500 {
        for _ in 0..random.random_range(1..4) {
            let member = set.choose_mut(&mut random).expect("there are some");
            // A weight of its own of one without a configured weight is another base ring.
            if member.configured > 0 {
                member.effective = match random.random_range(0..4) {
                    0 | 1 => 0,
                    2 => member.configured,
                    _ => random.random_range(0..=256),
                };
            }
        }
        assert!(base.fits(1021, &set), "round {round}");
        let after = base.short_owners(&set).expect("nobody starts slowly");
        for (slot, owner) in base.difference(&short, &after).expect("the same backends") {
            ring[slot as usize] = owner;
        }
        assert_eq!(ring, owners(1021, &keys(), &set), "round {round}: {set:?}");
        kinds[usize::from(set.iter().all(|member| member.effective == 0))] += 1;
        short = after;
    }
    assert!(kinds[0] > 100, "{kinds:?}");
    let mut others = set.clone();
    others[0].id.0 += 100;
    let others = base.short_owners(&others).expect("nobody starts slowly");
    assert_eq!(base.difference(&short, &others), None, "other ids");
    set[1].effective = 50;
    set[1].ramp = 50;
    assert!(base.short_owners(&set).is_none(), "who starts slowly needs the whole ring");
}

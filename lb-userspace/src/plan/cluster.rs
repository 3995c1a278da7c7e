//! What a node makes of what other nodes say: pure.
//!
//! *Slots.* A node's own owners stay as they are: they follow from the configuration, from what was set by hand and from health, and
//! so become the same everywhere by themselves. What does not follow from anything is a slot's past: phase and base are taken over
//! where this node has none of its own, or where flows do not pass here and so nothing can contradict.
//!
//! *Health.* A backend is DOWN when more than half of the nodes that are heard of, this one included, say so: of two, both. A node that
//! hears nobody goes by its own checks. So all nodes that hear each other have the same rings, and one that has lost its way to
//! a backend does not move flows that the others keep.

use lb_common::abi::{BackendId, Phase, Slot};

use crate::cluster::message::{BackendView, Override, View};

/// What becomes of a slot that another node has not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is to be stored.
    Changed(Slot),
    /// It says the same, or more.
    Kept,
    /// This node's own flows are elsewhere: both cannot be right, and its own are.
    Conflict,
}

/// Takes over a slot's past. `own`: the slot here. `phase`, `base`, `since`: of the other node, in this node's ids and seconds of
/// CLOCK_MONOTONIC. `yields`: no flows pass here, so the other node knows better.
pub fn adopt_slot(own: Slot, phase: Phase, base: BackendId, since: u64, yields: bool) -> Adopted {
    let owner = own.owner();
    let taken = Slot::new(owner, base, phase, since);
    match (own.phase(), phase) {
        (_, Phase::Settled) | (Phase::Window | Phase::Harvest, Phase::Pinned) => Adopted::Kept,
        (Phase::Pinned, Phase::Pinned) => Adopted::Kept,
        // Pins are read from now on; nothing else changes.
        (Phase::Settled, Phase::Pinned) => {
            Adopted::Changed(Slot::new(owner, BackendId::NONE, Phase::Pinned, since))
        }
        (Phase::Settled, _) if base == owner || yields => Adopted::Changed(taken),
        (Phase::Window | Phase::Harvest, _) if own.base() == base => Adopted::Kept,
        (Phase::Window | Phase::Harvest | Phase::Pinned, _) if yields => Adopted::Changed(taken),
        _ => Adopted::Conflict,
    }
}

/// Whether a backend is UP by the votes of all nodes that have one; `None` if none has.
pub fn outcome(votes: impl IntoIterator<Item = bool>) -> Option<bool> {
    let (mut up, mut down) = (0usize, 0usize);
    for vote in votes {
        *if vote { &mut up } else { &mut down } += 1;
    }
    (up + down > 0).then_some(up >= down)
}

/// Whether one value that was set by hand replaces another. By counting, not by clocks of the wall, which may be wrong.
pub fn is_newer(one: &Override, than: &Override) -> bool {
    (one.clock, &one.node) > (than.clock, &than.node)
}

/// The input that follows from an agent and a slow start.
pub const SHARE: &str = "share";

/// The input by which the rings of two nodes differ, in words; `None` if the rings are the same, or one of them is not known yet.
pub fn difference(
    own: &View,
    other: &View,
    name: impl Fn(&BackendView) -> String,
) -> Option<String> {
    let (Some(ring), Some(rings)) = (own.ring, other.ring) else { return None };
    if ring == rings && own.slots == other.slots {
        return None;
    }
    let here = |one: &BackendView| own.backends.iter().find(|two| two.address == one.address);
    let there = |one: &BackendView| other.backends.iter().find(|two| two.address == one.address);
    if let Some(one) = own.backends.iter().find(|one| there(one).is_none()) {
        return Some(format!("the other node does not have the backend {}", name(one)));
    }
    if let Some(one) = other.backends.iter().find(|one| here(one).is_none()) {
        return Some(format!("this node does not have the backend {}", one.address));
    }
    type Input = (&'static str, fn(&BackendView) -> String);
    const INPUTS: [Input; 5] = [
        ("weight in the file", |one| one.configured.to_string()),
        ("weight", |one| one.weight.to_string()),
        ("administrative state", |one| {
            let words = ["ready", "drain", "maint"];
            words.get(usize::from(one.admin)).copied().unwrap_or("unknown").to_owned()
        }),
        ("health", |one| match one.up {
            Some(true) => "UP".to_owned(),
            Some(false) => "DOWN".to_owned(),
            None => "not checked".to_owned(),
        }),
        (SHARE, |one| format!("{} %", one.percent)),
    ];
    for (what, value) in INPUTS {
        for one in &own.backends {
            let Some(two) = there(one) else { continue };
            if value(one) != value(two) {
                let (here, there) = (value(one), value(two));
                return Some(format!("{what} of {}: {here} here, {there} there", name(one)));
            }
        }
    }
    if own.slots != other.slots {
        return Some(format!("length of the ring: {} here, {} there", own.slots, other.slots));
    }
    Some("none of its inputs differs: the balance, or a change that is on its way".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{ServiceKey, Target};

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const C: BackendId = BackendId(3);
    const NONE: BackendId = BackendId::NONE;

    #[test]
    fn a_slot_takes_over_the_past_that_does_not_contradict_its_own() {
        use Phase::{Harvest, Pinned, Settled, Window};
        let slot = Slot::new;
        let changed = Adopted::Changed;
        for (own, phase, base, yields, wanted) in [
            // It has not heard of the change yet: its owner is the base.
            (Slot::settled(A), Window, A, false, changed(slot(A, A, Window, 7))),
            (Slot::settled(A), Harvest, A, false, changed(slot(A, A, Harvest, 7))),
            (Slot::settled(A), Pinned, NONE, false, changed(slot(A, NONE, Pinned, 7))),
            // Its own flows are at B; unless it has none.
            (Slot::settled(B), Window, A, false, Adopted::Conflict),
            (Slot::settled(B), Window, A, true, changed(slot(B, A, Window, 7))),
            (slot(B, A, Window, 3), Window, A, false, Adopted::Kept),
            (slot(B, A, Window, 3), Harvest, A, true, Adopted::Kept),
            (slot(B, A, Window, 3), Window, C, false, Adopted::Conflict),
            (slot(B, A, Window, 3), Window, C, true, changed(slot(B, C, Window, 7))),
            (slot(B, NONE, Pinned, 3), Window, A, false, Adopted::Conflict),
            (slot(B, NONE, Pinned, 3), Window, A, true, changed(slot(B, A, Window, 7))),
            (slot(B, A, Harvest, 3), Pinned, NONE, true, Adopted::Kept),
            (slot(B, NONE, Pinned, 3), Pinned, NONE, true, Adopted::Kept),
            (Slot::settled(A), Settled, NONE, true, Adopted::Kept),
        ] {
            let got = adopt_slot(own, phase, base, 7, yields);
            assert_eq!(got, wanted, "{own:?} {phase:?} {base:?} {yields}");
            // However often it is told.
            if let Adopted::Changed(slot) = got {
                assert_eq!(adopt_slot(slot, phase, base, 7, yields), Adopted::Kept);
            }
        }
    }

    #[test]
    fn more_than_half_have_to_say_that_a_backend_is_down() {
        for (votes, up) in [
            (&[][..], None),
            (&[true], Some(true)),
            (&[false], Some(false)),
            (&[true, false], Some(true)),
            (&[false, false], Some(false)),
            (&[false, false, true], Some(false)),
            (&[false, true, true], Some(true)),
            (&[false, false, true, true], Some(true)),
            (&[false, false, false, true], Some(false)),
        ] {
            assert_eq!(outcome(votes.iter().copied()), up, "{votes:?}");
        }
    }

    fn set(clock: u64, node: &str) -> Override {
        let target = Target::Setting("web".into(), "rise".into());
        Override { target, value: None, clock, node: node.into() }
    }

    #[test]
    fn of_two_values_exactly_one_is_newer_wherever_it_is_asked() {
        let all = [set(1, "a"), set(1, "b"), set(2, "a")];
        for (place, one) in all.iter().enumerate() {
            for (other, two) in all.iter().enumerate() {
                assert_eq!(is_newer(one, two), place > other, "{one:?} {two:?}");
            }
        }
    }

    fn view(ring: u32, backends: &[BackendView]) -> View {
        let service = ServiceKey {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 32,
            port: 80,
            last_port: 80,
            protocol: 6,
        };
        View { service, ring: Some(ring), slots: 1021, backends: backends.to_vec() }
    }

    fn backend(number: u16) -> BackendView {
        BackendView {
            address: ([10, 0, 0, number as u8], 80).into(),
            configured: 100,
            weight: 100,
            percent: 100,
            admin: 0,
            up: Some(true),
        }
    }

    #[test]
    fn the_differing_input_is_named() {
        let name = |one: &BackendView| format!("web{}", one.address.to_string().as_bytes()[7] - 48);
        let (one, two) = (backend(1), backend(2));
        let own = view(1, &[one.clone(), two.clone()]);
        let differs = |other: View| difference(&own, &other, name);
        assert_eq!(differs(View { ring: Some(1), ..own.clone() }), None);
        assert_eq!(differs(View { ring: None, ..own.clone() }), None);
        let changed = |change: fn(&mut BackendView)| {
            let mut two = two.clone();
            change(&mut two);
            differs(view(2, &[one.clone(), two])).unwrap()
        };
        assert_eq!(changed(|two| two.weight = 7), "weight of web2: 100 here, 7 there");
        assert_eq!(
            changed(|two| two.admin = 1),
            "administrative state of web2: ready here, drain there"
        );
        assert_eq!(changed(|two| two.up = Some(false)), "health of web2: UP here, DOWN there");
        let fewer = view(2, std::slice::from_ref(&one));
        assert_eq!(differs(fewer).unwrap(), "the other node does not have the backend web2");
        let more = view(2, &[one.clone(), two.clone(), backend(3)]);
        assert_eq!(differs(more).unwrap(), "this node does not have the backend 10.0.0.3:80");
        let longer = View { slots: 4093, ..view(2, &[one, two]) };
        assert_eq!(differs(longer).unwrap(), "length of the ring: 1021 here, 4093 there");
    }
}

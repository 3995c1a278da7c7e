//! Upgrades that change the layout of tables: the new version fills tables of its own from the configuration and the state
//! file, and takes over the NICs only then. Rings come out the same, as they follow from the configuration; what cannot come
//! along is what rings remember while they change. So a node whose slots are not settled is not taken over, unless told to.

use std::path::Path;

use super::{
    Node,
    loaded::Service,
    retire::add,
    state::{Left, State},
};
use crate::{
    dataplane,
    events::{Happened, Kind},
};

/// Whether there is something to take over; an error if flows would break by it.
pub(super) fn wanted(pin_dir: &Path, state: &State, forced: bool) -> anyhow::Result<bool> {
    let others = dataplane::other_versions(pin_dir);
    let forwards = others.iter().find(|version| dataplane::is_attached(version));
    if let (Some(path), false) = (forwards, forced)
        && let Some(problem) = problem(state.left.as_ref())
    {
        anyhow::bail!(
            "{} was left by a version of lb with other tables; {problem}; nothing was touched, and packets are forwarded as before",
            path.display()
        );
    }
    Ok(!others.is_empty())
}

/// What flows would lose.
fn problem(left: Option<&Left>) -> Option<String> {
    const REMEDY: &str = "start that version again, wait until `lb status` shows no slots in a window or harvest, and stop it, or start this one with --take-over (flows that the last changes have moved may break)";
    match left {
        None => Some(format!(
            "it was killed, and nobody knows whether its rings remember flows: {REMEDY}"
        )),
        Some(Left { unsettled: 0, pins: 0, .. }) => None,
        Some(left) => Some(format!(
            "{} slots are on their way after a change, and {} flows are remembered: {REMEDY}",
            left.unsettled, left.pins
        )),
    }
}

impl Node {
    /// What a version with other tables needs to know.
    pub(super) fn leave(&mut self) {
        let (pins, unsettled) = (
            self.pin_counts.iter().sum(),
            self.services.iter().map(Service::slots_on_their_way).sum(),
        );
        let totals = (self.services.iter())
            .map(|service| {
                let mut total = service.retired;
                for backend in &service.backends {
                    add(&mut total, &self.counters_of(backend.id));
                }
                (service.key.to_string(), total)
            })
            .collect();
        self.state.left = Some(Left { unsettled, pins, totals });
    }

    /// The new tables are in force on all NICs: what was before goes.
    pub(super) fn finish_take_over(&mut self) -> anyhow::Result<()> {
        let left = self.state.left.take();
        if !self.taking_over {
            return Ok(());
        }
        self.taking_over = false;
        for service in &mut self.services {
            let total = left.as_ref().and_then(|left| left.totals.get(&service.key.to_string()));
            service.retired = total.copied().unwrap_or_default();
        }
        let others: Vec<String> = dataplane::other_versions(&self.options.pin_dir)
            .iter()
            .map(|path| shown(path))
            .collect();
        self.dataplane.remove_other_versions()?;
        let text =
            "taken over from a version of lb with other tables; counters of backends begin anew";
        self.log.add(Happened::to_node(Kind::Program, text, others.join(", ")));
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settled_rings_are_taken_over_unasked() {
        let left = |unsettled, pins| Left { unsettled, pins, ..Left::default() };
        assert_eq!(problem(Some(&left(0, 0))), None);
        for (left, word) in
            [(Some(left(3, 0)), "3 slots"), (Some(left(0, 7)), "7 flows"), (None, "killed")]
        {
            let problem = problem(left.as_ref()).unwrap();
            assert!(problem.contains(word) && problem.contains("--take-over"), "{problem}");
        }
    }

    #[test]
    fn what_forwards_nothing_is_taken_over_in_any_case() {
        let pins = tempfile::tempdir().unwrap();
        let wanted = || wanted(pins.path(), &State::default(), false).unwrap();
        assert!(!wanted());
        std::fs::create_dir(pins.path().join("v0")).unwrap();
        assert!(wanted());
    }
}

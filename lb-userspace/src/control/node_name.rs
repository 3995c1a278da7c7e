//! A node's name has to be its own: in a cluster, where what is told goes by names, and in a fleet, where each reports under its name.

use super::Node;
use crate::events::{Happened, Kind};

impl Node {
    /// Which other node has this one's name, in words.
    pub(super) fn name_conflict(&self) -> Option<String> {
        let fleet = self.shared.as_ref().and_then(|shared| shared.namesake().cloned());
        fleet.or_else(|| self.namesake_in_cluster())
    }

    /// Says so once, and when it is over.
    pub(super) fn mind_node_name(&mut self) {
        let conflict = self.name_conflict();
        if conflict.is_some() == self.told_name_conflict {
            return;
        }
        self.told_name_conflict = conflict.is_some();
        let name = &self.options.node;
        let (text, cause) = match conflict {
            Some(text) => (text, "give one of them another name (`lb run --node`)".to_owned()),
            None => (format!("no other node is called {name} any more"), String::new()),
        };
        self.log.add(Happened::to_node(Kind::NodeName, text, cause));
    }

    pub(super) fn name_warnings(&self) -> Option<String> {
        let conflict = self.name_conflict()?;
        Some(format!("{conflict}; give one of them another name (`lb run --node`)"))
    }
}

//! Agents beside backends: who is asked, and what their answers change.

use std::collections::HashSet;

use super::{Node, loaded};
use crate::{
    events::{Happened, Kind},
    health::agent::{AgentEvent, AgentHealth, words},
};

impl Node {
    /// Tells whom to ask. Where there is no agent any more, nothing is left of what it has said.
    pub(super) fn set_agents(&mut self) {
        let mut keys = HashSet::new();
        for service in &mut self.services {
            for backend in service.backends.iter_mut().filter(|backend| !backend.removed) {
                match loaded::agent(&service.spec, &backend.spec) {
                    Some(key) => drop(keys.insert(key)),
                    None if backend.agent == AgentHealth::default() => {}
                    None => {
                        backend.agent = AgentHealth::default();
                        self.dirty.insert(service.id);
                    }
                }
            }
        }
        self.agents.set(keys);
    }

    /// An agent has been asked.
    pub(super) fn agent_changed(&mut self, event: &AgentEvent) {
        for service in &mut self.services {
            for backend in &mut service.backends {
                let key = loaded::agent(&service.spec, &backend.spec);
                if backend.removed || key.as_ref() != Some(&event.key) {
                    continue;
                }
                let before = backend.agent.says;
                backend.agent.heard(event);
                let now = backend.agent.says;
                if now == before {
                    continue;
                }
                self.dirty.insert(service.id);
                // A weight may change with every answer: that is for statistics.
                if (now.down, now.admin) != (before.down, before.admin) {
                    let (service, backend_name) = (&service.spec.name, &backend.spec.name);
                    let text = format!("{service}/{backend_name}: its agent says {}", words(&now));
                    let happened = Happened::to_node(Kind::Agent, text, &event.outcome.output);
                    self.log.add(happened.to_backend(service, backend_name));
                }
            }
        }
    }
}

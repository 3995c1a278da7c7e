//! Agents beside backends: who is asked, and what their answers change.

use std::collections::HashMap;

use super::{Node, Place, loaded};
use crate::{
    events::{Happened, Kind},
    health::agent::{AgentEvent, AgentHealth, words},
};

impl Node {
    /// Tells whom to ask. Where there is no agent any more, nothing is left of what it has said.
    pub(super) fn set_agents(&mut self) {
        let mut asked: HashMap<_, Vec<Place>> = HashMap::new();
        for (place, service) in self.services.iter_mut().enumerate() {
            for (number, backend) in service.backends.iter_mut().enumerate() {
                if backend.removed {
                    continue;
                }
                match loaded::agent(&service.spec, &backend.spec) {
                    Some(key) => asked.entry(key).or_default().push(Place {
                        service: (place, service.id),
                        backend: (number, backend.id),
                    }),
                    None if backend.agent == AgentHealth::default() => {}
                    None => {
                        backend.agent = AgentHealth::default();
                        backend.unsaved = true;
                        self.dirty.insert(service.id);
                    }
                }
            }
        }
        self.agents.set(asked.keys().cloned().collect());
        self.asked = asked;
    }

    /// An agent has been asked.
    pub(super) fn agent_changed(&mut self, event: &AgentEvent) {
        for place in self.asked.get(&event.key).into_iter().flatten() {
            let Some((service, number)) = place.find(&mut self.services) else { continue };
            let backend = &mut service.backends[number];
            if backend.removed {
                continue;
            }
            let before = backend.agent.says;
            backend.agent.heard(event);
            let now = backend.agent.says;
            if now == before {
                continue;
            }
            backend.unsaved = true;
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

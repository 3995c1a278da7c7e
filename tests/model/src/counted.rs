//! Services that count their connections (`count_connections`, nat of TCP): one is there from the backend's SYN-ACK to a reset, or until the
//! controller finds it closed or idle, which takes longer than a comparison's moment.

use std::collections::HashMap;

use crate::{
    config::{Config, Service},
    ip::TCP,
    outcome::{part, reason},
    state::State,
    transport::{Flow, Sound},
};

/// Connections, and whether one side has closed them.
#[derive(Debug, Default)]
pub struct Connections(HashMap<Flow, bool>);

impl Connections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn note(&mut self, flow: &Flow, sound: &Sound) {
        if sound.is_reset {
            self.0.remove(flow);
        } else if let Some(is_closed) = self.0.get_mut(flow) {
            *is_closed |= sound.is_closing;
        }
    }
}

/// A client's packet is on its way to its backend.
pub fn request(state: &mut State, service: &Service, flow: &Flow, sound: &Sound) {
    if service.counts && flow.protocol == TCP {
        state.connections.note(flow, sound);
    }
}

/// A backend's packet of a flow, given in the client's direction.
pub fn reply(config: &Config, state: &mut State, service: &Service, flow: &Flow, sound: &Sound) {
    if !service.counts || flow.protocol != TCP {
        return;
    }
    if !sound.is_syn_ack {
        return state.connections.note(flow, sound);
    }
    let connections = &mut state.connections.0;
    // The same ports again, before the controller has found the connection before closed.
    if connections.get(flow).is_some_and(|is_closed| *is_closed) {
        connections.remove(flow);
    }
    if connections.contains_key(flow) {
        return;
    }
    if connections.len() >= config.most_connections {
        return state.count(service.id, reason::UNCOUNTED);
    }
    connections.insert(*flow, false);
    state.met(part::COUNTED);
}

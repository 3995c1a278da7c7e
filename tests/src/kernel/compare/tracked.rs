//! Tracked flows, remembered clients and counted connections: what of them is compared, and how the program forgets them.

use lb_common::abi::{
    BackendLoad, Connection, FlowKey, Pin, RememberedSource, ServiceLoad, SourceKey, map,
};
use lb_model::Model;

use super::super::{Kernel, clear};

/// # Panics
/// If a number of connections, entries or turns is not what the model says.
pub fn compare(kernel: &mut Kernel, model: &Model) {
    let connections = kernel.hash_map::<FlowKey, Connection>(map::CONNECTIONS).keys().count();
    assert_eq!(connections, model.connections(), "connections at the end of a batch");
    for service in model.config().services().iter().filter(|service| service.track.is_some()) {
        let (load, expected) = (kernel.service_load(service.id), model.tracked().load(service.id));
        let found = lb_model::track::Load {
            turn: load.turn,
            connections: load.connections,
            unconfirmed: load.unconfirmed,
            confirmed: load.confirmed,
        };
        assert_eq!(found, expected, "what service {} has at the end of a batch", service.id);
        for backend in &service.backends {
            let (found, id) = (kernel.connections(backend.id), backend.id);
            let expected = model.tracked().connections(id);
            assert_eq!(found, expected, "connections of backend {id} at the end of a batch");
        }
    }
}

/// Makes the program forget all of it.
pub fn forget(kernel: &mut Kernel, model: &Model) {
    clear(&mut kernel.hash_map::<FlowKey, Pin>(map::FLOWS)).expect("removing flows");
    clear(&mut kernel.hash_map::<FlowKey, Pin>(map::FLOWS_NEW)).expect("removing flows");
    let mut sources = kernel.hash_map::<SourceKey, RememberedSource>(map::SOURCES);
    clear(&mut sources).expect("removing clients");
    let mut connections = kernel.hash_map::<FlowKey, Connection>(map::CONNECTIONS);
    clear(&mut connections).expect("removing connections");
    for service in model.config().services() {
        let Some(track) = &service.track else { continue };
        let mut loads = kernel.array::<ServiceLoad>(map::SERVICE_LOADS);
        loads.set(service.id, ServiceLoad::default(), 0).expect("within");
        for (backend, weight) in service.backends.iter().zip(&track.weights) {
            let load = BackendLoad { connections: 0, weight: *weight };
            kernel.array::<BackendLoad>(map::LOADS).set(backend.id, load, 0).expect("within");
        }
    }
}

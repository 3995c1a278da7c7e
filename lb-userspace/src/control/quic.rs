//! Server ids of QUIC services, from the configuration to the packet path.

use std::collections::HashMap;

use lb_common::{
    abi::{BackendId, QuicId, service_flag},
    quic::{Formats, SERVER_ID},
};

use super::{Node, apply::ApplyError, loaded::Service};
use crate::config::model::{Config, Protocol, Service as Spec};

/// Whether the program has to know of QUIC at all.
pub(super) fn wanted(config: &Config) -> bool {
    config.services.iter().any(|service| flags(service) != 0)
}

/// The flags of a service's row that go with it.
pub(super) fn flags(spec: &Spec) -> u32 {
    if spec.listen.protocol == Protocol::Quic { service_flag::QUIC } else { 0 }
}

/// The lengths of a service's server ids.
fn formats(spec: &Spec) -> Formats {
    let Some(format) = spec.quic_lb.as_ref().filter(|_| flags(spec) != 0) else {
        return Formats::default();
    };
    let with =
        |all: Formats, config: &u8| all.with((*config).into(), format.server_id_length.into());
    format.config_ids.iter().fold(Formats::default(), with)
}

/// The backend of each server id. One that is gone from the file keeps its id for the connections it has, unless another has it.
fn ids(service: &Service) -> HashMap<QuicId, BackendId> {
    let Some(format) = service.spec.quic_lb.as_ref().filter(|_| flags(&service.spec) != 0) else {
        return HashMap::new();
    };
    let mut found = HashMap::new();
    let (gone, there): (Vec<_>, Vec<_>) = service.backends.iter().partition(|one| one.removed);
    for backend in gone.into_iter().chain(there) {
        let Some(id) = backend.spec.server_id.as_deref().filter(|id| id.len() <= SERVER_ID) else {
            continue;
        };
        for &config in &format.config_ids {
            let mut key = QuicId { service: service.id, config, id: [0; SERVER_ID] };
            key.id[..id.len()].copy_from_slice(id);
            found.insert(key, backend.id);
        }
    }
    found
}

impl Node {
    /// Tells the packet path where connection ids of a service lead.
    pub(super) fn publish_server_ids(&mut self, index: usize) -> Result<(), ApplyError> {
        let service = &self.services[index];
        let (id, formats, ids) = (service.id, formats(&service.spec), ids(service));
        self.dataplane
            .quic_ids()
            .set(id, formats, &ids)
            .map_err(|error| ApplyError::Dataplane(error.into()))
    }
}

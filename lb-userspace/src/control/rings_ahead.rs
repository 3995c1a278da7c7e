//! Base rings of a configuration's new services, made on a thread of their own while the services before them are
//! published: of a large configuration they are a good part of the work.

use std::{
    sync::mpsc,
    thread::{Scope, ScopedJoinHandle},
};

use lb_common::{abi::BackendId, hash::HashKeys};

use super::loaded::ListenKey;
use crate::{
    config::model,
    plan::ring::{self, BaseRing, Member},
};

/// Rings that may wait to be used: each takes eight bytes a slot.
const WAITING: usize = 32;
/// From so many new services on, a thread is worth it.
const MANY: usize = 16;

/// Rings in the order of their services.
pub(super) struct RingsAhead<'scope> {
    made: Option<mpsc::Receiver<(ListenKey, BaseRing)>>,
    _thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> RingsAhead<'scope> {
    /// Begins with the rings of these services. Dropping this ends it.
    pub(super) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        services: Vec<&'env model::Service>,
        keys: HashKeys,
    ) -> Self {
        if services.len() < MANY {
            return Self { made: None, _thread: None };
        }
        let (send, made) = mpsc::sync_channel(WAITING);
        let thread = scope.spawn(move || {
            for service in services {
                // Nobody listens any more: the apply has failed.
                if send.send((ListenKey::of(service), base_ring(service, &keys))).is_err() {
                    return;
                }
            }
        });
        Self { made: Some(made), _thread: Some(thread) }
    }

    /// The ring of the next new service, if this is it. It may be one that its members do not fit.
    pub(super) fn take(&mut self, key: &ListenKey) -> Option<BaseRing> {
        let (of, ring) = self.made.as_ref()?.recv().ok()?;
        (of == *key).then_some(ring)
    }
}

fn base_ring(service: &model::Service, keys: &HashKeys) -> BaseRing {
    let backends = service.backends.iter().filter(|backend| !backend.origin.is_template());
    let slots = ring::ring_length(backends.clone().map(|one| one.weight), service.ring_size);
    let member = |backend: &std::sync::Arc<model::Backend>| Member {
        id: BackendId::NONE,
        address: backend.address,
        port: backend.port,
        configured: backend.weight,
        effective: backend.weight,
        percent: 100,
        ramp: 100,
    };
    BaseRing::new(slots, keys, &backends.map(member).collect::<Vec<_>>())
}

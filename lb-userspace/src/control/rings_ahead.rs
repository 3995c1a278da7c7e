//! Base rings of a configuration's new services, made on threads of their own while the services before them are
//! published: of a large configuration they are most of the work.

use std::{sync::mpsc, thread::Scope};

use lb_common::{abi::BackendId, hash::HashKeys};

use super::loaded::ListenKey;
use crate::{
    config::model,
    plan::ring::{self, BaseRing, Member},
};

/// How many make them, each every so manyth ring.
const THREADS: usize = 2;
/// Rings of each that may wait to be used: a ring takes eight bytes a slot.
const WAITING: usize = 16;
/// From so many new services on, threads are worth it.
const MANY: usize = 16;

/// Rings in the order of their services.
#[derive(Default)]
pub(super) struct RingsAhead {
    /// Of each thread what it has made; none for few services.
    made: Vec<mpsc::Receiver<(ListenKey, BaseRing)>>,
    /// How many were taken.
    taken: usize,
}

impl RingsAhead {
    /// Begins with the rings of these services. Dropping this ends it.
    pub(super) fn begin<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        services: Vec<&'env model::Service>,
        keys: HashKeys,
    ) -> Self {
        if services.len() < MANY {
            return Self::default();
        }
        let threads = (0..THREADS).map(|thread| {
            let own: Vec<_> = services.iter().skip(thread).step_by(THREADS).copied().collect();
            let (send, made) = mpsc::sync_channel(WAITING);
            scope.spawn(move || {
                for service in own {
                    // Nobody listens any more: the apply has failed.
                    if send.send((ListenKey::of(service), base_ring(service, &keys))).is_err() {
                        return;
                    }
                }
            });
            made
        });
        Self { made: threads.collect(), taken: 0 }
    }

    /// The ring of the next new service, if this is it. It may be one that its members do not fit.
    pub(super) fn take(&mut self, key: &ListenKey) -> Option<BaseRing> {
        let made = self.made.get(self.taken % THREADS)?;
        self.taken += 1;
        let (of, ring) = made.recv().ok()?;
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

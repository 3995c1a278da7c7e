//! Services of several ports or of prefixes: their lists, which name rows and backends.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::abi::PortEntry;

use super::{Node, apply::ApplyError, loaded::Service};
use crate::{
    config::model::{
        Config, Forward, Listen, Protocol,
        listen::{is_address, lists},
    },
    dataplane::ListKey,
};

/// What of it the packet path needs: the value of the global `PORTS`.
pub(super) fn wanted(config: &Config) -> u32 {
    let mut listens = config.services.iter().map(|service| &service.listen);
    if listens.clone().any(|listen| listen.prefixes().next().is_some()) {
        return 2;
    }
    u32::from(listens.any(|listen| !listen.has_one_port()))
}

impl Node {
    /// Makes the lists what the services need.
    pub(super) fn publish_ports(&mut self) -> Result<(), ApplyError> {
        self.ports_due = false;
        let services = self.services.iter().filter(|service| service.row != 0);
        let rows = lists(services.clone().map(|service| (&service.spec.listen, service.row)));
        let mut wanted: BTreeMap<ListKey, Vec<PortEntry>> = rows
            .into_iter()
            .map(|((vip, protocol), list)| (ListKey::Service(vip, protocol), list))
            .collect();
        for (key, list) in answers(services) {
            wanted.insert(key, list);
        }
        let rests = self.dataplane.publish_ports(&wanted);
        self.grace_wanted |= rests.map_err(|error| ApplyError::Dataplane(error.into()))?;
        Ok(())
    }

    /// The same if anything has changed since.
    pub(super) fn publish_due_ports(&mut self) {
        if self.ports_due
            && let Err(error) = self.publish_ports()
        {
            tracing::error!(%error, "lists of ports could not be written");
        }
    }

    /// The service that a packet is for.
    pub(super) fn service_at(&self, to: SocketAddr, protocol: Protocol) -> Option<&Service> {
        let is_own = self.snapshot.addresses.iter().any(|own| own.address == to.ip());
        let matching = self.services.iter().filter_map(|service| {
            let listen = &service.spec.listen;
            let fits = listen.protocol.number() == protocol.number() && has_port(listen, to.port());
            let vips = listen.vips.iter().filter(|vip| fits && vip.contains(&to.ip()));
            // This host's own addresses are the host's within a prefix.
            let longest = vips.filter(|vip| !is_own || is_address(vip)).map(|vip| vip.prefix_len());
            let width = listen.last_port - listen.port;
            Some((std::cmp::Reverse(longest.max()?), listen.port_rank(), width, service))
        });
        matching
            .min_by_key(|(longest, rank, width, _)| (*longest, *rank, *width))
            .map(|best| best.3)
    }
}

fn has_port(listen: &Listen, port: u16) -> bool {
    (listen.port.max(1)..=listen.last_port).contains(&port)
}

/// Whose answers come from which ports of nat backends: of ports of several services, those of the fewest count.
fn answers<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<ListKey, Vec<PortEntry>> {
    let mut found: BTreeMap<ListKey, Vec<PortEntry>> = BTreeMap::new();
    for service in services.filter(|service| service.spec.forward == Forward::Nat) {
        let listen = &service.spec.listen;
        for backend in service.backends.iter().filter(|backend| backend.spec.port == 0) {
            let key = ListKey::Reply(backend.spec.address, service.key.protocol);
            let entry = PortEntry::new(listen.port.max(1), listen.last_port, backend.id.0);
            found.entry(key).or_default().push(entry);
        }
    }
    for list in found.values_mut() {
        list.sort_unstable_by_key(|entry| (entry.last() - entry.first(), entry.first()));
    }
    found
}

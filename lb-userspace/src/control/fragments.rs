//! Services that fragments go to by the client's address, where nothing else is known of them.

use lb_common::{
    abi::{Address, key_kind},
    be::Be16,
};

use super::{
    Node,
    apply::{ApplyError, table_full},
    loaded::Service,
};

impl Node {
    /// The service's row for fragments of which nothing else is known, if it takes them, in place of the row `old` (0 = none).
    pub(super) fn publish_fragments(&mut self, index: usize, old: u32) -> Result<(), ApplyError> {
        let service = &mut self.services[index];
        let (row, protocol, any) = (service.row, service.key.protocol, Be16::from_host(0));
        let mut wanted = Vec::new();
        if service.spec.stateless_fragments {
            wanted.extend(service.spec.listen.addresses());
        }
        if old == 0 && wanted == service.fragment_vips {
            return Ok(());
        }
        let before = std::mem::replace(&mut service.fragment_vips, wanted.clone());
        for vip in &wanted {
            self.dataplane
                .publish(Address::from(*vip), any, protocol, key_kind::FRAGMENTS, row)
                .map_err(table_full)?;
        }
        for vip in before.into_iter().filter(|vip| !wanted.contains(vip)) {
            for row in [row, old] {
                let kind = key_kind::FRAGMENTS;
                self.dataplane.unpublish_if(Address::from(vip), any, protocol, kind, row);
            }
            self.grace_wanted = true;
        }
        Ok(())
    }

    /// No fragment finds the service from now on.
    pub(super) fn withdraw_fragments(&mut self, service: &Service) {
        let any = Be16::from_host(0);
        for vip in &service.fragment_vips {
            let (vip, protocol) = (Address::from(*vip), service.key.protocol);
            self.dataplane.unpublish_if(vip, any, protocol, key_kind::FRAGMENTS, service.row);
        }
    }

    /// Takes out what a crash between two entries has left: rows that are no service's get another one next.
    pub(super) fn drop_orphaned_fragments(&mut self) {
        let rows: Vec<u32> = self.services.iter().map(|service| service.row).collect();
        for (key, row) in self.dataplane.entries() {
            if key.kind == key_kind::FRAGMENTS && !rows.contains(&row) {
                let any = Be16::from_host(0);
                self.dataplane.unpublish(key.address, any, key.protocol, key_kind::FRAGMENTS);
                self.grace_wanted = true;
            }
        }
    }
}

//! VIP addresses that lb puts on NICs (`listen.add_address_to`).

use std::net::IpAddr;

use super::Node;

impl Node {
    /// Puts wanted addresses on, takes those off that lb had put on and nobody wants any more.
    pub(super) fn change_addresses(&mut self, changes: &mut Vec<String>) {
        let wanted: Vec<(String, IpAddr)> = self
            .services
            .iter()
            .filter_map(|service| {
                let listen = &service.spec.listen;
                let name = listen.add_address_to.as_ref()?;
                Some(listen.addresses().map(move |address| (name.clone(), address)))
            })
            .flatten()
            .collect();
        for (name, address) in std::mem::take(&mut self.state.addresses) {
            if wanted.contains(&(name.clone(), address)) {
                self.state.addresses.push((name, address));
                continue;
            }
            self.net.remove_address(&name, address);
            changes.push(format!("address {address}: taken off {name}"));
        }
        for (name, address) in wanted {
            let ours = self.state.addresses.contains(&(name.clone(), address));
            let there = self.snapshot.link_by_name(&name).is_some_and(|link| {
                self.snapshot
                    .addresses
                    .iter()
                    .any(|entry| entry.ifindex == link.ifindex && entry.address == address)
            });
            if there {
                // Put there by somebody else (keepalived, the operator): not ours to take off.
                continue;
            }
            self.net.add_address(&name, address);
            if !ours {
                changes.push(format!("address {address}: put on {name}"));
                self.state.addresses.push((name, address));
            }
        }
    }
}

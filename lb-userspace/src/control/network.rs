//! Follows the host's links, routes and neighbours into the maps.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use lb_common::{
    abi::{Address, BackendRow, NextHopRow, backend_flag, entropy, nexthop_flag},
    be::Be16,
    encap::outer_sum,
};

use super::{
    Node,
    loaded::{Backend, Service},
};
use crate::{
    config::model,
    dataplane::{AttachMode, Attachment},
    events::{Happened, Kind},
    net::{Path, Snapshot},
};

impl Node {
    /// Takes over a new picture of the network.
    pub(super) fn network_changed(&mut self, snapshot: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        let same = before.links == self.snapshot.links
            && before.addresses == self.snapshot.addresses
            && before.routes == self.snapshot.routes;
        if same {
            self.neighbours_changed(&before);
            return;
        }
        self.publish_devices();
        self.publish_rows(|_| true);
        if let Err(error) = self.publish_addresses() {
            tracing::error!(%error, "addresses could not be published");
        }
        self.publish_network();
    }

    /// Neighbours come and go by the thousand: only what leads to those that have changed is published.
    fn neighbours_changed(&mut self, before: &Snapshot) {
        let changed = before.changed_neighbours(&self.snapshot);
        if changed.is_empty() {
            return;
        }
        let gateway = |route: &crate::net::Route| {
            route.gateway.is_some_and(|gateway| changed.contains(&gateway))
        };
        match self.snapshot.routes.iter().any(gateway) {
            true => self.publish_rows(|_| true),
            false => self.publish_rows(|backend| changed.contains(&backend.spec.address)),
        }
        self.publish_routes();
    }

    pub(super) fn publish_rows(&mut self, concerns: impl Fn(&Backend) -> bool) {
        for service in 0..self.services.len() {
            for backend in 0..self.services[service].backends.len() {
                if concerns(&self.services[service].backends[backend]) {
                    self.publish_backend_row(service, backend);
                }
            }
        }
    }

    /// Publishes what belongs to no service, and attaches.
    pub(super) fn publish_network(&mut self) {
        self.publish_devices();
        self.publish_routes();
        // Last: a program that takes another's place has to know everything from its first packet on.
        self.attach_interfaces();
        self.follow_next_hops();
    }

    /// Writes a backend's row if it is not what it should be.
    pub(super) fn publish_backend_row(&mut self, service: usize, backend: usize) {
        let service = &self.services[service];
        let backend = &service.backends[backend];
        let loaded = self.dataplane.backends().get(backend.id.0);
        let path = self.snapshot.resolve(backend.spec.address);
        let mut row = next_hop(&loaded, service.spec.forward, path.as_ref());
        row.address = Address::from(backend.spec.address);
        row.port = Be16::from_host(match service.spec.forward {
            model::Forward::Gue { port } => port,
            _ => backend.spec.port,
        });
        row.service = service.id;
        if service.spec.forward.is_tunnel() {
            let own = || path.as_ref().map_or(loaded.source, |path| Address::from(path.source));
            let prefix = match service.spec.forward {
                model::Forward::Ipip => {
                    self.outer_source.iter().find(|prefix| is_v4(prefix) == row.address.is_v4())
                }
                _ => None,
            };
            row.source = prefix.map_or_else(own, |prefix| Address::from(prefix.network()));
            row.outer_sum = outer_sum(&row.source, &row.address);
            row.flags |= BackendRow::flags_of_source_bits(prefix.map_or(0, source_bits));
            if service.spec.forward == model::Forward::Ipip {
                row.flags |= backend_flag::IPIP;
            }
        }
        if takes_flows_away(service, backend) {
            row.flags |= backend_flag::DOWN;
        }
        if backend.removed {
            row.flags |= backend_flag::REMOVED;
        }
        if row == loaded {
            return;
        }
        let known = backend_flag::RESOLVED;
        let where_to = |row: &BackendRow| (row.flags & known, row.dst_mac, row.ifindex);
        if loaded.flags & known != 0 && where_to(&row) != where_to(&loaded) {
            let (name, spec) = (&service.spec.name, &backend.spec);
            let text = format!(
                "{name}/{}: its next hop is {}",
                spec.name,
                self.next_hop_text(service, spec.address, &row)
            );
            let cause = format!("was {}", mac_text(&loaded.dst_mac));
            let happened = Happened::to_node(Kind::NextHop, text, cause);
            self.log.add(happened.to_backend(name, &spec.name));
        }
        self.dataplane.backends().set(backend.id.0, &row);
    }

    /// Attaches to every configured NIC that exists and is not attached.
    pub(super) fn attach_interfaces(&mut self) {
        self.publish_devices();
        let refit = std::mem::take(&mut self.refit);
        let mut problems = Vec::new();
        let attachments = self.dataplane.attachments();
        for name in self.interfaces.clone() {
            let Some(link) = self.snapshot.link_by_name(&name) else {
                problems.push((
                    name.clone(),
                    format!("NIC {name} does not exist; lb attaches when it appears"),
                ));
                continue;
            };
            let ifindex = link.ifindex;
            let fits = |found: &Attachment| !refit || found.mode.suits(self.xdp_mode);
            let found = attachments.iter().find(|a| a.ifname == name && a.ifindex == ifindex);
            if found.is_some_and(|found| found.ours && fits(found)) {
                self.attached_to.insert(name, ifindex);
                continue;
            }
            let taken_off = found.is_none() && self.attached_to.get(&name) == Some(&ifindex);
            match self.dataplane.attach(ifindex, &name, self.xdp_mode, self.force) {
                Ok(mode) => {
                    if taken_off {
                        *self.taken_off.entry(name.clone()).or_default() += 1;
                    }
                    self.attached_to.insert(name.clone(), ifindex);
                    let cause = match (taken_off, found.is_some()) {
                        (true, _) => "somebody else had taken lb's program off it",
                        (false, true) => "in place of the program or the mode before",
                        (false, false) => "it is configured",
                    };
                    let text = format!("{name}: attached in {mode} mode");
                    self.log.add(Happened::to_node(Kind::Nic, text, cause));
                    if mode == AttachMode::Generic && self.xdp_mode != model::XdpMode::Generic {
                        tracing::warn!(
                            interface = name,
                            "the driver cannot run XDP natively: generic mode costs several times as much"
                        );
                    }
                }
                Err(error) => problems.push((name.clone(), error.to_string())),
            }
        }
        for (name, problem) in &problems {
            if self.interface_problems.get(name) != Some(problem) {
                let text = format!("{name}: not attached");
                self.log.add(Happened::to_node(Kind::Nic, text, problem.clone()));
                tracing::error!(interface = name, "{problem}");
            }
        }
        self.interface_problems = problems.into_iter().collect();
    }

    /// The tables of NICs come before the program that asks them.
    fn publish_devices(&mut self) {
        let devices: Vec<(u32, u32)> = self
            .interfaces
            .iter()
            .enumerate()
            .filter_map(|(number, name)| {
                Some((self.snapshot.link_by_name(name)?.ifindex, number as u32))
            })
            .collect();
        if let Err(error) = self.dataplane.set_devices(&devices) {
            tracing::error!(%error, "the table of NICs could not be written");
        }
    }

    /// Bit mask of NIC numbers.
    pub(super) fn interface_mask(&self, names: &[String]) -> u32 {
        names
            .iter()
            .filter_map(|name| self.interfaces.iter().position(|known| known == name))
            .fold(0, |mask, number| mask | 1 << number)
    }

    /// NICs with a program of ours, as the kernel sees them.
    pub(super) fn attached(&self) -> Vec<Attachment> {
        self.dataplane.attachments()
    }

    fn publish_routes(&mut self) {
        if !self.services.iter().any(|service| service.spec.forward.sees_replies()) {
            return;
        }
        let routes = self
            .snapshot
            .routes
            .iter()
            .map(|route| (route.destination, self.route_row(route)))
            .collect();
        if let Err(error) = self.dataplane.set_routes(routes) {
            tracing::warn!(%error, "the host's routes could not be mirrored; replies ask the kernel");
        }
        let attached: Vec<u32> = self
            .interfaces
            .iter()
            .filter_map(|name| Some(self.snapshot.link_by_name(name)?.ifindex))
            .collect();
        let neighbours = self
            .snapshot
            .neighbours
            .iter()
            .filter(|((ifindex, _), neighbour)| attached.contains(ifindex) && neighbour.usable())
            .filter_map(|((ifindex, address), neighbour)| {
                Some((*ifindex, *address, neighbour.mac?))
            })
            .collect();
        if let Err(error) = self.dataplane.set_neighbours(neighbours) {
            tracing::warn!(%error, "the host's neighbours could not be mirrored; replies ask the kernel");
        }
    }

    fn route_row(&self, route: &crate::net::Route) -> NextHopRow {
        let mut row = NextHopRow { ifindex: route.ifindex, ..NextHopRow::default() };
        let Some(link) = self.snapshot.links.get(&route.ifindex) else {
            // Not left out, or replies would take the next shorter prefix; unresolved, so that they ask the kernel.
            row.gateway = route.gateway.map(Address::from).unwrap_or_default();
            return row;
        };
        row.mtu = link.mtu.min(u16::MAX as u32) as u16;
        row.src_mac = link.mac;
        match route.gateway {
            None => row.flags = nexthop_flag::ON_LINK,
            Some(gateway) => {
                row.gateway = Address::from(gateway);
                if let Some(mac) = self.neighbour_mac(route.ifindex, gateway) {
                    row.dst_mac = mac;
                    row.flags = nexthop_flag::RESOLVED;
                }
            }
        }
        row
    }

    fn neighbour_mac(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        let neighbour = self.snapshot.neighbours.get(&(ifindex, address))?;
        neighbour.usable().then_some(neighbour.mac)?
    }

    /// Tells which neighbours are in use: they are asked for and kept fresh.
    pub(super) fn follow_next_hops(&mut self) {
        let mut used: Vec<(u32, IpAddr)> = self
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .filter_map(|backend| self.snapshot.resolve(backend.spec.address))
            .map(|path| (path.ifindex, path.next_hop))
            .collect();
        if self.services.iter().any(|service| service.spec.forward.sees_replies()) {
            used.extend(
                self.snapshot
                    .routes
                    .iter()
                    .filter_map(|route| Some((route.ifindex, route.gateway?))),
            );
        }
        used.sort_unstable();
        used.dedup();
        used.retain(|(ifindex, _)| self.snapshot.links.get(ifindex).is_some_and(|link| link.up));
        self.net.keep_fresh(used);
    }

    /// Next hop of a backend in words.
    pub(super) fn next_hop_text(
        &self,
        service: &Service,
        address: IpAddr,
        row: &BackendRow,
    ) -> String {
        let Some(path) = self.snapshot.resolve(address) else { return "no route".to_owned() };
        let name = self.snapshot.links.get(&path.ifindex).map_or("?", |link| link.name.as_str());
        if service.spec.forward == model::Forward::Dsr && !path.on_link {
            return format!(
                "not on link (route by {}): dsr needs a layer 2 neighbour",
                path.next_hop
            );
        }
        if row.flags & backend_flag::RESOLVED == 0 {
            return format!("{name}: {} unresolved", path.next_hop);
        }
        let via = if path.on_link { String::new() } else { format!(" via {}", path.next_hop) };
        format!("{name}{via} {}", mac_text(&row.dst_mac))
    }
}

/// Bits of the program's `ENTROPY`: how outer headers tell flows apart.
pub(super) fn entropy(config: &model::Config) -> u32 {
    let any = |wanted: fn(&model::Forward) -> bool| {
        config.services.iter().any(|service| wanted(&service.forward))
    };
    let mut bits = 0;
    if any(|forward| forward.is_gue()) {
        bits |= entropy::SOURCE_PORT;
    }
    if is_spread(&config.outer_source) && any(|forward| *forward == model::Forward::Ipip) {
        bits |= entropy::SOURCE_ADDRESS;
    }
    bits
}

/// Whether any of what tunnels send from has more than one address.
pub(super) fn is_spread(outer_source: &[IpNet]) -> bool {
    outer_source.iter().any(|prefix| source_bits(prefix) > 0)
}

fn is_v4(prefix: &IpNet) -> bool {
    prefix.addr().is_ipv4()
}

/// Bits of the outer source that tell flows apart: those behind the prefix, of IPv6 at most the last word.
fn source_bits(prefix: &IpNet) -> u32 {
    u32::from(prefix.max_prefix_len() - prefix.prefix_len()).min(32)
}

/// Whether flows that are open have to leave a backend, in the service's mode.
pub(super) fn takes_flows_away(service: &Service, backend: &Backend) -> bool {
    let candidate = backend.candidate();
    let stay = service.spec.on_marked_down == model::OnMarkedDown::Keep
        || service.mode.ignores_health()
        // An ejected backend has failed to open connections: those that are open may be in full work.
        || (candidate.healthy && !candidate.agent.down);
    candidate.is_out() || !stay
}

fn mac_text([a, b, c, d, e, f]: &[u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The next-hop part of a row. A neighbour that is being asked for again keeps its last known MAC address.
fn next_hop(loaded: &BackendRow, forward: model::Forward, path: Option<&Path>) -> BackendRow {
    let keep = BackendRow {
        dst_mac: loaded.dst_mac,
        src_mac: loaded.src_mac,
        mtu: loaded.mtu,
        ifindex: loaded.ifindex,
        flags: loaded.flags & backend_flag::RESOLVED,
        ..BackendRow::default()
    };
    let Some(path) = path else { return keep };
    if forward == model::Forward::Dsr && !path.on_link {
        return BackendRow { flags: 0, ..keep };
    }
    let fresh = BackendRow {
        src_mac: path.src_mac,
        mtu: path.mtu.min(u16::MAX as u32) as u16,
        ifindex: path.ifindex,
        ..BackendRow::default()
    };
    match path.dst_mac {
        Some(mac) => BackendRow { dst_mac: mac, flags: backend_flag::RESOLVED, ..fresh },
        None if loaded.ifindex == path.ifindex => BackendRow {
            dst_mac: loaded.dst_mac,
            flags: loaded.flags & backend_flag::RESOLVED,
            ..fresh
        },
        None => fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(mac: Option<[u8; 6]>) -> Path {
        Path {
            ifindex: 3,
            next_hop: "10.0.0.1".parse().unwrap(),
            on_link: true,
            source: "10.0.0.9".parse().unwrap(),
            src_mac: [2; 6],
            dst_mac: mac,
            mtu: 1500,
        }
    }

    #[test]
    fn a_known_mac_outlives_a_moment_without_answer() {
        let empty = BackendRow::default();
        let known = next_hop(&empty, model::Forward::Nat, Some(&path(Some([7; 6]))));
        assert_eq!((known.flags, known.dst_mac, known.mtu), (backend_flag::RESOLVED, [7; 6], 1500));
        let asked_again = next_hop(&known, model::Forward::Nat, Some(&path(None)));
        assert_eq!((asked_again.flags, asked_again.dst_mac), (backend_flag::RESOLVED, [7; 6]));
        let elsewhere = Path { ifindex: 4, ..path(None) };
        assert_eq!(next_hop(&known, model::Forward::Nat, Some(&elsewhere)).flags, 0);
        assert_eq!(next_hop(&known, model::Forward::Nat, None).flags, backend_flag::RESOLVED);
    }

    #[test]
    fn dsr_needs_a_neighbour() {
        let routed = Path { on_link: false, ..path(Some([7; 6])) };
        assert_eq!(next_hop(&BackendRow::default(), model::Forward::Dsr, Some(&routed)).flags, 0);
    }
}

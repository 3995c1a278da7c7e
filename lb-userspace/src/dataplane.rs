//! The data plane from the controller's side: the only module that touches BPF.
//!
//! Program, links and maps are pinned, so that they outlive the daemon; opening adopts what is there, after comparing it
//! with what this binary expects.

mod again;
mod attach;
mod batch;
mod bpffs;
mod capture;
mod clock;
mod connections;
mod counters;
pub mod decap;
mod detach;
mod dry_run;
mod error;
mod failures;
mod few_routes;
mod fill;
mod flows;
mod foreign;
mod fullnat;
mod grace;
mod layout;
mod link;
mod load;
mod lock;
mod mapped;
mod next;
mod nics;
mod openings;
mod options;
mod permission;
mod pinned;
mod pins;
mod ports;
mod prefix;
mod prefix_lists;
mod presence;
pub mod probe;
mod quic;
mod remove;
mod routes;
mod samples;
mod syscall;
mod table;
#[cfg(test)]
mod tests;
mod wanted;

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, xdp::DevMapHash},
};
use ipnet::IpNet;
use lb_common::{
    abi::{
        Address, BackendCounters, BackendLoad, BackendRow, Clock, Connection, FlowKey,
        HandshakeTimes, ListenRow, NextHopRow, ObservedCounters, Pin, Policy, PortEntry, REASONS,
        RememberedSource, ReplyRow, ServiceLoad, ServiceRow, SourceKey,
    },
    be::Be16,
    track::is_open,
};

pub use self::{
    attach::{AttachError, AttachMode, Attachment},
    capture::{CaptureProgram, Captured, CapturedPacket},
    detach::detach_all,
    dry_run::{DryRun, LARGEST_FRAME, Overlay},
    error::LoadError,
    failures::Failures,
    flows::Walk,
    foreign::{OnNic, program_on},
    fullnat::{Fullnat, Taken},
    grace::grace,
    load::Recipe,
    lock::{Lock, LockError},
    mapped::{Arena, Row, Table},
    nics::ProgramInfo,
    openings::Openings,
    options::{Options, Sizes},
    permission::{check as check_permission, missing_capabilities},
    ports::{ListKey, Ports, PortsError},
    prefix_lists::List,
    quic::QuicIds,
    samples::Samples,
    table::{EntryKey, TableFull},
    wanted::Wanted,
};
use self::{
    bpffs::{Hold, PinDirectory},
    connections::Connections,
    counters::Counters,
    flows::Flows,
    pins::Pins,
    prefix_lists::PrefixLists,
    routes::{Neighbours, Routes},
    table::ServiceTable,
};

pub(crate) use self::{
    bpffs::{is_bpffs, shares_mounts_with_init},
    foreign::{attribute, put},
};

/// Everything loaded.
pub struct Dataplane {
    ebpf: Ebpf,
    /// In force instead of the program of `ebpf`.
    capture: Option<CaptureProgram>,
    logger: Option<tokio::task::JoinHandle<()>>,
    directory: PinDirectory,
    adopted: bool,
    options: Options,
    sizes: Sizes,
    arena: Arena,
    services: Table<ServiceRow>,
    backends: Table<BackendRow>,
    replies: Table<ReplyRow>,
    listens: Table<ListenRow>,
    table: ServiceTable,
    ports: Ports,
    resting: usize,
    pins: Pins,
    pins_new: Pins,
    connections: Connections,
    flows: Flows,
    fullnat: Fullnat,
    policies: Table<Policy>,
    service_loads: Table<ServiceLoad>,
    loads: Table<BackendLoad>,
    observed: Table<ObservedCounters>,
    openings: Openings,
    quic_ids: QuicIds,
    counters: Counters,
    routes: Routes,
    neighbours: Neighbours,
    allow: PrefixLists,
    deny: PrefixLists,
    devices: DevMapHash<MapData>,
    interfaces: HashMap<MapData, u32, u32>,
    clock: Array<MapData, Clock>,
    _hold: Hold,
}

impl Dataplane {
    /// Whether maps of an earlier daemon were found.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Sizes as they are.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The slots of all rings.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Rows of services.
    pub fn services(&self) -> &Table<ServiceRow> {
        &self.services
    }

    /// What services listen on beside what their rows say, by id.
    pub fn listens(&self) -> &Table<ListenRow> {
        &self.listens
    }

    /// Lists of ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Makes the lists of ports what they should be; whether a grace period is wanted.
    pub fn publish_ports(
        &mut self,
        wanted: &BTreeMap<ListKey, Vec<PortEntry>>,
    ) -> Result<bool, PortsError> {
        self.ports.publish(&mut self.table, wanted)
    }

    /// Says of which prefixes all addresses are VIPs, and what kind of.
    pub fn publish_vip_prefixes(
        &mut self,
        wanted: &BTreeMap<IpNet, u32>,
    ) -> Result<(), PortsError> {
        self.ports.publish_vips(wanted)
    }

    /// Changes the run-time flags of a published row; they share a word with the id.
    pub fn set_service_flags(&self, row: u32, flags: u32) {
        let mut value = self.services.get(row);
        value.flags = flags;
        self.services.set(row, &value);
    }

    /// Rows of backends, by id.
    pub fn backends(&self) -> &Table<BackendRow> {
        &self.backends
    }

    /// Rows of nat replies, by backend id.
    pub fn replies(&self) -> &Table<ReplyRow> {
        &self.replies
    }

    /// Adds or changes an entry of the service table.
    pub fn publish(
        &mut self,
        address: Address,
        port: Be16,
        protocol: u8,
        kind: u8,
        value: u32,
    ) -> Result<(), TableFull> {
        self.table.publish(EntryKey { address, port: port.to_host(), protocol, kind }, value)
    }

    /// Removes an entry of the service table.
    pub fn unpublish(&mut self, address: Address, port: Be16, protocol: u8, kind: u8) {
        self.table.remove(EntryKey { address, port: port.to_host(), protocol, kind });
    }

    /// Removes an entry if it has this value.
    pub fn unpublish_if(
        &mut self,
        address: Address,
        port: Be16,
        protocol: u8,
        kind: u8,
        value: u32,
    ) {
        let key = EntryKey { address, port: port.to_host(), protocol, kind };
        if self.table.get(key) == Some(value) {
            self.table.remove(key);
        }
    }

    /// All entries of the service table.
    pub fn entries(&self) -> Vec<(EntryKey, u32)> {
        self.table.entries()
    }

    /// A grace period begins: what has been removed so far may be used again when it has passed.
    pub fn grace_begins(&mut self) {
        self.resting = self.table.resting();
        self.ports.grace_begins();
    }

    /// The grace period has passed.
    pub fn grace_passed(&mut self) {
        self.table.grace_passed(std::mem::take(&mut self.resting));
        self.ports.grace_passed();
    }

    /// All pins of one table.
    pub fn dump_pins(&self, confirmed: bool) -> io::Result<Vec<(FlowKey, Pin)>> {
        self.pin_table(confirmed).dump()
    }

    /// A flow's pin.
    pub fn pin(&self, confirmed: bool, flow: &FlowKey) -> Result<Option<Pin>, MapError> {
        self.pin_table(confirmed).get(flow)
    }

    /// Removes a pin.
    pub fn delete_pin(&mut self, confirmed: bool, flow: &FlowKey) -> Result<(), MapError> {
        if confirmed { self.pins.delete(flow) } else { self.pins_new.delete(flow) }
    }

    /// Some pins more of one table; the walk is through when it is at its beginning again.
    pub fn walk_pins(&self, confirmed: bool, walk: &mut Walk) -> io::Result<Vec<(FlowKey, Pin)>> {
        self.pin_table(confirmed).page(walk)
    }

    /// Writes a confirmed pin; false if the table has no room for one more.
    pub fn put_pin(&mut self, flow: &FlowKey, pin: &Pin) -> Result<bool, MapError> {
        self.pins.put(flow, pin)
    }

    /// Size of a pin table.
    pub fn pin_limit(&self, confirmed: bool) -> u32 {
        if confirmed { self.sizes.pins } else { self.sizes.pins_unconfirmed }
    }

    fn pin_table(&self, confirmed: bool) -> &Pins {
        if confirmed { &self.pins } else { &self.pins_new }
    }

    /// What was observed of a backend: all zero unless its service observes it.
    pub fn observed(&self, backend: u32) -> ObservedCounters {
        self.observed.get(backend)
    }

    /// All connections that are counted.
    pub fn dump_connections(&self) -> io::Result<Vec<(FlowKey, Connection)>> {
        self.connections.dump()
    }

    /// Removes a connection unless a packet has changed it since it was read.
    pub fn delete_connection(&mut self, flow: &FlowKey, read: &Connection) -> Result<(), MapError> {
        self.connections.delete(flow, read)
    }

    /// Limits of rate and SYN-flood stages.
    pub fn openings(&self) -> &Openings {
        &self.openings
    }

    /// Where connection ids of QUIC lead.
    pub fn quic_ids(&mut self) -> &mut QuicIds {
        &mut self.quic_ids
    }

    /// A tracked flow's entry.
    pub fn flow(&self, confirmed: bool, flow: &FlowKey) -> Result<Option<Pin>, MapError> {
        self.flows.table(confirmed).get(flow)
    }

    /// Some tracked flows more of one table; the walk is through when it is at its beginning again.
    pub fn walk_flows(&self, confirmed: bool, walk: &mut Walk) -> io::Result<Vec<(FlowKey, Pin)>> {
        self.flows.table(confirmed).page(walk)
    }

    /// Removes a tracked flow, and what it counts for, unless a packet has changed it since it was read.
    pub fn delete_flow(
        &mut self,
        confirmed: bool,
        flow: &FlowKey,
        read: &Pin,
    ) -> Result<(), MapError> {
        if self.flows.delete(confirmed, flow, read)? {
            let table = match confirmed {
                true => offset_of!(ServiceLoad, confirmed),
                false => offset_of!(ServiceLoad, unconfirmed),
            };
            if read.service < self.service_loads.len() {
                self.service_loads.add(read.service, table, -1);
            }
            if is_open(read) {
                self.add_connections(read.service, read.backend.0, -1);
            }
        }
        Ok(())
    }

    /// Writes a confirmed tracked flow in place of `before`, and counts it; false if there is no room for one more.
    pub fn put_flow(
        &mut self,
        flow: &FlowKey,
        entry: &Pin,
        before: Option<&Pin>,
    ) -> Result<bool, MapError> {
        if !self.flows.put(flow, entry)? {
            return Ok(false);
        }
        match before {
            Some(before) if is_open(before) => {
                self.add_connections(before.service, before.backend.0, -1);
            }
            Some(_) => {}
            None => self.add_entries(entry.service, [0, 1]),
        }
        if is_open(entry) {
            self.add_connections(entry.service, entry.backend.0, 1);
        }
        Ok(true)
    }

    /// Remembers a client; false if there is no room for one more.
    pub fn put_source(
        &mut self,
        key: &SourceKey,
        source: &RememberedSource,
    ) -> Result<bool, MapError> {
        self.flows.put_source(key, source)
    }

    /// Corrects the number of connections of a backend and of its service.
    pub fn add_connections(&self, service: u32, backend: u32, more: i64) {
        if backend < self.loads.len() {
            self.loads.add(backend, offset_of!(BackendLoad, connections), more);
        }
        if service < self.service_loads.len() {
            self.service_loads.add(service, offset_of!(ServiceLoad, connections), more);
        }
    }

    /// Corrects the numbers of a service's entries: unconfirmed, confirmed.
    pub fn add_entries(&self, service: u32, more: [i64; 2]) {
        self.service_loads.add(service, offset_of!(ServiceLoad, unconfirmed), more[0]);
        self.service_loads.add(service, offset_of!(ServiceLoad, confirmed), more[1]);
    }

    /// Sizes of the tables of tracked flows: unconfirmed, confirmed.
    pub fn flow_limits(&self) -> [u32; 2] {
        [self.sizes.flows_unconfirmed, self.sizes.flows]
    }

    /// Some remembered clients more; the walk is through when it is at its beginning again.
    pub fn walk_sources(&self, walk: &mut Walk) -> io::Result<Vec<(SourceKey, RememberedSource)>> {
        self.flows.sources(walk)
    }

    /// A remembered client.
    pub fn source(&self, key: &SourceKey) -> Result<Option<RememberedSource>, MapError> {
        self.flows.source(key)
    }

    /// Forgets a client unless it has been heard of since it was read.
    pub fn delete_source(
        &mut self,
        key: &SourceKey,
        read: &RememberedSource,
    ) -> Result<(), MapError> {
        self.flows.delete_source(key, read).map(drop)
    }

    /// How services choose, by id.
    pub fn policies(&self) -> &Table<Policy> {
        &self.policies
    }

    /// Loads of services, by id.
    pub fn service_loads(&self) -> &Table<ServiceLoad> {
        &self.service_loads
    }

    /// The load of a backend, and its weight in force.
    pub fn load_of(&self, backend: u32) -> BackendLoad {
        self.loads.get(backend)
    }

    /// Sets the weight in force of a backend.
    pub fn set_load_weight(&self, backend: u32, weight: u64) {
        self.loads.set_word(backend, offset_of!(BackendLoad, weight) / 8, weight);
    }

    /// Times of handshakes of backends, in the order of `ids`.
    pub fn handshakes(&self, ids: &[u32]) -> io::Result<Vec<HandshakeTimes>> {
        self.counters.handshakes(ids)
    }

    /// Counters of backends, in the order of `ids`.
    pub fn backend_counters(&self, ids: &[u32]) -> Result<Vec<BackendCounters>, MapError> {
        Ok(self.counters.backends(ids)?)
    }

    /// Reasons of a service; 0 is the node.
    pub fn reasons(&self, service: u32) -> Result<[u64; REASONS as usize], MapError> {
        Ok(self.counters.reasons(service)?)
    }

    /// Zeroes counters and rows of backend ids before they are used again.
    pub fn clear_backends(&mut self, ids: &[u32]) -> Result<(), MapError> {
        for id in ids {
            self.backends.set(*id, &BackendRow::default());
            self.replies.set(*id, &ReplyRow::default());
            self.observed.set(*id, &ObservedCounters::default());
            self.loads.set(*id, &BackendLoad::default());
        }
        self.counters.clear_backends(ids)
    }

    /// Zeroes the reasons, the policy and the loads of a service id before it is used again.
    pub fn clear_reasons(&mut self, service: u32) -> Result<(), MapError> {
        self.openings.clear(service);
        self.policies.set(service, &Policy::default());
        self.service_loads.set(service, &ServiceLoad::default());
        self.counters.clear_reasons(service)
    }

    /// Mirrors the host's routes for nat replies.
    pub fn set_routes(&mut self, routes: Vec<(IpNet, NextHopRow)>) -> Result<(), MapError> {
        self.routes.set(routes)
    }

    /// Finishes changes of routes that had to wait for packets under way; to be called now and then.
    pub fn settle_routes(&mut self) {
        self.routes.settle();
    }

    /// Mirrors on-link neighbours for nat replies.
    pub fn set_neighbours(
        &mut self,
        neighbours: Vec<(u32, IpAddr, [u8; 6])>,
    ) -> Result<(), MapError> {
        self.neighbours.set(neighbours)
    }

    /// Fills a list that no service refers to yet. After an error, [`Self::remove_list`] removes what got in.
    pub fn fill_list(&mut self, kind: List, list: u32, prefixes: &[IpNet]) -> io::Result<()> {
        self.lists_mut(kind).fill(list, prefixes)
    }

    /// Whether a list holds exactly these prefixes.
    pub fn list_is(&self, kind: List, list: u32, prefixes: &[IpNet]) -> bool {
        self.lists(kind).is(list, prefixes)
    }

    /// Whether a list has a prefix of this address.
    pub fn list_has(&self, kind: List, list: u32, address: &IpAddr) -> bool {
        self.lists(kind).has(list, address)
    }

    /// Removes a list that no service refers to any more.
    pub fn remove_list(&mut self, kind: List, list: u32) -> io::Result<()> {
        self.lists_mut(kind).remove(list)
    }

    /// Removes all lists but these.
    pub fn keep_lists(&mut self, kind: List, lists: &[u32]) -> io::Result<()> {
        self.lists_mut(kind).keep(lists)
    }

    /// Prefixes that the lists of a kind may have together, and how many more fit in now, those of lists on their way out
    /// counted.
    pub fn list_room(&self, kind: List) -> (u64, u64) {
        let limit = u64::from(match kind {
            List::Allow => self.sizes.allow_prefixes,
            List::Deny => self.sizes.deny_prefixes,
        });
        let entries = limit * u64::from(prefix_lists::GENERATIONS);
        (limit, entries.saturating_sub(self.lists(kind).len() as u64))
    }

    fn lists(&self, kind: List) -> &PrefixLists {
        match kind {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
        }
    }

    fn lists_mut(&mut self, kind: List) -> &mut PrefixLists {
        match kind {
            List::Allow => &mut self.allow,
            List::Deny => &mut self.deny,
        }
    }

    /// Whether the pins are still there (`lb detach` may have removed them).
    pub fn still_loaded(&self) -> bool {
        self.directory.maps().exists()
    }

    /// Neighbours that packets need; once per load.
    pub fn wanted(&mut self) -> anyhow::Result<Wanted> {
        load::wanted(&mut self.ebpf)
    }

    /// Packets that are dropped, as far as the program shows them; once per load.
    pub fn samples(&mut self) -> anyhow::Result<Samples> {
        load::samples(&mut self.ebpf)
    }

    /// Failures that clients have met at observed backends; once per load.
    pub fn failures(&mut self) -> anyhow::Result<Failures> {
        load::failures(&mut self.ebpf)
    }

    /// Prints what the packet path logs, if its level is not 0. Needs a tokio runtime.
    pub fn spawn_logger(&mut self) {
        let level = self.options.log_level;
        let next = if level > 0 { load::spawn_logger(&mut self.ebpf) } else { None };
        if let Some(previous) = std::mem::replace(&mut self.logger, next) {
            previous.abort();
        }
    }

    /// Full nat.
    pub fn fullnat(&self) -> &Fullnat {
        &self.fullnat
    }

    /// Whether the loaded program was loaded with all features that `options` need.
    pub fn has_features(&self, options: &Options) -> bool {
        let loaded = &self.options;
        (loaded.have_nat || !options.have_nat)
            && loaded.observe == options.observe
            && loaded.limit_openings == options.limit_openings
            && (loaded.track || !options.track)
            && (loaded.quic || !options.quic)
            && (loaded.fullnat || !options.fullnat)
            && (loaded.toa || !options.toa)
            && options.entropy & !loaded.entropy == 0
            && loaded.ports >= options.ports
            && loaded.vlan == options.vlan
            && (self.sizes.sources > 1 || options.sizes.sources == 1)
            && (loaded.have_v6 || !options.have_v6)
            && (!loaded.single_nic || options.single_nic)
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if let Some(logger) = self.logger.take() {
            logger.abort();
        }
    }
}

/// The pins of other versions of lb under `pin_root`.
pub fn other_versions(pin_root: &Path) -> Vec<PathBuf> {
    PinDirectory::new(pin_root).other_versions()
}

/// Whether a version's program is on some NIC.
pub fn is_attached(version: &Path) -> bool {
    let links = attach::pinned(&version.join("links"), None);
    links.iter().any(|(attachment, _)| attachment.ifindex != 0)
}

/// The links pinned under `pin_root`, as the kernel sees them now; works without a daemon.
pub fn attachments_of(pin_root: &Path) -> Vec<Attachment> {
    let links = PinDirectory::new(pin_root).links();
    attach::pinned(&links, None).into_iter().map(|(attachment, _)| attachment).collect()
}

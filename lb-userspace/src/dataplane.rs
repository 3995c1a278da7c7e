//! The data plane from the controller's side: the only module that touches BPF.
//!
//! Program, links and maps are pinned, so that they outlive the daemon; opening adopts what is there, after comparing it
//! with what this binary expects.

mod attach;
mod batch;
mod bpffs;
mod counters;
pub mod decap;
mod foreign;
mod layout;
mod link;
mod load;
mod lock;
mod mapped;
mod pins;
mod routes;
mod table;
mod wanted;

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, MapError, xdp::DevMapHash},
    programs::Xdp,
};
use ipnet::IpNet;
use lb_common::{
    abi::{
        Address, BackendCounters, BackendRow, Clock, FlowKey, NextHopRow, Pin, REASONS, ReplyRow,
        ServiceRow, program,
    },
    be::Be16,
    hash::HashKeys,
};

pub use self::{
    attach::{AttachError, AttachMode, Attachment},
    bpffs::detach_all,
    load::LoadError,
    lock::{Lock, LockError},
    mapped::{Arena, Table},
    table::{EntryKey, TableFull},
    wanted::Wanted,
};
use self::{
    bpffs::PinDirectory, counters::Counters, pins::Pins, routes::Routes, table::ServiceTable,
};
use crate::config::model::XdpMode;

/// Numbers of entries, fixed while the data plane is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Service ids.
    pub services: u32,
    /// Backend ids.
    pub backends: u32,
    /// Slots of all rings.
    pub ring_slots: u32,
    /// Buckets of the service table; a power of two.
    pub table_buckets: u32,
    /// Confirmed pins.
    pub pins: u32,
    /// Unconfirmed pins.
    pub pins_unconfirmed: u32,
    /// `allow` prefixes.
    pub allow_prefixes: u32,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root of the pins, on a bpffs.
    pub pin_root: PathBuf,
    /// Where a verifier log goes.
    pub run_dir: PathBuf,
    /// Sizes of maps that do not exist yet; existing ones must be at least as large.
    pub sizes: Sizes,
    /// Keys of the flow hash.
    pub hash_keys: HashKeys,
    /// Only one NIC is attached.
    pub single_nic: bool,
    /// Some service uses nat.
    pub have_nat: bool,
    /// IPv6 is parsed.
    pub have_v6: bool,
    /// aya-log level of the packet path: 0 = off .. 5 = trace.
    pub log_level: u8,
}

/// Everything loaded.
pub struct Dataplane {
    ebpf: Ebpf,
    directory: PinDirectory,
    adopted: bool,
    options: Options,
    sizes: Sizes,
    arena: Arena,
    services: Table<ServiceRow>,
    backends: Table<BackendRow>,
    replies: Table<ReplyRow>,
    table: ServiceTable,
    resting: usize,
    pins: Pins,
    pins_new: Pins,
    counters: Counters,
    routes: Routes,
    devices: DevMapHash<MapData>,
    interfaces: HashMap<MapData, u32, u32>,
    clock: Array<MapData, Clock>,
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
    }

    /// The grace period has passed.
    pub fn grace_passed(&mut self) {
        self.table.grace_passed(std::mem::take(&mut self.resting));
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

    /// Size of a pin table.
    pub fn pin_limit(&self, confirmed: bool) -> u32 {
        if confirmed { self.sizes.pins } else { self.sizes.pins_unconfirmed }
    }

    fn pin_table(&self, confirmed: bool) -> &Pins {
        if confirmed { &self.pins } else { &self.pins_new }
    }

    /// `allow` prefixes that fit.
    pub fn allow_limit(&self) -> u32 {
        self.sizes.allow_prefixes
    }

    /// Counters of backends, in the order of `ids`.
    pub fn backend_counters(&self, ids: &[u32]) -> Result<Vec<BackendCounters>, MapError> {
        ids.iter().map(|id| self.counters.backend(*id)).collect()
    }

    /// Reasons of a service; 0 is the node.
    pub fn reasons(&self, service: u32) -> Result<[u64; REASONS as usize], MapError> {
        self.counters.reasons(service)
    }

    /// Zeroes counters and row of a backend id before it is used again.
    pub fn clear_backend(&mut self, id: u32) -> Result<(), MapError> {
        self.backends.set(id, &BackendRow::default());
        self.replies.set(id, &ReplyRow::default());
        self.counters.clear_backend(id)
    }

    /// Zeroes the reasons of a service id before it is used again.
    pub fn clear_reasons(&mut self, service: u32) -> Result<(), MapError> {
        self.counters.clear_reasons(service)
    }

    /// Mirrors the host's routes for nat replies.
    pub fn set_routes(&mut self, routes: Vec<(IpNet, NextHopRow)>) -> Result<(), MapError> {
        self.routes.set(routes)
    }

    /// Mirrors on-link neighbours for nat replies.
    pub fn set_neighbours(
        &mut self,
        neighbours: Vec<(u32, IpAddr, [u8; 6])>,
    ) -> Result<(), MapError> {
        self.routes.set_neighbours(neighbours)
    }

    /// Fills an allow list that no service refers to yet.
    pub fn set_allow_list(&mut self, list: u32, prefixes: &[IpNet]) -> Result<(), MapError> {
        self.routes.set_allow(list, prefixes)
    }

    /// Removes an allow list that no service refers to any more.
    pub fn remove_allow_list(&mut self, list: u32) -> Result<(), MapError> {
        self.routes.remove_allow(list)
    }

    /// Makes the tables of NICs hold exactly these (ifindex, number).
    pub fn set_devices(&mut self, devices: &[(u32, u32)]) -> anyhow::Result<()> {
        let known: Vec<u32> = self.interfaces.keys().collect::<Result<_, _>>()?;
        for ifindex in known {
            if !devices.iter().any(|(wanted, _)| *wanted == ifindex) {
                missing_is_fine(self.interfaces.remove(&ifindex))?;
                // The kernel removes the entry of a device that is gone by itself.
                missing_is_fine(self.devices.remove(ifindex))?;
            }
        }
        for (ifindex, number) in devices {
            self.interfaces.insert(ifindex, number, 0)?;
            self.devices.insert(*ifindex, *ifindex, None, 0)?;
        }
        Ok(())
    }

    /// Both clocks at one moment.
    pub fn clock(&self) -> anyhow::Result<Clock> {
        let program: &Xdp = self
            .ebpf
            .program(program::CLOCK)
            .ok_or_else(|| anyhow::anyhow!("the object has no program `{}`", program::CLOCK))?
            .try_into()?;
        let frame = [0u8; 64];
        program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() })?;
        Ok(self.clock.get(&0, 0)?)
    }

    /// Jiffies per second.
    pub fn hz(&self) -> anyhow::Result<u64> {
        let first = self.clock()?;
        std::thread::sleep(Duration::from_millis(60));
        let second = self.clock()?;
        let jiffies = (second.jiffies - first.jiffies) as f64;
        let seconds = (second.nanoseconds - first.nanoseconds) as f64 / 1e9;
        let measured = jiffies / seconds;
        // CONFIG_HZ has only these values; ratios apart far more than one jiffy in 60 ms.
        let near = |hz: &u64| ((measured / *hz as f64).ln().abs() * 1e6) as u64;
        Ok([100u64, 250, 300, 1000].into_iter().min_by_key(near).unwrap_or(250))
    }

    /// Attaches a NIC, or replaces the program that an earlier daemon has left there.
    pub fn attach(
        &mut self,
        ifindex: u32,
        ifname: &str,
        mode: XdpMode,
        force: bool,
    ) -> Result<AttachMode, AttachError> {
        let links = self.directory.links();
        let program = self.balancer().map_err(|error| AttachError::Link {
            ifname: ifname.to_owned(),
            verb: "find the program for",
            reason: error.to_string(),
        })?;
        match attach::attach(program, &links, ifindex, ifname, mode) {
            Err(AttachError::Occupied { program: other, .. }) if force => {
                tracing::warn!(
                    interface = ifname,
                    program = other,
                    "taking another XDP program off, as --force says"
                );
                foreign::remove(ifindex).map_err(|error| AttachError::Link {
                    ifname: ifname.to_owned(),
                    verb: "take the other program off",
                    reason: error.to_string(),
                })?;
                attach::attach(program, &links, ifindex, ifname, mode)
            }
            other => other,
        }
    }

    /// The pinned links, as the kernel sees them now.
    pub fn attachments(&self) -> Vec<Attachment> {
        attach::pinned(&self.directory.links(), self.program_id())
            .into_iter()
            .map(|(attachment, _)| attachment)
            .collect()
    }

    /// Detaches one NIC.
    pub fn detach(&self, ifname: &str) -> io::Result<()> {
        attach::detach(&self.directory.links(), ifname)
    }

    /// Whether the pins are still there (`lb detach` may have removed them).
    pub fn still_loaded(&self) -> bool {
        self.directory.maps().exists()
    }

    /// Neighbours that packets need; once per load.
    pub fn wanted(&mut self) -> anyhow::Result<Wanted> {
        load::wanted(&mut self.ebpf)
    }

    /// Prints what the packet path logs, if its level is not 0. Runs until the daemon ends.
    pub fn spawn_logger(&mut self) {
        if self.options.log_level > 0 {
            load::spawn_logger(&mut self.ebpf);
        }
    }

    /// Whether the loaded program was loaded with all features that `options` need.
    pub fn has_features(&self, options: &Options) -> bool {
        let loaded = &self.options;
        (loaded.have_nat || !options.have_nat)
            && (loaded.have_v6 || !options.have_v6)
            && (!loaded.single_nic || options.single_nic)
    }

    fn balancer(&mut self) -> anyhow::Result<&mut Xdp> {
        Ok(self
            .ebpf
            .program_mut(program::BALANCER)
            .ok_or_else(|| anyhow::anyhow!("the object has no program `{}`", program::BALANCER))?
            .try_into()?)
    }

    fn program_id(&self) -> Option<u32> {
        let program: &Xdp = self.ebpf.program(program::BALANCER)?.try_into().ok()?;
        Some(program.info().ok()?.id())
    }
}

/// Removing what is not there (any more): a packet, the kernel or an earlier daemon was faster.
fn missing_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Returns when every packet that was under way has left the program: a membarrier over all CPUs waits for an RCU grace
/// period (6 to 36 ms); where the kernel does not offer it, one second does.
pub async fn grace() {
    let barrier = tokio::task::spawn_blocking(|| {
        const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
        // SAFETY: the system call takes three integers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
    });
    if !barrier.await.unwrap_or(false) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The links pinned under `pin_root`, as the kernel sees them now; works without a daemon.
pub fn attachments_of(pin_root: &std::path::Path) -> Vec<Attachment> {
    let links = PinDirectory::new(pin_root).links();
    attach::pinned(&links, None).into_iter().map(|(attachment, _)| attachment).collect()
}

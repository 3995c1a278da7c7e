//! `lb decap`: the program on a backend's NIC that takes tunnelled packets out of their outer header. Pinned under
//! `decap/<NIC>/`, beside the balancer's versions.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{
        HashMap, MapData, MapInfo, MapType, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
    programs::Xdp,
};
use ipnet::IpNet;
use lb_common::abi::{Address, RouteKey, program};

use super::{
    AttachMode, attach,
    bpffs::{self, make_private},
    detach, permission,
    prefix::mapped_length,
};
use crate::config::model::XdpMode;

const LOCAL: &str = "DECAP_LOCAL";
const FROM: &str = "DECAP_FROM";
const COUNTS: &str = "DECAP_COUNTS";
/// Entries of `COUNTS`.
const COUNTERS: u32 = 3;

/// What the decapsulator of a NIC has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DecapStatus {
    /// Packets taken out of their tunnel.
    pub decapsulated: u64,
    /// Dropped: the outer source is not a load balancer that may send here.
    pub refused: u64,
    /// Dropped: broken outer or inner header.
    pub broken: u64,
}

/// What is taken out of its tunnel.
#[derive(Clone, Debug)]
pub struct DecapRules {
    /// Outer destinations that are ours.
    pub local: Vec<IpAddr>,
    /// Outer sources that may; empty = any.
    pub from: Vec<IpNet>,
    /// UDP port of GUE; 0 = only IP in IP.
    pub gue_port: u16,
}

/// The NICs that have a decapsulator pinned under `pin_root`.
pub fn decap_interfaces(pin_root: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(pin_root.join(bpffs::DECAP)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(attach::decoded(&entry?.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names)
}

/// Attaches the decapsulator to a NIC, or replaces an earlier one there without a packet in between; the counters go on.
pub fn decap_attach(
    pin_root: &Path,
    ifindex: u32,
    ifname: &str,
    rules: &DecapRules,
    mode: XdpMode,
) -> anyhow::Result<AttachMode> {
    permission::check()?;
    bpffs::require_bpffs(pin_root)?;
    let directory = directory(pin_root, ifname);
    let links = directory.join("links");
    for path in [pin_root, &pin_root.join(bpffs::DECAP), &directory, &links] {
        make_private(path)?;
    }
    let counts = directory.join(COUNTS);
    drop_other_counters(&counts)?;
    let mut ebpf = load(&counts, rules)?;
    let program: &mut Xdp = ebpf
        .program_mut(program::DECAP)
        .with_context(|| format!("the object has no program `{}`", program::DECAP))?
        .try_into()?;
    program.load()?;
    let attached = attach::attach(program, &links, &[], ifindex, ifname, mode);
    if attached.is_err() && attach::pinned(&links, None).is_empty() {
        // Nothing of ours is on the NIC: a directory without a program would say otherwise.
        decap_detach(pin_root, ifname)?;
    }
    Ok(attached?)
}

/// Detaches the decapsulator; nothing there is no error.
pub fn decap_detach(pin_root: &Path, ifname: &str) -> io::Result<()> {
    let directory = directory(pin_root, ifname);
    attach::detach(&directory.join("links"), None)?;
    detach::remove(&directory)?;
    detach::remove_if_empty(&pin_root.join(bpffs::DECAP))?;
    detach::remove_if_empty(pin_root)
}

/// Counters of a NIC's decapsulator.
pub fn decap_status(pin_root: &Path, ifname: &str) -> anyhow::Result<DecapStatus> {
    let pin = directory(pin_root, ifname).join(COUNTS);
    anyhow::ensure!(pin.exists(), "no decapsulator of lb is attached to {ifname}");
    anyhow::ensure!(is_ours(&pin), "{} is no map of this lb", pin.display());
    let map = aya::maps::Map::from_map_data(MapData::from_pin(pin)?)?;
    let counts: PerCpuArray<MapData, u64> = PerCpuArray::try_from(map)?;
    let sum = |index: u32| -> anyhow::Result<u64> { Ok(counts.get(&index, 0)?.iter().sum()) };
    Ok(DecapStatus { decapsulated: sum(0)?, refused: sum(1)?, broken: sum(2)? })
}

fn directory(pin_root: &Path, ifname: &str) -> PathBuf {
    pin_root.join(bpffs::DECAP).join(attach::encoded(ifname))
}

/// Loads the object with these addresses, and the counters of the pin if there is one.
fn load(counts: &Path, rules: &DecapRules) -> anyhow::Result<Ebpf> {
    let DecapRules { local, from, gue_port } = rules;
    let gue_port = u32::from(*gue_port);
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_DECAP"));
    let any = u32::from(from.is_empty());
    let mut ebpf = EbpfLoader::new()
        .override_global("DECAP_FROM_ANY", &any, true)
        .override_global("DECAP_GUE_PORT", &gue_port, true)
        .map_max_entries(LOCAL, local.len().max(1) as u32)
        .map_max_entries(FROM, from.len().max(1) as u32)
        .map_pin_path(COUNTS, counts)
        .load(OBJECT)?;
    let missing = |name: &str| format!("the object has no map `{name}`");
    let map = ebpf.map_mut(LOCAL).with_context(|| missing(LOCAL))?;
    let mut addresses: HashMap<&mut MapData, Address, u32> = HashMap::try_from(map)?;
    for address in local {
        addresses.insert(&Address::from(*address), 1, 0)?;
    }
    let map = ebpf.map_mut(FROM).with_context(|| missing(FROM))?;
    let mut prefixes: LpmTrie<&mut MapData, RouteKey, u32> = LpmTrie::try_from(map)?;
    for prefix in from {
        let data = RouteKey { destination: Address::from(prefix.network()) };
        prefixes.insert(&Key::new(mapped_length(prefix), data), 1, 0)?;
    }
    Ok(ebpf)
}

/// Counters of another layout are not worth refusing to start for.
fn drop_other_counters(pin: &Path) -> io::Result<()> {
    if pin.exists() && !is_ours(pin) {
        tracing::warn!(pin = %pin.display(), "removed: not a map of this lb");
        std::fs::remove_file(pin)?;
    }
    Ok(())
}

/// Whether a pin is of the map that this object has: aya would use any.
fn is_ours(pin: &Path) -> bool {
    MapInfo::from_pin(pin).is_ok_and(|info| {
        matches!(info.map_type(), Ok(MapType::PerCpuArray))
            && (info.key_size(), info.value_size(), info.max_entries()) == (4, 8, COUNTERS)
    })
}

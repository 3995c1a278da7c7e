//! `lb decap`: the program on a backend's NIC that takes tunnelled packets out of their outer header.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    EbpfLoader,
    maps::{
        HashMap, MapData, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
    programs::Xdp,
};
use ipnet::IpNet;
use lb_common::abi::{Address, RouteKey, program};

use super::{AttachMode, attach};
use crate::config::model::XdpMode;

const MAPS: [&str; 3] = ["DECAP_LOCAL", "DECAP_FROM", "DECAP_COUNTS"];

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

fn directory(pin_root: &Path, ifname: &str) -> PathBuf {
    pin_root.join("decap").join(ifname)
}

/// Attaches (or replaces) the decapsulator. `local`: outer destinations that are ours; `from`: outer sources that may,
/// empty = any.
pub fn decap_attach(
    pin_root: &Path,
    ifindex: u32,
    ifname: &str,
    local: &[IpAddr],
    from: &[IpNet],
    mode: XdpMode,
) -> anyhow::Result<AttachMode> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT_DECAP"));
    let directory = directory(pin_root, ifname);
    let links = directory.join("links");
    fs::create_dir_all(&links)?;
    let any = u32::from(from.is_empty());
    let mut ebpf = EbpfLoader::new().override_global("DECAP_FROM_ANY", &any, true).load(OBJECT)?;
    let missing = |name: &str| anyhow::anyhow!("the object has no map or program `{name}`");
    let [locals, froms, counts] = MAPS;
    let map = ebpf.map_mut(locals).ok_or_else(|| missing(locals))?;
    let mut addresses: HashMap<&mut MapData, Address, u32> = HashMap::try_from(map)?;
    for address in local {
        addresses.insert(Address::from(*address), 1, 0)?;
    }
    let map = ebpf.map_mut(froms).ok_or_else(|| missing(froms))?;
    let mut prefixes: LpmTrie<&mut MapData, RouteKey, u32> = LpmTrie::try_from(map)?;
    for prefix in from {
        let length = prefix.prefix_len() as u32 + if prefix.addr().is_ipv4() { 96 } else { 0 };
        let data = RouteKey { destination: Address::from(prefix.network()) };
        prefixes.insert(&Key::new(length, data), 1, 0)?;
    }
    let pin = directory.join(counts);
    if pin.exists() {
        fs::remove_file(&pin)?;
    }
    ebpf.map(counts).ok_or_else(|| missing(counts))?.pin(&pin)?;
    let program: &mut Xdp =
        ebpf.program_mut(program::DECAP).ok_or_else(|| missing(program::DECAP))?.try_into()?;
    program.load()?;
    Ok(attach::attach(program, &links, ifindex, ifname, mode)?)
}

/// Detaches the decapsulator; nothing there is no error.
pub fn decap_detach(pin_root: &Path, ifname: &str) -> io::Result<()> {
    let directory = directory(pin_root, ifname);
    attach::detach(&directory.join("links"), ifname)?;
    for path in [directory.join("links"), directory.join(MAPS[2])] {
        if path.is_dir() {
            fs::remove_dir(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    if directory.exists() {
        fs::remove_dir(directory)?;
    }
    Ok(())
}

/// Counters of a NIC's decapsulator.
pub fn decap_status(pin_root: &Path, ifname: &str) -> anyhow::Result<DecapStatus> {
    let pin = directory(pin_root, ifname).join(MAPS[2]);
    anyhow::ensure!(pin.exists(), "no decapsulator of lb is attached to {ifname}");
    let map = aya::maps::Map::from_map_data(MapData::from_pin(pin)?)?;
    let counts: PerCpuArray<MapData, u64> = PerCpuArray::try_from(map)?;
    let sum = |index: u32| -> anyhow::Result<u64> { Ok(counts.get(&index, 0)?.iter().sum()) };
    Ok(DecapStatus { decapsulated: sum(0)?, refused: sum(1)?, broken: sum(2)? })
}

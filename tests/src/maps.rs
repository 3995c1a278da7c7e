//! Every pinned map as bytes: to compare what was there before with what is there afterwards.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapInfo, MapType};
use lb_common::abi::ABI_VERSION;

use crate::bpf;

/// Entries of one map, by key. Of a ring buffer: how much was ever put into it, under the empty key.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where a daemon pins its maps. To be opened in the daemon's machine, whose bpffs it is.
pub fn pins() -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/lb/v{ABI_VERSION}/maps"))
}

/// All maps that are pinned in a directory, by name. To be called in the machine whose bpffs it is.
pub fn dump_all(pins: &Path) -> io::Result<BTreeMap<String, Entries>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(pins)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.insert(name, dump(&path)?);
    }
    Ok(all)
}

/// One pinned map.
pub fn dump(pin: &Path) -> io::Result<Entries> {
    let info = MapInfo::from_pin(pin).map_err(io::Error::other)?;
    let map = MapData::from_pin(pin).map_err(io::Error::other)?;
    let descriptor = map.fd().as_fd().as_raw_fd();
    let kind = info.map_type().map_err(io::Error::other)?;
    if kind == MapType::RingBuf {
        let written = bpf::ring_written(descriptor)?;
        return Ok(BTreeMap::from([(Vec::new(), written.to_ne_bytes().to_vec())]));
    }
    let per_cpu = matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash);
    let cpus = match per_cpu {
        true => aya::util::nr_cpus().map_err(|(_, error)| error)?,
        false => 1,
    };
    let size = (info.value_size() as usize).next_multiple_of(8) * cpus;
    let mut entries = BTreeMap::new();
    let mut key = None;
    while let Some(next) = bpf::next_key(descriptor, key.as_deref(), info.key_size() as usize)? {
        // Gone meanwhile: the caller sees it in what it compares with.
        if let Some(value) = bpf::look_up(descriptor, &next, size)? {
            entries.insert(next.clone(), value);
        }
        key = Some(next);
    }
    Ok(entries)
}

/// One value of `size` bytes; `None` = the key is not there.
pub fn value(map: &MapData, key: &[u8], size: usize) -> io::Result<Option<Vec<u8>>> {
    bpf::look_up(map.fd().as_fd().as_raw_fd(), key, size)
}

/// Where two dumps differ, in words; empty if nowhere.
pub fn differences(
    before: &BTreeMap<String, Entries>,
    after: &BTreeMap<String, Entries>,
) -> Vec<String> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut differences = Vec::new();
    for name in names {
        let (Some(old), Some(new)) = (before.get(name), after.get(name)) else {
            differences.push(format!("{name} is there only once"));
            continue;
        };
        for (key, value) in old {
            if new.get(key) != Some(value) {
                differences
                    .push(format!("{name} {key:02x?}: {value:02x?} -> {:02x?}", new.get(key)));
            }
        }
        for key in new.keys().filter(|key| !old.contains_key(*key)) {
            differences.push(format!("{name} {key:02x?}: new"));
        }
    }
    differences
}

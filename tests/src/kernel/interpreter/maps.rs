//! The loaded program's maps, read through bpf(2).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};

use anyhow::{Result, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapType},
};

use crate::bpf;

/// One map.
pub struct Facts {
    /// Its name in the object.
    pub name: String,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    descriptor: RawFd,
    read: usize,
}

/// All of them; a map's number is its place.
pub struct Maps(Vec<Facts>);

impl Maps {
    /// Those of a loaded object, which has to outlive this.
    pub fn of(ebpf: &Ebpf) -> Result<Self> {
        let mut all = Vec::new();
        for (name, map) in ebpf.maps() {
            let data = data(map)?;
            let info = data.info()?;
            let per_cpu = matches!(
                info.map_type()?,
                MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash
            );
            let cpus = if per_cpu { aya::util::nr_cpus().map_err(|(_, error)| error)? } else { 1 };
            let value = info.value_size() as usize;
            all.push(Facts {
                name: name.to_owned(),
                key: info.key_size() as usize,
                value,
                descriptor: data.fd().as_fd().as_raw_fd(),
                read: value.next_multiple_of(8) * cpus,
            });
        }
        Ok(Self(all))
    }

    /// The number of a map.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|map| map.name == name)
    }

    /// The map of a number.
    pub fn get(&self, number: usize) -> Option<&Facts> {
        self.0.get(number)
    }
}

impl Facts {
    /// The value of a key (of a per-CPU map, the first CPU's).
    pub fn look_up(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let found = bpf::look_up(self.descriptor, key, self.read)?;
        Ok(found.map(|mut bytes| {
            bytes.truncate(self.value);
            bytes
        }))
    }
}

fn data(map: &Map) -> Result<&MapData> {
    Ok(match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::LpmTrie(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::ProgramArray(data)
        | Map::ArrayOfMaps(data)
        | Map::RingBuf(data) => data,
        other => bail!("a map of a kind that no packet's way has used yet: {other:?}"),
    })
}

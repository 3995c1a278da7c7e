//! The tables of services that track their flows, from the controller's side.

use std::io;

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
};
use lb_common::abi::{FlowKey, Pin, RememberedSource, SourceKey, map};

use super::{
    LoadError,
    batch::{Batch, Cursor},
    load,
    pins::{Pins, room_left},
    remove::missing_is_fine,
};

/// Where a walk through a table goes on; `None` = at its beginning.
#[derive(Default)]
pub struct Walk(Option<Cursor>);

/// `FLOWS`, `FLOWS_NEW` and `SOURCES`.
pub(super) struct Flows {
    confirmed: Pins,
    unconfirmed: Pins,
    sources: Batch<SourceKey, RememberedSource>,
    sources_map: HashMap<MapData, SourceKey, RememberedSource>,
}

impl Flows {
    /// Of a loaded object.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let failed = |error| LoadError::map(map::SOURCES, error);
        let data = load::take_map(ebpf, map::SOURCES)?;
        let Map::HashMap(data) = data else { return Err(load::unexpected(map::SOURCES, &data)) };
        Ok(Self {
            confirmed: load::pins(ebpf, map::FLOWS)?,
            unconfirmed: load::pins(ebpf, map::FLOWS_NEW)?,
            sources: Batch::new(&data).map_err(|error| LoadError::map(map::SOURCES, error))?,
            sources_map: HashMap::try_from(Map::HashMap(data)).map_err(failed)?,
        })
    }

    /// One of the tables of flows.
    pub(super) fn table(&self, confirmed: bool) -> &Pins {
        if confirmed { &self.confirmed } else { &self.unconfirmed }
    }

    /// Removes a flow unless a packet has changed its entry since it was read; whether it did.
    pub(super) fn delete(
        &mut self,
        confirmed: bool,
        key: &FlowKey,
        read: &Pin,
    ) -> Result<bool, MapError> {
        let table = if confirmed { &mut self.confirmed } else { &mut self.unconfirmed };
        table.delete_as_read(key, read)
    }

    /// Writes a confirmed flow; false if the table has no room for one more.
    pub(super) fn put(&mut self, key: &FlowKey, entry: &Pin) -> Result<bool, MapError> {
        self.confirmed.put(key, entry)
    }

    /// Remembers a client; false if the table has no room for one more.
    pub(super) fn put_source(
        &mut self,
        key: &SourceKey,
        source: &RememberedSource,
    ) -> Result<bool, MapError> {
        room_left(self.sources_map.insert(key, source, 0))
    }

    /// Some remembered clients more; the walk is through when it is at its beginning again.
    pub(super) fn sources(
        &self,
        walk: &mut Walk,
    ) -> io::Result<Vec<(SourceKey, RememberedSource)>> {
        self.sources.page(&mut walk.0)
    }

    /// A remembered client.
    pub(super) fn source(&self, key: &SourceKey) -> Result<Option<RememberedSource>, MapError> {
        match self.sources_map.get(key, 0) {
            Ok(found) => Ok(Some(found)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets a client unless it has been heard of since; whether it did.
    pub(super) fn delete_source(
        &mut self,
        key: &SourceKey,
        read: &RememberedSource,
    ) -> Result<bool, MapError> {
        if self.source(key)? != Some(*read) {
            return Ok(false);
        }
        missing_is_fine(self.sources_map.remove(key)).map(|()| true)
    }
}

impl Walk {
    /// Whether the next page is the first.
    pub fn is_at_beginning(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn cursor(&mut self) -> &mut Option<Cursor> {
        &mut self.0
    }
}

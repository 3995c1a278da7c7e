//! The table of counted connections from the controller's side.

use std::io;

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::abi::{Connection, FlowKey};

use super::{batch::Batch, remove::missing_is_fine};

/// The map `CONNECTIONS`.
pub(super) struct Connections {
    all: Batch<FlowKey, Connection>,
    map: HashMap<MapData, FlowKey, Connection>,
}

impl Connections {
    /// Over the map.
    pub(super) fn new(map: MapData) -> Result<Self, MapError> {
        Ok(Self { all: Batch::new(&map)?, map: HashMap::try_from(Map::HashMap(map))? })
    }

    /// All of them, while packets go on changing them.
    pub(super) fn dump(&self) -> io::Result<Vec<(FlowKey, Connection)>> {
        self.all.entries()
    }

    /// Removes an entry unless a packet has changed it since it was read.
    pub(super) fn delete(&mut self, key: &FlowKey, read: &Connection) -> Result<(), MapError> {
        match self.map.get(key, 0) {
            Ok(found) if found == *read => missing_is_fine(self.map.remove(key)),
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

//! The pin tables from the controller's side.

use std::io;

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::abi::{FlowKey, Pin};

use super::{batch::Batch, remove::missing_is_fine};

/// One of the two pin tables.
pub(super) struct Pins {
    all: Batch<FlowKey, Pin>,
    map: HashMap<MapData, FlowKey, Pin>,
}

impl Pins {
    /// Over one of the maps.
    pub(super) fn new(map: MapData) -> Result<Self, MapError> {
        Ok(Self { all: Batch::new(&map)?, map: HashMap::try_from(Map::HashMap(map))? })
    }

    /// All pins, while packets go on changing them.
    pub(super) fn dump(&self) -> io::Result<Vec<(FlowKey, Pin)>> {
        self.all.entries()
    }

    /// A flow's pin.
    pub(super) fn get(&self, key: &FlowKey) -> Result<Option<Pin>, MapError> {
        match self.map.get(key, 0) {
            Ok(pin) => Ok(Some(pin)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a pin; a packet may have been faster.
    pub(super) fn delete(&mut self, key: &FlowKey) -> Result<(), MapError> {
        missing_is_fine(self.map.remove(key))
    }
}

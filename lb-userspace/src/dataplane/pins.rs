//! The pin tables from the controller's side.

use std::io;

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::abi::{FlowKey, Pin};

use super::{batch::Batch, flows::Walk, remove::missing_is_fine};

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

    /// Writes a pin; false if the table has no room for one more.
    pub(super) fn put(&mut self, key: &FlowKey, pin: &Pin) -> Result<bool, MapError> {
        room_left(self.map.insert(key, pin, 0))
    }

    /// Removes a pin; a packet may have been faster.
    pub(super) fn delete(&mut self, key: &FlowKey) -> Result<(), MapError> {
        missing_is_fine(self.map.remove(key))
    }

    /// Some pins more; the walk is through when it is at its beginning again.
    pub(super) fn page(&self, walk: &mut Walk) -> io::Result<Vec<(FlowKey, Pin)>> {
        self.all.page(walk.cursor())
    }

    /// Removes an entry unless a packet has changed it since it was read; whether it did.
    pub(super) fn delete_as_read(&mut self, key: &FlowKey, read: &Pin) -> Result<bool, MapError> {
        if self.get(key)? != Some(*read) {
            return Ok(false);
        }
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(error) => missing_is_fine(Err(error)).map(|()| false),
        }
    }
}

/// False for a table that is full.
pub(super) fn room_left(result: Result<(), MapError>) -> Result<bool, MapError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

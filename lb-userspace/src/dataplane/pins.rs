//! The pin tables from the controller's side.

use std::{io, os::fd::OwnedFd};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{FlowKey, Pin};

use super::{batch, missing_is_fine};

/// One of the two pin tables.
pub(super) struct Pins {
    /// For reading in batches.
    pub(super) fd: OwnedFd,
    /// For single entries.
    pub(super) map: HashMap<MapData, FlowKey, Pin>,
}

impl Pins {
    /// All pins, while packets go on changing them.
    pub(super) fn dump(&self) -> io::Result<Vec<(FlowKey, Pin)>> {
        let entries = batch::lookup_all::<FlowKey, Pin>(&self.fd, 1)?;
        Ok(entries.into_iter().filter_map(|(key, values)| Some((key, *values.first()?))).collect())
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

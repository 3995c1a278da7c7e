//! Where connection ids of QUIC lead: what the program looks server ids up by.

use std::collections::HashMap as Known;

use aya::maps::{Array, HashMap, MapData, MapError};
use lb_common::{
    abi::{BackendId, QuicId},
    quic::Formats,
};

use super::remove::missing_is_fine;

/// Server ids of all services.
pub struct QuicIds {
    ids: HashMap<MapData, QuicId, u32>,
    formats: Array<MapData, Formats>,
    /// What `ids` says.
    known: Known<QuicId, BackendId>,
    /// What `formats` says of services that have one.
    known_formats: Known<u32, Formats>,
}

impl QuicIds {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(
        ids: HashMap<MapData, QuicId, u32>,
        formats: Array<MapData, Formats>,
    ) -> Result<Self, MapError> {
        let known = ids
            .iter()
            .map(|entry| entry.map(|(key, id)| (key, BackendId(id))))
            .collect::<Result<Known<_, _>, _>>()?;
        let mut known_formats = Known::new();
        for (service, format) in (0..).zip(formats.iter()) {
            let format = format?;
            if format != Formats::default() {
                known_formats.insert(service, format);
            }
        }
        Ok(Self { ids, formats, known, known_formats })
    }

    /// Makes the entries of a service these, whatever they were: all with the service's id. A packet meets the old or the new
    /// one of each.
    pub fn set(
        &mut self,
        service: u32,
        formats: Formats,
        wanted: &Known<QuicId, BackendId>,
    ) -> Result<(), MapError> {
        if self.known_formats.get(&service).copied().unwrap_or_default() == formats
            && formats == Formats::default()
        {
            return Ok(());
        }
        for (key, id) in wanted {
            if self.known.get(key) != Some(id) {
                self.ids.insert(key, id.0, 0)?;
                self.known.insert(*key, *id);
            }
        }
        self.formats.set(service, formats, 0)?;
        self.known_formats.insert(service, formats);
        let stale = |key: &&QuicId| key.service == service && !wanted.contains_key(*key);
        for key in self.known.keys().filter(stale).copied().collect::<Vec<_>>() {
            missing_is_fine(self.ids.remove(&key))?;
            self.known.remove(&key);
        }
        if formats == Formats::default() {
            self.known_formats.remove(&service);
        }
        Ok(())
    }
}

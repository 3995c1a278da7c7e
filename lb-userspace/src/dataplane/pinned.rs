//! What an earlier daemon has left: pins are compared before they are used, and adopted all or not at all.

use std::{fs, path::Path};

use aya::maps::MapInfo;
use lb_common::abi::{self, map};

use super::{
    LoadError, Options, Sizes, attach, bpffs::PinDirectory, layout, prefix_lists::GENERATIONS,
};

/// Sizes in force (those of existing pins, else those asked for), and whether there are pins.
pub(super) fn examine(
    directory: &PinDirectory,
    options: &Options,
) -> Result<(Sizes, bool), LoadError> {
    let maps = directory.maps();
    let wanted = layout::wanted(options);
    let missing = wanted.iter().find(|wanted| {
        !layout::OF_FEATURES.contains(&wanted.name) && !maps.join(wanted.name).exists()
    });
    if let Some(missing) = missing {
        let attached = !attach::pinned(&directory.links(), None).is_empty();
        if attached {
            // The program on the NIC has the map; a new one would get an empty other.
            return Err(LoadError::Incomplete { name: missing.name, path: maps });
        }
        clear(&maps)?;
        return Ok((options.sizes, false));
    }
    make_room(&maps, &wanted)?;
    let mut sizes = options.sizes;
    for wanted in wanted {
        if !maps.join(wanted.name).exists() {
            continue;
        }
        let entries = layout::compare(&maps.join(wanted.name), &wanted)?;
        match wanted.name {
            map::SERVICE_TABLE => sizes.table_buckets = entries,
            map::SERVICES => sizes.services = (entries - 1) / 2,
            map::ARENA => sizes.ring_slots = entries,
            map::BACKENDS => sizes.backends = entries,
            map::PINS => sizes.pins = entries,
            map::PINS_NEW => sizes.pins_unconfirmed = entries,
            map::CONNECTIONS => sizes.connections = entries,
            map::ALLOW => sizes.allow_prefixes = entries / GENERATIONS,
            map::DENY => sizes.deny_prefixes = entries / GENERATIONS,
            map::FLOWS => sizes.flows = entries,
            map::FLOWS_NEW => sizes.flows_unconfirmed = entries,
            map::SOURCES => sizes.sources = entries,
            map::PORT_SLOTS => sizes.source_addresses = entries / abi::PORTS_PER_ADDRESS,
            _ => {}
        }
    }
    // Maps that are sized by the same limit must agree: what fits one is written to all.
    let exists = |wanted: &layout::Wanted| maps.join(wanted.name).exists();
    for wanted in layout::wanted(&Options { sizes, ..options.clone() }).into_iter().filter(exists) {
        layout::compare(&maps.join(wanted.name), &wanted)?;
    }
    Ok((sizes, true))
}

/// Takes the tables of features away that nobody has used so far, where a larger one is wanted: the loader makes that. A crash
/// in between leaves none, which is made then, too.
pub(super) fn make_room(maps: &Path, wanted: &[layout::Wanted]) -> Result<(), LoadError> {
    for wanted in wanted.iter().filter(|wanted| layout::OF_FEATURES.contains(&wanted.name)) {
        let path = maps.join(wanted.name);
        if wanted.entries == 1 || !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(|error| LoadError::map(wanted.name, error))?;
        if info.max_entries() == 1 {
            fs::remove_file(&path)
                .map_err(|source| LoadError::Pins { path: path.clone(), source })?;
        }
    }
    Ok(())
}

/// Removes what a start that did not get as far as attaching has left.
fn clear(maps: &Path) -> Result<(), LoadError> {
    let fail = |source| LoadError::Pins { path: maps.to_owned(), source };
    for entry in fs::read_dir(maps).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        tracing::warn!(
            pin = %entry.path().display(),
            "removed: left by a start of lb that did not get as far as attaching"
        );
        fs::remove_file(entry.path()).map_err(fail)?;
    }
    Ok(())
}

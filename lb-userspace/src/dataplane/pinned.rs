//! What an earlier daemon has left: pins are compared before they are used, and adopted all or not at all.

use std::{fs, path::Path};

use lb_common::abi::map;

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
    let missing = wanted.iter().find(|wanted| !maps.join(wanted.name).exists());
    if let Some(missing) = missing {
        let attached = !attach::pinned(&directory.links(), None).is_empty();
        if attached {
            // The program on the NIC has the map; a new one would get an empty other.
            return Err(LoadError::Incomplete { name: missing.name, path: maps });
        }
        clear(&maps)?;
        return Ok((options.sizes, false));
    }
    let mut sizes = options.sizes;
    for wanted in wanted {
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
            _ => {}
        }
    }
    // Maps that are sized by the same limit must agree: what fits one is written to all.
    for wanted in layout::wanted(&Options { sizes, ..options.clone() }) {
        layout::compare(&maps.join(wanted.name), &wanted)?;
    }
    Ok((sizes, true))
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

//! The node: version, configuration, NICs, tables, and the daemon's own work.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Snapshot,
    family::{counter, flag, gauge, histogram},
};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let status = &all.status;
    gauge(encoder, "lb_build_info", "Version of the daemon.")?
        .sample(&[("version", &status.version)], 1.0)?;
    for (name, help, value) in [
        ("lb_uptime_seconds", "Time since the daemon started.", status.uptime_seconds as f64),
        (
            "lb_starting",
            "1 while the first checks of a new data plane have not all been answered.",
            flag(status.starting),
        ),
        ("lb_config_revision", "Number of the configuration in force.", status.revision as f64),
        (
            "lb_config_valid",
            "1 if the file on disk is in force, 0 if it is invalid.",
            flag(status.config_error.is_none()),
        ),
        (
            "lb_warnings",
            "Things that need attention, see `lb status`.",
            status.warnings.len() as f64,
        ),
    ] {
        gauge(encoder, name, help)?.sample(&[], value)?;
    }
    let help = "1 for a VIP that another host says is its own.";
    let mut conflicts = gauge(encoder, "lb_vip_conflict", help)?;
    for one in &status.vip_conflicts {
        conflicts.sample(&[("address", &one.address), ("mac", &one.mac)], 1.0)?;
    }
    let help = "1 if another node of the cluster or the fleet has this one's name.";
    let conflict = flag(status.name_conflict.is_some());
    gauge(encoder, "lb_node_name_conflict", help)?.sample(&[], conflict)?;
    let mut reloads =
        counter(encoder, "lb_config_reloads", "Configurations read since the start, by result.")?;
    for (result, count) in all.reloads {
        reloads.sample(&[("result", result)], count as f64)?;
    }
    histogram(
        encoder,
        "lb_config_apply_duration_seconds",
        "Time a whole configuration took from the check to the last map.",
    )?
    .buckets(&[], &all.apply)?;
    histogram(
        encoder,
        "lb_publish_duration_seconds",
        "Time a change of health, weight or administrative state took to reach the maps.",
    )?
    .buckets(&[], &all.publish)?;
    let mut events = counter(
        encoder,
        "lb_state_changes",
        "Events since the daemon's start, by kind; `lb events` shows them.",
    )?;
    for (kind, count) in &all.events {
        events.sample(&[("kind", kind)], *count as f64)?;
    }
    interfaces(encoder, all)?;
    tables(encoder, all)
}

fn interfaces(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let mut nics = gauge(
        encoder,
        "lb_interface_attached",
        "1 if lb's program is on the NIC and the link is up.",
    )?;
    for nic in &all.status.interfaces {
        let forwards = nic.mode != "detached" && nic.link == "up";
        nics.sample(&[("interface", &nic.name), ("mode", &nic.mode)], flag(forwards))?;
    }
    Ok(())
}

fn tables(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let pins = &all.status.pins;
    let kinds = [
        ("confirmed", pins.confirmed, pins.confirmed_limit),
        ("unconfirmed", pins.unconfirmed, pins.unconfirmed_limit),
    ];
    let mut used = gauge(encoder, "lb_pins", "Entries of the pin tables.")?;
    for (table, count, _) in kinds {
        used.sample(&[("table", table)], count as f64)?;
    }
    let mut limits = gauge(encoder, "lb_pins_limit", "Room in the pin tables.")?;
    for (table, _, limit) in kinds {
        limits.sample(&[("table", table)], limit as f64)?;
    }
    let mut entries =
        gauge(encoder, "lb_map_entries", "Entries of a table of bounded size that are taken.")?;
    for map in &all.maps {
        entries.sample(&[("map", map.map)], map.entries as f64)?;
    }
    let mut capacity = gauge(encoder, "lb_map_capacity", "Entries that a table has room for.")?;
    for map in &all.maps {
        capacity.sample(&[("map", map.map)], map.capacity as f64)?;
    }
    Ok(())
}

//! The configuration that nodes share by etcd.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Snapshot,
    family::{flag, gauge},
};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let Some(shared) = &all.status.shared else { return Ok(()) };
    for (name, help, value) in [
        (
            "lb_shared_config_connected",
            "1 if a member of etcd answers.",
            flag(shared.member.is_some()),
        ),
        (
            "lb_shared_config_refused",
            "1 if the newest revision in etcd was refused: the last good one goes on.",
            flag(shared.refused.is_some()),
        ),
        (
            "lb_shared_config_revision",
            "etcd's revision of the configuration in force; 0 = it is not from there.",
            shared.revision as f64,
        ),
        (
            "lb_shared_config_newest_revision",
            "etcd's revision of the newest configuration heard of; 0 = there is none.",
            shared.newest_revision as f64,
        ),
    ] {
        gauge(encoder, name, help)?.sample(&[], value)?;
    }
    Ok(())
}

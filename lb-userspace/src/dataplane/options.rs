//! How the data plane is loaded.

use std::path::PathBuf;

use lb_common::{
    abi::{PORTS_PER_ADDRESS, REASONS},
    hash::HashKeys,
};

use super::LoadError;

/// Numbers of entries, fixed while the data plane is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Service ids.
    pub services: u32,
    /// Backend ids.
    pub backends: u32,
    /// Slots of all rings.
    pub ring_slots: u32,
    /// Buckets of the service table; a power of two.
    pub table_buckets: u32,
    /// Confirmed pins.
    pub pins: u32,
    /// Unconfirmed pins.
    pub pins_unconfirmed: u32,
    /// Connections that are counted.
    pub connections: u32,
    /// Confirmed flows of services that track all; 1 while none does.
    pub flows: u32,
    /// Their unconfirmed flows; 1 while none does.
    pub flows_unconfirmed: u32,
    /// Clients that services remember; 1 while none does.
    pub sources: u32,
    /// Addresses that full nat may send from; 0 while no service does it.
    pub source_addresses: u32,
    /// `allow` prefixes.
    pub allow_prefixes: u32,
    /// `deny` prefixes.
    pub deny_prefixes: u32,
}

impl Sizes {
    /// Ports of all of these addresses; a map has at least one entry.
    pub(super) fn port_slots(&self) -> u32 {
        self.source_addresses.saturating_mul(PORTS_PER_ADDRESS).max(1)
    }

    /// Fails with what no map can have.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let all = [
            ("limits.services", self.services),
            ("limits.backends", self.backends),
            ("limits.ring_slots", self.ring_slots),
            ("limits.pins", self.pins),
            ("limits.pins_unconfirmed", self.pins_unconfirmed),
            ("limits.connections", self.connections),
            ("limits.flows", self.flows),
            ("limits.flows_unconfirmed", self.flows_unconfirmed),
            ("limits.sources", self.sources),
            ("limits.allow_prefixes", self.allow_prefixes),
            ("limits.deny_prefixes", self.deny_prefixes),
        ];
        if let Some((what, value)) = all.into_iter().find(|(_, value)| *value == 0) {
            return Err(LoadError::Size { what, value, rule: "a map has at least one entry" });
        }
        if self.services > u32::MAX / REASONS {
            return Err(LoadError::Size {
                what: "limits.services",
                value: self.services,
                rule: "the counters of that many services cannot be numbered",
            });
        }
        if !self.table_buckets.is_power_of_two() {
            return Err(LoadError::Size {
                what: "the number of buckets of the service table",
                value: self.table_buckets,
                rule: "it is a power of two",
            });
        }
        Ok(())
    }
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root of the pins, on a bpffs.
    pub pin_root: PathBuf,
    /// Where a verifier log goes.
    pub run_dir: PathBuf,
    /// Sizes of maps that do not exist yet; existing ones must be at least as large.
    pub sizes: Sizes,
    /// Keys of the flow hash.
    pub hash_keys: HashKeys,
    /// Only one NIC is attached.
    pub single_nic: bool,
    /// Some service uses nat.
    pub have_nat: bool,
    /// What another version of lb has left is taken over, instead of refused.
    pub take_over: bool,
    /// Some service observes its backends.
    pub observe: bool,
    /// Some service limits openings or has a SYN-flood stage.
    pub limit_openings: bool,
    /// Some service tracks its flows.
    pub track: bool,
    /// Some service is QUIC's.
    pub quic: bool,
    /// Some service does full nat.
    pub fullnat: bool,
    /// Some service tells servers the clients' addresses.
    pub toa: bool,
    /// 1 if some service has several ports, 2 if some has a prefix of VIPs.
    pub ports: u32,
    /// Bits of [`lb_common::abi::entropy`]: how outer headers of tunnels tell flows apart.
    pub entropy: u32,
    /// Tagged frames are balanced.
    pub vlan: bool,
    /// IPv6 is parsed.
    pub have_v6: bool,
    /// aya-log level of the packet path: 0 = off .. 5 = trace.
    pub log_level: u8,
}

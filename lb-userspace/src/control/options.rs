//! What `lb run` is told by its command line.

use std::path::PathBuf;

use crate::etcd::Location;

/// Options of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file; of a shared configuration, the last good one.
    pub config: PathBuf,
    /// Where the configuration is shared.
    pub shared: Option<Location>,
    /// NICs that replace the file's `interfaces`; empty = the file's.
    pub interfaces: Vec<String>,
    /// Root of the pins, on a bpffs.
    pub pin_dir: PathBuf,
    /// Lock, state and socket; gone at a reboot.
    pub run_dir: PathBuf,
    /// The hash seed; stays.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// This node's name in its cluster.
    pub node: String,
    /// aya-log level of the packet path: 0 = off .. 5 = trace.
    pub packet_log: u8,
    /// Take over what another version has left, even if flows may break.
    pub take_over: bool,
    /// Take other XDP programs off the NICs.
    pub force: bool,
}

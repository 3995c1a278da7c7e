//! Where lb keeps things.

use std::path::{Path, PathBuf};

use clap::Args;

/// Root of the pins.
pub const PIN_DIR: &str = "/sys/fs/bpf/lb";
/// Run directory.
pub const RUN_DIR: &str = "/run/lb";
/// Name of the control socket in the run directory.
pub const SOCKET: &str = "lb.sock";

/// Option `--pin-dir`.
#[derive(Clone, Debug, Args)]
pub struct PinDir {
    /// Where program, links and maps are pinned (on a bpffs)
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// Option `--run-dir`.
#[derive(Clone, Debug, Args)]
pub struct RunDir {
    /// Directory of socket, lock and state
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
}

/// The control socket of a run directory.
pub fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

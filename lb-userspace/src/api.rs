//! The control socket's HTTP API: types here, server in `server`, client in `client`.
//!
//! HTTP/1.1 with JSON over a Unix socket, so that `curl --unix-socket /run/lb/lb.sock http://lb/v1/status` works. The
//! socket's mode says who may open it; of those, root and the daemon's user may do everything, members of `socket_group`
//! what `socket_level` says.

mod change;
pub mod client;
mod command;
mod failure;
pub mod peer;
pub mod server;
pub mod types;

pub use change::Change;
pub use command::{Answer, Command};

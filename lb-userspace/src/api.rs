//! The control socket's HTTP API: types here, server in `server`, client in `client`.
//!
//! HTTP/1.1 with JSON over a Unix socket, so that `curl --unix-socket /run/lb/lb.sock http://lb/v1/status` works. Who
//! may open the socket may do everything; the socket's mode is the only access control.

pub mod client;
mod command;
mod failure;
pub mod server;
pub mod types;

pub use command::{Answer, Command};

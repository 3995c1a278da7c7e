//! The control socket's HTTP API: types here, server in `server`, client in `client`.

pub mod types;

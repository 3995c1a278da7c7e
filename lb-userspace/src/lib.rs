//! lb's controller: YAML to BPF maps, health probes, statistics, and what the `lb` command needs to talk to it.
//!
//! `config` (YAML -> checked model) -> `plan` (what has to change; pure) -> `dataplane` (the only module that touches
//! maps), driven by `control`; `health` and `net` feed it, `api` and `cli` show it.

mod allocator;
pub mod api;
mod authorities;
pub mod capture;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod discovery;
pub mod doctor;
mod durations;
pub mod etcd;
pub mod events;
pub mod explain;
pub mod health;
pub mod import;
pub mod log;
pub mod metrics;
pub mod net;
pub mod plan;
mod privileges;
mod secret;

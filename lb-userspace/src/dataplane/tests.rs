//! In the real kernel, as root: each test in a mount and a network namespace of its own (see [`sandbox`]).

mod attach;
mod bpffs;
mod decap;
mod dry_run;
mod maps;
mod open;
mod permission;
mod pins;
mod routes;
mod sandbox;
mod service_table;

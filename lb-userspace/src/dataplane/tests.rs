//! In the real kernel, as root: each test in a mount and a network namespace of its own (see [`sandbox`]).

mod attach;
mod decap;
mod maps;
mod open;
mod pins;
mod sandbox;
mod service_table;

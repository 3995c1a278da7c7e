//! Captures: which packets are wanted ([`filter`]), and how they travel from the daemon to whoever looks at them
//! ([`stream`]).

pub mod filter;
pub mod stream;

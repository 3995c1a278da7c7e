//! The lab.

pub mod kernel;

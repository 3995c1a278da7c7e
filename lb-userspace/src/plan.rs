//! What has to change, and what each change moves: pure functions between the checked configuration and the maps.

pub mod cluster;
pub mod connections;
pub mod flows;
pub mod members;
pub mod moves;
pub mod phases;
pub mod policy;
pub mod ring;
pub mod slow_start;
pub mod sweep;

#[cfg(test)]
mod histories;

//! lb's XDP programs, one module a step of the packet path. [`maps`] and [`config`] are what the controller writes.
#![no_std]

pub mod config;
pub mod maps;

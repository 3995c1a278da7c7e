//! lb's XDP programs.
#![no_std]

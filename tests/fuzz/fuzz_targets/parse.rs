//! See [`lb_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::parse(frame));

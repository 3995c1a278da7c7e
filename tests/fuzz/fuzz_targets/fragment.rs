//! See [`lb_fuzz::fragment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::fragment(frame));

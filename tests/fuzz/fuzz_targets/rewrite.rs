//! See [`lb_fuzz::rewrite`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::rewrite(frame));

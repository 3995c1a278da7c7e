//! See [`lb_fuzz::quote`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::quote(frame));

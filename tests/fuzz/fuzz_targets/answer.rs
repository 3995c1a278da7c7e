//! See [`lb_fuzz::answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::answer(frame));

//! See [`lb_fuzz::quic`].
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_fuzz::quic(frame));

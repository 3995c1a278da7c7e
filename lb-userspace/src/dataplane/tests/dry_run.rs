//! Copies of the program: all of them load, and what only they do costs the one on the NICs nothing.

use lb_common::abi::{map, mode};

use super::{
    super::{
        DryRun,
        load::{Variant, load_copy},
    },
    sandbox::sandbox,
};

/// Bytes that the modes may cost the plain program after the verifier's rewriting: the loads of the global that it has
/// decided about.
const RESIDUE: u32 = 1_500;

#[test]
fn every_copy_loads_and_the_plain_one_has_nothing_of_the_others() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let plain = dataplane.program_info().unwrap();
        let recipe = dataplane.recipe();
        let dry = DryRun::load(&recipe).unwrap().size().unwrap();
        let what_if = DryRun::load_what_if(&recipe).unwrap().size().unwrap();
        let variant =
            Variant { mode: mode::CAPTURE, own: &[], entries: &[(map::CAPTURES, 1 << 20)] };
        let capture = load_copy(&recipe, &variant).unwrap();
        let program: &aya::programs::Xdp = capture.program("balancer").unwrap().try_into().unwrap();
        let capture = program.info().unwrap();
        let capture = (
            capture.verified_instruction_count().unwrap_or(0),
            capture.size_translated().unwrap_or(0),
        );
        eprintln!(
            "plain: {} instructions verified, {} bytes; dry run: {dry:?}; what if: {what_if:?}; capture: {capture:?}",
            plain.verified_instructions, plain.translated_bytes
        );
        assert!(capture.1 > plain.translated_bytes + RESIDUE, "{capture:?}, plain {plain:?}");
    });
}

#[test]
fn a_dry_run_tells_what_becomes_of_a_frame() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let mut dry = DryRun::load(&dataplane.recipe()).unwrap();
        let trace = dry.run(&[0; 60], 1).unwrap();
        assert_eq!((trace.action(), trace.reason()), (2, Some(45)), "passed: {trace:?}");
        let error = dry.run(&[0; 13], 1).unwrap_err().to_string();
        assert!(error.contains("13 bytes"), "{error}");
        dry.run(&[0; super::super::LARGEST_FRAME], 1).unwrap();
        dry.run(&[0; super::super::LARGEST_FRAME + 1], 1).unwrap_err();
    });
}

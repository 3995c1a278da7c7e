//! What `cargo xtask test --kernels` runs in each kernel that it boots: the packet suites that need nothing but
//! BPF_PROG_TEST_RUN, with one load of the program for all of them, since software emulation makes that slow.

#[path = "packets_answers.rs"]
mod answers;
#[path = "packets_cases.rs"]
mod cases;
#[path = "packets_cases_icmp.rs"]
mod cases_icmp;
#[path = "packets_errors.rs"]
mod errors;
#[path = "packets_forward.rs"]
mod forward;
#[path = "packets_fragments.rs"]
mod fragments;
#[path = "packets_fullnat.rs"]
mod fullnat;
#[path = "packets_malformed.rs"]
mod malformed;
#[path = "packets_mss.rs"]
mod mss;

use aya::programs::Xdp;
use lb_tests::kernel::{Kernel, Options, VERIFIER_LIMIT, load_object};

/// How many instructions the verifier looked at for each program; `cargo xtask test --kernels` reads these lines.
#[test]
fn programs_are_within_the_verifiers_limit() {
    let mut decap = load_object("decap", &["decap"]).expect("the kernel takes lb decap");
    let decap: &mut Xdp =
        decap.program_mut("decap").expect("the program").try_into().expect("it is an XDP program");
    let kernel = Kernel::shared();
    let ports = Kernel::load(Options { ports: 2, ..Options::default() });
    let ports = ports.expect("the kernel takes the balancer with prefixes of VIPs");
    let spread = Options { outer_source: true, fullnat: 2, toa: true, ..Options::default() };
    let spread = Kernel::load(spread)
        .expect("the kernel takes the balancer with a prefix to send from and TOA");
    let programs = [
        ("fast-path", kernel.balancer()),
        ("balancer", kernel.slow_path()),
        ("fast-path-ports", ports.balancer()),
        ("balancer-ports", ports.slow_path()),
        ("fast-path-spread", spread.balancer()),
        ("balancer-spread", spread.slow_path()),
        ("decap", decap),
    ];
    for (name, program) in programs {
        let info = program.info().expect("the kernel tells");
        let verified = info.verified_instruction_count().expect("since Linux 5.16");
        println!("verified {name} {verified} of {VERIFIER_LIMIT}");
        assert!(verified < VERIFIER_LIMIT / 10 * 9, "{name}: too near the limit");
    }
}

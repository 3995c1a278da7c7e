//! Copies of the program: all of them load, and no instruction of the one on the NICs touches what only they use.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    maps::{Map, MapInfo},
    programs::Xdp,
};
use lb_common::abi::{map, mode, program};

use super::{
    super::{
        DryRun, Options,
        load::{Variant, load_copy},
        syscall,
    },
    sandbox::sandbox,
};

/// What only copies touch.
const OF_COPIES: [&str; 5] =
    [map::TRACE, map::CAPTURE_RULE, map::CAPTURE_STATE, map::CAPTURE_BUFFER, map::CAPTURES];
/// What only observing programs touch.
const OF_OBSERVERS: [&str; 4] = [map::OPENINGS, map::PROVEN_SOURCES, map::OBSERVED, map::FAILURES];
const INSTRUCTION: usize = 8;

/// The head of `struct bpf_prog_info` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgramHead {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
}

/// The attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The program's instructions as the verifier has left them.
fn translated(ebpf: &Ebpf) -> io::Result<Vec<u8>> {
    let balancer: &Xdp = ebpf.program(program::BALANCER).unwrap().try_into().unwrap();
    let fd = balancer.fd().unwrap();
    let mut instructions = Vec::new();
    // First how many there are, then the instructions.
    for _ in 0..2 {
        let mut head = ProgramHead {
            translated_length: instructions.len() as u32,
            translated: instructions.as_mut_ptr() as u64,
            ..ProgramHead::default()
        };
        let mut attributes = InfoAttributes {
            fd: fd.as_fd().as_raw_fd() as u32,
            length: size_of::<ProgramHead>() as u32,
            info: (&raw mut head) as u64,
        };
        // SAFETY: the attributes are those of the command. It writes at most `length` bytes to `head`, which takes every bit
        // pattern, and at most `translated_length` bytes to the vector, which has as many.
        unsafe { syscall::bpf(syscall::OBJ_GET_INFO_BY_FD, &mut attributes)? };
        instructions.resize(head.translated_length as usize, 0);
    }
    Ok(instructions)
}

/// Ids of the maps that a program's instructions name: the kernel shows them in 64-bit loads whose source register says so.
fn touched(instructions: &[u8]) -> BTreeSet<u32> {
    const LOAD: u8 = 0x18;
    const MAP: u8 = 1;
    const MAP_VALUE: u8 = 2;
    let mut maps = BTreeSet::new();
    let mut rest = instructions.chunks_exact(INSTRUCTION);
    while let Some(instruction) = rest.next() {
        if instruction[0] != LOAD {
            continue;
        }
        // Such a load is two instructions long.
        rest.next();
        if matches!(instruction[1] >> 4, MAP | MAP_VALUE) {
            maps.insert(u32::from_ne_bytes(instruction[4..8].try_into().unwrap()));
        }
    }
    maps
}

fn id(ebpf: &Ebpf, name: &str) -> u32 {
    match ebpf.map(name).unwrap_or_else(|| panic!("no map {name}")) {
        Map::Array(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => data.info().unwrap().id(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn every_copy_loads_and_the_plain_program_touches_nothing_of_theirs() {
    sandbox(|sandbox| {
        let dataplane = sandbox.open();
        let recipe = dataplane.recipe();
        let entries = [(map::CAPTURES, 1 << 20)];
        let variant = Variant { mode: mode::CAPTURE, own: &[], entries: &entries };
        let capture = load_copy(&recipe, &variant).unwrap();
        let (plain, capturing) =
            (translated(&dataplane.ebpf).unwrap(), translated(&capture).unwrap());
        eprintln!("plain: {} bytes, capture: {} bytes", plain.len(), capturing.len());
        for name in OF_COPIES {
            assert!(!touched(&plain).contains(&id(&dataplane.ebpf, name)), "{name}");
            assert!(touched(&capturing).contains(&id(&capture, name)), "{name}");
        }
        let shared = |ebpf: &Ebpf| id(ebpf, map::WANTED);
        assert!(touched(&plain).contains(&shared(&dataplane.ebpf)), "what it does touch is seen");
        assert_eq!(shared(&dataplane.ebpf), shared(&capture), "pinned maps are shared");
        DryRun::load(&recipe).unwrap();
        DryRun::load_what_if(&recipe).unwrap();
    });
}

#[test]
fn no_instruction_of_the_plain_program_touches_what_observing_needs() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let maps = sandbox.pins().maps();
        let id = |name: &&str| MapInfo::from_pin(maps.join(name)).unwrap().id();
        let plain = translated(&dataplane.ebpf).unwrap();
        for name in OF_OBSERVERS {
            assert!(!touched(&plain).contains(&id(&name)), "{name}");
        }
        let observing = Options { observe: true, ..dataplane.options.clone() };
        assert!(!dataplane.has_features(&observing));
        dataplane.reload_program(&observing).unwrap();
        let program = translated(&dataplane.ebpf).unwrap();
        for name in OF_OBSERVERS {
            assert!(touched(&program).contains(&id(&name)), "{name}");
        }
        eprintln!("plain: {} instructions, observing: {}", plain.len() / 8, program.len() / 8);
        let plain_again = Options { observe: false, ..dataplane.options.clone() };
        assert!(!dataplane.has_features(&plain_again), "free again when nobody observes");
        dataplane.reload_program(&plain_again).unwrap();
        assert_eq!(translated(&dataplane.ebpf).unwrap().len(), plain.len());
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

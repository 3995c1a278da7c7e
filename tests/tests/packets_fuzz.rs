//! The fuzz targets of tests/fuzz without a fuzzer: over their corpus, and a hundred thousand damaged copies of it.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{collections::BTreeSet, env, fs, panic, path::PathBuf};

use lb_model::generate::{Random, damage};
use lb_tests::kernel::{
    bytes::{patched, patched_v4, with_extension},
    packet::{Packet, Transport, flag, hex},
};

const MUTATIONS: usize = 100_000;

fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz"].iter().collect()
}

fn corpus() -> Vec<Vec<u8>> {
    let directory = directory().join("corpus");
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "{}: {} files", directory.display(), paths.len());
    paths.iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// One packet of each kind, by its name.
fn kinds() -> Vec<(String, Vec<u8>)> {
    let mut kinds = Vec::new();
    for (family, client, vip) in
        [("v4", "192.0.2.33", "198.51.100.1"), ("v6", "2001:db8:c::33", "2001:db8:5::1")]
    {
        let mut add = |name: &str, frame: Vec<u8>| kinds.push((format!("{name}-{family}"), frame));
        let (from, to) = (format!("{client}@40001"), format!("{vip}@80"));
        for (name, flags) in
            [("syn", flag::SYN), ("ack", flag::ACK), ("fin", flag::FIN | flag::ACK)]
        {
            add(name, Packet::tcp(&from, &to, flags).filled(16).bytes());
        }
        add("last-hop", Packet::tcp(&from, &to, flag::ACK).ip(|ip| ip.hop_limit = 1).bytes());
        let datagram = Packet::udp(&from, &to).filled(32).bytes();
        add("udp", datagram.clone());
        add("echo", Packet::echo(client, vip).filled(16).bytes());
        let is_v4 = family == "v4";
        let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
        let error = Transport::Icmp { kind, code, rest: [0, 0, 5, 0] };
        for (name, quoted) in [
            ("error-tcp", Packet::tcp(&to, &from, flag::ACK).ip_bytes()),
            ("error-udp", Packet::udp(&to, &from).ip_bytes()),
        ] {
            add(name, Packet::new(client, vip, error.clone()).payload(&quoted).bytes());
        }
        if is_v4 {
            add("no-checksum", patched(&datagram, 40, &[0, 0]));
            add("first-fragment", patched_v4(&datagram, 6, &[0x20, 0]));
            add("later-fragment", patched_v4(&datagram, 6, &[0x00, 10]));
            let options = |options: &[u8]| {
                Packet::tcp(&from, &to, flag::ACK).ip(|ip| ip.options = options.to_vec()).bytes()
            };
            add("options", options(&[1, 7, 7, 4, 0, 0, 0, 0]));
            add("source-route", options(&[1, 131, 7, 4, 10, 0, 0, 1]));
        } else {
            add("first-fragment", with_extension(&datagram, 44, &[0, 1, 0, 0, 0, 1]));
            add("later-fragment", with_extension(&datagram, 44, &[0, 80, 0, 0, 0, 1]));
            add("destination-options", with_extension(&datagram, 60, &[1, 4, 0, 0, 0, 0]));
        }
    }
    kinds
}

#[test]
fn the_corpus_has_every_kind() {
    let directory = directory().join("corpus");
    if env::var_os("LB_BLESS").is_some() {
        fs::create_dir_all(&directory).expect("a directory");
        for (name, frame) in kinds() {
            fs::write(directory.join(name), frame).expect("a file");
        }
    }
    for (name, frame) in kinds() {
        let path = directory.join(&name);
        let file = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(file == frame, "{} is another packet: LB_BLESS=1 writes it", path.display());
    }
}

#[test]
fn targets_hold_for_the_corpus_and_its_mutations() {
    let seed: u64 = match env::var("LB_SEED") {
        Ok(text) => text.parse().expect("LB_SEED is a number"),
        Err(_) => 0x6675_7a7a,
    };
    println!("LB_SEED={seed} repeats this run");
    let mut random = Random::new(seed);
    let corpus = corpus();
    let damaged = |random: &mut Random| {
        let mut frame = corpus[random.index(corpus.len())].clone();
        damage(&mut frame, random);
        frame
    };
    let mutations: Vec<_> = (0..MUTATIONS).map(|_| damaged(&mut random)).collect();
    for (name, target) in targets::TARGETS {
        for frame in corpus.iter().chain(&mutations) {
            if let Err(reason) = panic::catch_unwind(|| target(frame)) {
                eprintln!("{name}, seed {seed}: {}", hex(frame));
                panic::resume_unwind(reason);
            }
        }
    }
}

/// Every function is a target that cargo-fuzz finds, and the other way round.
#[test]
fn every_function_is_a_fuzz_target() {
    let manifest = fs::read_to_string(directory().join("Cargo.toml")).expect("the manifest");
    let names: BTreeSet<_> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entries = fs::read_dir(directory().join("fuzz_targets")).expect("the targets");
    let files: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, names);
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let path = directory().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(path).expect("a target");
        assert!(text.contains(&format!("lb_fuzz::{name}(frame)")), "{name}");
    }
}

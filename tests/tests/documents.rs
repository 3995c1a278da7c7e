//! What the documents say of tests: each that they name exists.

use std::{fs, path::Path};

use lb_common::abi::Reason;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts in backquotes of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The sources of all end-to-end tests.
fn tests() -> String {
    let mut all = String::new();
    for entry in fs::read_dir(root().join("tests/tests")).expect("the tests") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            all += &read(path);
        }
    }
    all
}

/// Every requirement that nat meets names tests that exist, and every other one says why it does not.
#[test]
fn every_requirement_of_a_nat_that_is_met_has_its_tests() {
    let (document, tests) = (read("docs/nat-behaviour.md"), tests());
    let mut met = 0;
    for row in document.lines().filter(|line| line.starts_with("| REQ-")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [requirement, state, how, named] = cells[..] else { panic!("four cells: {row}") };
        let named: Vec<&str> = quoted(named).collect();
        for name in &named {
            let is_there = tests.contains(&format!("#[test]\nfn {name}()"));
            assert!(is_there, "{requirement}: there is no test `{name}`");
        }
        match state {
            "not applicable" | "not met" | "in part" => assert!(!how.is_empty(), "{requirement}"),
            _ => {
                assert!(state.starts_with("met"), "{requirement}: {state}");
                // What follows from another requirement says so.
                assert!(!named.is_empty() || how == "see above", "{requirement} names no test");
                met += 1;
            }
        }
    }
    assert!(met >= 15, "{met} requirements are met");
}

/// Every file that docs/promises.md names exists.
#[test]
fn every_promise_names_files_that_exist() {
    let document = read("docs/promises.md");
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with('|')) {
        let holder = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for name in quoted(holder) {
            let path = name.split_whitespace().next().unwrap_or_default();
            let is_path = path.contains('/')
                && path.rsplit('/').next().is_some_and(|file| file.ends_with(".rs"));
            if is_path {
                assert!(root().join(path).exists(), "{path} does not exist: {row}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named} files are named");
}

/// Where a test of a document is: `file::name` of the end-to-end tests, or with the whole path of its file.
fn is_test(named: &str) -> bool {
    let Some((file, name)) = named.split_once("::") else { return false };
    let path = if file.contains('/') { file.to_owned() } else { format!("tests/tests/{file}") };
    let path = root().join(path).with_extension("rs");
    path.exists() && read(path).contains(&format!("#[test]\nfn {name}()"))
}

/// Every case of the catalogue is there, says what becomes of the packet, and names tests and reasons that exist.
#[test]
fn every_case_of_a_packet_has_its_tests_and_reasons() {
    const CASES: usize = 105;
    let document = read("docs/packet-cases.md");
    let is_reason = |name: &str| Reason::ALL.iter().any(|reason| reason.name() == name);
    let mut cases = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| B")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [case, packet, what, counted, tests] = cells[..] else { panic!("five cells: {row}") };
        assert!(!packet.is_empty() && !what.is_empty(), "{case} says nothing");
        for name in quoted(counted) {
            assert!(is_reason(name), "{case}: there is no reason `{name}`");
        }
        for name in quoted(tests) {
            assert!(is_test(name), "{case}: there is no test `{name}`");
        }
        let has_test = quoted(tests).next().is_some();
        assert_ne!(
            has_test,
            what.starts_with("not applicable"),
            "{case}: a test, or why there is none"
        );
        cases.push(case.to_owned());
    }
    let all: Vec<String> = (1..=CASES).map(|number| format!("B{number:02}")).collect();
    assert_eq!(cases, all, "each case once, in order");
}

/// Expected packets are worth something only while lb's own functions have no part in them.
#[test]
fn expected_packets_are_built_without_lbs_code() {
    // Whatever writes or reads bytes of packets.
    const WORDS: [&str; 17] = [
        "checksum",
        "encap",
        "fragment",
        "frame",
        "fullnat",
        "gue",
        "icmp",
        "ip",
        "mss",
        "parse",
        "quote",
        "rewrite",
        "syn_flood",
        "tcp_reset",
        "toa",
        "vlan",
        "handshake",
    ];
    // What follows the crate's name: of a `use` the statement, else a path's first word.
    let uses = |text: &str| -> Vec<String> {
        let parts: Vec<&str> = text.split("lb_common::").collect();
        let what = |pair: &[&str]| {
            let end = if pair[0].ends_with("use ") { ';' } else { ':' };
            pair[1].split(end).next().unwrap_or_default().to_owned()
        };
        parts.windows(2).map(what).collect()
    };
    for file in ["packet", "bytes", "answer"] {
        let text = read(format!("tests/src/kernel/{file}.rs"));
        for own in ["lb_common", "lb_userspace", "lb_model"] {
            assert!(!text.contains(own), "{file}.rs uses {own}");
        }
    }
    let mut tables = 0;
    let directory = fs::read_dir(root().join("tests/tests")).expect("the tests");
    let tests = directory.map(|entry| entry.expect("an entry").path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The fuzz targets call lb's functions, that being their purpose.
        name.starts_with("packets_") && name.ends_with(".rs") && name != "packets_fuzz.rs"
    });
    let builders =
        ["case", "surroundings"].map(|file| root().join(format!("tests/src/kernel/{file}.rs")));
    for path in tests.chain(builders) {
        for statement in uses(&read(&path)) {
            let names = statement.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            let first = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
            let own = names.map(first).find(|name| WORDS.contains(&name.as_str()));
            assert_eq!(own, None, "{}: `lb_common::{statement}`", path.display());
        }
        tables += 1;
    }
    assert!(tables > 20, "{tables} files");
}

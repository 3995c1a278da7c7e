//! What the documents say of tests: each that they name exists.

use std::{fs, path::Path};

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

//! Other versions of lb for upgrade tests: this source with a change that a next release could have, built like lb itself.
//!
//! `target/other-versions/NAME/lb` is what `tests/tests/upgrade.rs` starts in place of `target/debug/lb`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{build::HOST_CRATES, command, ebpf, setup::Tools, workspace};

/// One text in one file, and what stands there in the other version.
type Edit = (&'static str, &'static str, &'static str);

/// What differs from this version; each builds on those before it, so that little is compiled twice.
const VERSIONS: [(&str, &[Edit]); 2] = [
    (
        "program",
        &[
            ("Cargo.toml", "\nversion = \"0.1.0\"\n", "\nversion = \"0.1.1\"\n"),
            (
                "lb-ebpf/src/fast.rs",
                "if ethernet.to_group() {",
                "if ethernet.to_group() || frame.length() > 0xf000 {",
            ),
            (
                "lb-ebpf/src/main.rs",
                "if ethernet.to_group() {",
                "if ethernet.to_group() || frame.length() > 0xf000 {",
            ),
        ],
    ),
    (
        "layout",
        &[
            ("Cargo.toml", "\nversion = \"0.1.1\"\n", "\nversion = \"0.2.0\"\n"),
            (
                "lb-common/src/abi.rs",
                "pub const ABI_VERSION: u32 = ",
                "pub const ABI_VERSION: u32 = 1",
            ),
            (
                "lb-common/src/abi/counters.rs",
                "pub _reserved: [u64; 2],",
                "pub _reserved: [u64; 10],",
            ),
            (
                "lb-common/src/abi/counters.rs",
                "assert!(size_of::<BackendCounters>() == 64)",
                "assert!(size_of::<BackendCounters>() == 128)",
            ),
        ],
    ),
];

/// What a workspace needs to be built elsewhere.
const SOURCES: [&str; 9] = [
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "configs",
    "lb-common",
    "lb-ebpf",
    "lb-userspace",
    "tests",
    "xtask",
];

/// Builds all of them.
pub fn build(tools: &Tools) -> Result<()> {
    let home = workspace::own_target().join("other-versions");
    let source = home.join("source");
    let mut edits: Vec<Edit> = Vec::new();
    for (name, more) in VERSIONS {
        edits.extend(more);
        copy_source(&source, &edits)?;
        command::step(format!("building the other version `{name}`"));
        ebpf::build_in(tools, &source, &home.join("ebpf-build"))?;
        let mut cargo = workspace::cargo();
        cargo.current_dir(&source).args(["build", "--offline"]).args(HOST_CRATES);
        // All that it shares with this version is there already.
        cargo.args(["--bin", "lb", "--target-dir"]).arg(workspace::cargo_target());
        command::run(&mut cargo)?;
        let directory = home.join(name);
        fs::create_dir_all(&directory)?;
        let built = workspace::cargo_target().join("debug/lb");
        // Another file: cargo will put the next one in its place.
        ebpf::copy_if_changed(&built, &directory.join("lb"))?;
        command::run(std::process::Command::new("chmod").arg("755").arg(directory.join("lb")))?;
    }
    // The name `target/debug/lb` belongs to this version again.
    command::run(workspace::cargo().arg("build").args(HOST_CRATES).args(["--bin", "lb"]))
}

/// Makes `to` this source with `edits`; files that come out the same are left alone.
fn copy_source(to: &Path, edits: &[Edit]) -> Result<()> {
    let mut wanted = Vec::new();
    for name in SOURCES {
        list(&workspace::root().join(name), &mut wanted)?;
    }
    let mut made = 0;
    for path in &wanted {
        let name = path.strip_prefix(workspace::root()).expect("listed below it");
        let mut content =
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (file, old, new) in edits {
            if name == Path::new(file) {
                content = edited(&content, old, new)
                    .with_context(|| format!("{file}: `{old}` is not there exactly once"))?;
                made += 1;
            }
        }
        let target = to.join(name);
        fs::create_dir_all(target.parent().expect("it has a directory"))?;
        if fs::read(&target).ok().as_ref() != Some(&content) {
            fs::write(&target, content)?;
        }
    }
    if made != edits.len() {
        bail!("{made} of {} edits have found their file", edits.len());
    }
    let mut there = Vec::new();
    for name in SOURCES {
        list(&to.join(name), &mut there)?;
    }
    for path in there {
        let name = path.strip_prefix(to).expect("listed below it");
        if !wanted.contains(&workspace::root().join(name)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn edited(content: &[u8], old: &str, new: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    (text.matches(old).count() == 1).then(|| text.replacen(old, new, 1).into_bytes())
}

/// All files at and below `path`.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in
            fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?
        {
            list(&entry?.path(), files)?;
        }
    } else if path.exists() {
        files.push(path.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_finds_its_text() {
        let directory = workspace::own_target().join("xtask-test-versions");
        let edits: Vec<Edit> = VERSIONS.iter().flat_map(|(_, edits)| *edits).copied().collect();
        copy_source(&directory, &edits).unwrap();
        let text = fs::read_to_string(directory.join("lb-common/src/abi/counters.rs")).unwrap();
        assert!(text.contains("[u64; 10]"), "{text}");
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(edited(b"a b a", "a", "c"), None, "twice");
        assert_eq!(edited(b"a b", "a", "c"), Some(b"c b".to_vec()));
    }
}

//! bpf-linker: turns the compiler's LLVM bitcode into a BPF object. Built into target/tools, not into the user's cargo
//! home, against the same major version of LLVM as the compiler's.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    compiler::LLVM_MAJOR,
    packages::{self, Package},
};
use crate::{command, workspace};

const VERSION: &str = "0.13.0";

/// What linking bpf-linker against LLVM needs on Debian.
const LIBRARIES: [Package; 5] = [
    Package::library("g++", None),
    Package::library("llvm-22-dev", Some("1:22")),
    Package::library("libpolly-22-dev", Some("1:22")),
    Package::library("zlib1g-dev", None),
    Package::library("libzstd-dev", None),
];

/// The linker in target/tools, or a fitting one on PATH.
pub fn find() -> Option<PathBuf> {
    let own = tools().join("bin/bpf-linker");
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|directory| directory.join("bpf-linker"));
    [own].into_iter().chain(on_path).find(|program| fits(program))
}

/// Builds it.
pub fn install() -> Result<PathBuf> {
    if llvm_prefix().is_none() {
        packages::install(&packages::missing(&LIBRARIES)).with_context(by_hand)?;
    }
    let Some(llvm) = llvm_prefix() else { bail!(by_hand()) };
    command::step(format!(
        "building bpf-linker {VERSION} with LLVM in {} (once, some minutes)",
        llvm.display()
    ));
    let feature = format!("llvm-{LLVM_MAJOR}");
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
        .args(["--features", &feature, "--root"])
        .arg(tools())
        .arg("--target-dir")
        .arg(tools().join("build"))
        .env("LLVM_PREFIX", &llvm);
    command::run(&mut cargo).with_context(by_hand)?;
    // Some hundred megabytes that nobody needs again.
    let _ = fs::remove_dir_all(tools().join("build"));
    find().with_context(by_hand)
}

fn by_hand() -> String {
    let packages: Vec<_> = LIBRARIES.iter().map(|package| package.name).collect();
    format!(
        "no bpf-linker for LLVM {LLVM_MAJOR}. By hand: `apt-get install {}`, then `LLVM_PREFIX=/usr/lib/llvm-{LLVM_MAJOR} \
         cargo install bpf-linker --version {VERSION} --locked --no-default-features --features llvm-{LLVM_MAJOR} \
         --root {}`",
        packages.join(" "),
        tools().display()
    )
}

fn tools() -> PathBuf {
    workspace::own_target().join("tools")
}

/// Version and LLVM are right. bpf-linker does not tell its LLVM, but the name of the library stands in the program.
fn fits(program: &Path) -> bool {
    program.is_file()
        && command::output_of(program, &["--version"])
            .is_some_and(|text| text.trim() == format!("bpf-linker {VERSION}"))
        && fs::read(program).is_ok_and(|bytes| names_llvm(&bytes))
}

fn names_llvm(bytes: &[u8]) -> bool {
    [format!("libLLVM.so.{LLVM_MAJOR}."), format!("libLLVM-{LLVM_MAJOR}.so")]
        .iter()
        .any(|name| bytes.windows(name.len()).any(|window| window == name.as_bytes()))
}

/// Where the right LLVM is installed, with its development files.
fn llvm_prefix() -> Option<PathBuf> {
    let given = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}"));
    given.into_iter().chain([debian]).find(|prefix| {
        let version = command::output_of(prefix.join("bin/llvm-config"), &["--version"]);
        version.is_some_and(|text| text.starts_with(&format!("{LLVM_MAJOR}.")))
            && has_library(&prefix.join("lib"))
    })
}

fn has_library(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let is_llvm = |name: &OsStr| name.to_string_lossy().starts_with("libLLVM");
    entries.flatten().any(|entry| is_llvm(&entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_of_the_right_llvm_is_recognised() {
        assert!(names_llvm(b"..libLLVM.so.22.1\0.."));
        assert!(!names_llvm(b"..libLLVM.so.23.1\0.."));
    }

    #[test]
    fn the_way_by_hand_names_every_package() {
        let text = by_hand();
        assert!(LIBRARIES.iter().all(|package| text.contains(package.name)), "{text}");
    }
}

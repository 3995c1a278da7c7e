//! The compiler for the BPF target: any rustc whose LLVM has the major version of our bpf-linker's and that has the
//! source of `core` beside it. A rustup toolchain if one qualifies, else Debian's packaged compiler.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::packages::{self, Package};
use crate::command;

/// Major version of LLVM that compiler and linker must share: the newest with both a Debian 12 package and a
/// bpf-linker feature.
pub const LLVM_MAJOR: u32 = 22;

/// rustup's components that the checks use.
pub const COMPONENTS: [&str; 2] = ["rustfmt", "clippy"];

/// The packaged compiler on Debian, and the source of `core` for it.
const DEBIAN: [Package; 2] =
    [Package::library("rustc-web", Some("1.96")), Package::library("rust-web-src", Some("1.96"))];

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that qualifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The program.
    pub rustc: PathBuf,
    /// What it calls itself, such as `rustc 1.96.0`.
    pub version: String,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.rustc.display())
    }
}

/// The first compiler here that qualifies as it is.
pub fn find() -> Option<Compiler> {
    rustup_toolchains()
        .into_iter()
        .chain([PathBuf::from(DEBIAN_RUSTC)])
        .filter_map(|rustc| Candidate::at(&rustc))
        .find(|candidate| candidate.llvm == LLVM_MAJOR && candidate.has_source)
        .map(Candidate::into_compiler)
}

/// Gets a compiler: the source for a rustup toolchain that lacks nothing else, else Debian's packages.
pub fn install() -> Result<Compiler> {
    for toolchain in ["nightly", "stable"] {
        let fits = rustup_rustc(toolchain)
            .and_then(|rustc| Candidate::at(&rustc))
            .is_some_and(|candidate| candidate.llvm == LLVM_MAJOR);
        if fits && add_source(toolchain) {
            break;
        }
    }
    if let Some(compiler) = find() {
        return Ok(compiler);
    }
    packages::install(&packages::missing(&DEBIAN)).with_context(|| by_hand("cannot install it"))?;
    match find() {
        Some(compiler) => Ok(compiler),
        None => bail!(by_hand("the packages were installed, but their compiler does not qualify")),
    }
}

fn by_hand(what: &str) -> String {
    format!(
        "no compiler for eBPF programs: {what}. By hand, either `rustup toolchain install nightly --component rust-src` \
         with a nightly built on LLVM {LLVM_MAJOR} (`rustc +nightly -vV` tells), or on Debian 12 \
         `apt-get install rustc-web rust-web-src` with the bookworm-security archive enabled"
    )
}

/// One attempt; without a network it fails at once.
fn add_source(toolchain: &str) -> bool {
    command::step(format!("adding rust-src to rustup's {toolchain} toolchain"));
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain", toolchain]);
    // rustup otherwise repeats a failed download several times, with growing pauses.
    rustup.env("RUSTUP_MAX_RETRIES", "0");
    match command::run(&mut rustup) {
        Ok(()) => true,
        Err(error) => {
            command::step(format!("{error:#}; going on without it"));
            false
        }
    }
}

/// The compilers of rustup's usual toolchains, the nightly first.
fn rustup_toolchains() -> Vec<PathBuf> {
    let mut compilers: Vec<PathBuf> =
        ["nightly", "stable"].into_iter().filter_map(rustup_rustc).collect();
    compilers.dedup();
    compilers
}

/// The compiler of an installed toolchain; rustup is not made to download one.
fn rustup_rustc(toolchain: &str) -> Option<PathBuf> {
    let installed = command::output_of("rustup", &["toolchain", "list"])?;
    installed.lines().find(|line| line.starts_with(toolchain))?;
    let path = command::output_of("rustup", &["which", "--toolchain", toolchain, "rustc"])?;
    Some(path.trim().into())
}

/// Whether (and where) the active toolchain has one of [`COMPONENTS`].
pub fn component(name: &str) -> Option<String> {
    let program = if name == "clippy" { "cargo-clippy" } else { name };
    command::output_of(program, &["--version"]).map(|text| text.trim().to_owned())
}

/// Adds those of [`COMPONENTS`] that are missing.
pub fn install_components() -> Result<()> {
    for name in COMPONENTS {
        if component(name).is_none() {
            command::step(format!("adding {name} to rustup's active toolchain"));
            command::run(Command::new("rustup").args(["component", "add", name]))
                .with_context(|| format!("by hand: `rustup component add {name}`"))?;
        }
    }
    Ok(())
}

struct Candidate {
    rustc: PathBuf,
    version: String,
    llvm: u32,
    has_source: bool,
}

impl Candidate {
    fn at(rustc: &Path) -> Option<Self> {
        let text = command::output_of(rustc, &["-vV"])?;
        let sysroot = command::output_of(rustc, &["--print", "sysroot"])?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        let (version, llvm) = versions(&text)?;
        Some(Self { rustc: rustc.into(), version, llvm, has_source: core.is_file() })
    }

    fn into_compiler(self) -> Compiler {
        Compiler { rustc: self.rustc, version: self.version }
    }
}

/// Its own version and LLVM's major version, from `rustc -vV`.
fn versions(text: &str) -> Option<(String, u32)> {
    let first = text.lines().next()?;
    let version = first.split(" (").next()?.to_owned();
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some((version, llvm.split('.').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(text), Some(("rustc 1.96.0".into(), 22)));
        assert_eq!(versions("rustc 1.0\n"), None);
    }
}

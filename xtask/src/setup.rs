//! `cargo xtask setup`: finds what building and testing need and installs what is missing.
//!
//! Three things beyond cargo itself: a compiler for the BPF target with the source of `core` ([`compiler`]), bpf-linker
//! for the same major version of LLVM ([`linker`]), and programs that the labs and the tests call ([`packages`]). Whatever is
//! there already is used as it is.

pub mod compiler;
pub mod linker;
pub mod packages;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use compiler::Compiler;

use crate::{command, host};

/// What the eBPF build uses.
pub struct Tools {
    /// The compiler.
    pub compiler: Compiler,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// Finds everything, installing what is missing.
pub fn run() -> Result<Tools> {
    let compiler = match compiler::find() {
        Some(compiler) => compiler,
        None => compiler::install()?,
    };
    let linker = match linker::find() {
        Some(linker) => linker,
        None => linker::install()?,
    };
    packages::install(&packages::missing(&packages::FOR_LAB))?;
    Ok(Tools { compiler, linker })
}

/// `cargo xtask setup` and `cargo xtask test`: also what only the checks use.
pub fn run_for_tests() -> Result<Tools> {
    let tools = run()?;
    compiler::install_components()?;
    packages::install(&packages::missing(&packages::FOR_TESTS))?;
    Ok(tools)
}

/// `cargo xtask bench`: also what lb is compared with.
pub fn run_for_bench() -> Result<Tools> {
    let tools = run_for_tests()?;
    packages::install(&packages::missing(&packages::FOR_BENCH))?;
    Ok(tools)
}

/// `cargo xtask setup`: everything, and what was found.
pub fn run_and_report() -> Result<ExitCode> {
    run_for_tests()?;
    check()
}

/// Reports what there is; exit code 1 if something is missing.
pub fn check() -> Result<ExitCode> {
    let mut complete = true;
    let mut row = |what: &str, found: Option<String>, remedy: &str| {
        complete &= found.is_some();
        match found {
            Some(found) => println!("{what:<22} {found}"),
            None => println!("{what:<22} MISSING: {remedy}"),
        }
    };
    let compiler = compiler::find();
    row(
        "eBPF compiler",
        compiler.as_ref().map(ToString::to_string),
        "`cargo xtask setup` installs one",
    );
    row(
        "bpf-linker",
        linker::find().map(|path| path.display().to_string()),
        "`cargo xtask setup` builds it into target/tools",
    );
    for package in packages::FOR_LAB.iter().chain(&packages::FOR_TESTS) {
        row(package.name, package.found(), "`cargo xtask setup` installs it");
    }
    for component in compiler::COMPONENTS {
        row(component, compiler::component(component), "`rustup component add rustfmt clippy`");
    }
    match host::problem() {
        None => println!("{:<22} yes", "root and BPF"),
        Some(problem) => println!("{:<22} no: running lb {problem}", "root and BPF"),
    }
    if complete {
        command::step("everything that building and testing need is here");
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

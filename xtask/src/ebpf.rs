//! Compiles lb-ebpf for the BPF target and puts the objects where lb-userspace and the tests find them.
//!
//! aya-build would fix its own compiler flags and want a nightly from rustup; this does what we need with any compiler
//! that [`crate::setup`] has found.

use std::{env::consts::ARCH, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{command, setup::Tools, workspace};

/// The objects, one for each `[[bin]]` of lb-ebpf.
pub const OBJECTS: [&str; 3] = ["balancer", "decap", "lab"];

const TARGET: &str =
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// Builds the objects into `target/ebpf`; those that come out the same are left alone, so that nothing is recompiled.
pub fn build(tools: &Tools) -> Result<()> {
    command::step(format!("building the eBPF programs with {}", tools.compiler));
    build_in(tools, workspace::root(), &workspace::own_target().join("ebpf-build"))
}

/// The same for the workspace in another directory, whose build goes into `own_target`.
pub fn build_in(tools: &Tools, root: &Path, own_target: &Path) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .current_dir(root)
        .args(["build", "--package", "lb-ebpf", "--bins", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(own_target)
        .env("RUSTC", &tools.compiler.rustc)
        // `-Z build-std` and `core_intrinsics` on compilers that are not nightlies.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&tools.linker).join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    command::run(&mut cargo).context("the eBPF programs did not compile")?;

    let built = own_target.join(TARGET).join("release");
    let objects = root.join("target/ebpf");
    fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
    for object in OBJECTS {
        copy_if_changed(&built.join(object), &objects.join(object))?;
    }
    Ok(())
}

/// Compiler flags: BTF and line info; atomics with results (`v3`); unaligned loads, without which every header field
/// is put together from single bytes.
fn flags(linker: &Path) -> Vec<String> {
    vec![
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(),
        "-Ctarget-feature=+allows-misaligned-mem-access".into(),
        format!("-Clinker={}", linker.display()),
    ]
}

/// Copies a file's content, unless it is there already.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_stamp() {
        let directory = workspace::own_target().join("xtask-test");
        fs::create_dir_all(&directory).unwrap();
        let (from, to) = (directory.join("from"), directory.join("to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let stamp = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = stamp(&to);
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(stamp(&to), before);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        fs::remove_dir_all(&directory).unwrap();
    }
}

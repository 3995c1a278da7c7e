//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root")
}

/// Where the eBPF objects, their build and tools of our own go, whatever `CARGO_TARGET_DIR` says: lb-userspace's build
/// script looks for the objects there.
pub fn own_target() -> PathBuf {
    root().join("target")
}

/// Where cargo puts what it builds.
pub fn cargo_target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let metadata = cargo()
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .output()
            .ok()
            .and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok());
        match metadata.as_ref().and_then(|value| value["target_directory"].as_str()) {
            Some(directory) => directory.into(),
            None => own_target(),
        }
    })
}

/// The cargo that started us, in the repository's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.toml").is_file() && root().join("lb-ebpf").is_dir());
    }

    #[test]
    fn cargo_tells_its_target_directory() {
        assert!(cargo_target().is_dir(), "{}", cargo_target().display());
    }
}

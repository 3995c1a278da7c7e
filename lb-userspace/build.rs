//! Finds the compiled eBPF objects, which `cargo xtask build` puts into `target/ebpf`, and has them embedded.

use std::{env, path::PathBuf, process::exit};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let objects = root.join("../target/ebpf");
    for name in ["balancer", "decap"] {
        let object = objects.join(name);
        println!("cargo:rerun-if-changed={}", object.display());
        if !object.is_file() {
            eprintln!(
                "The eBPF program {} is not built yet. Run `cargo xtask build` once; it builds everything.",
                object.display()
            );
            exit(1);
        }
        println!(
            "cargo:rustc-env=LB_OBJECT_{}={}",
            name.to_uppercase(),
            object.canonicalize().expect("it exists").display()
        );
    }
}

//! lb and IPVS in one booted kernel of Debian's, because the kernel here may have no IPVS: a pair's dead node, and what requests cost.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{LINES, archive::Archive, boot, inside, libraries, unpacked};
use crate::{command, workspace};

/// The modules that the lab's machines, keepalived and IPVS need, without those that they need in turn.
const MODULES: [&str; 7] =
    ["crc32c_generic", "veth", "bridge", "nf_tables", "nft_ct", "ip_vs", "ip_vs_rr"];

/// The programs that the lab and keepalived call; the rest is busybox's.
const PROGRAMS: [&str; 5] = ["keepalived", "ip", "nft", "ethtool", "unshare"];

/// MiB and CPUs.
const SIZE: [u32; 2] = [2048, 2];

/// What the lab needs of a system, `@MODULES@` in the order in which they can be loaded, the command, and the end.
const INIT: &str = "#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/busybox
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /busybox
for module in @MODULES@; do insmod /modules/$module.ko || echo lb-problem $module cannot be loaded; done
ip link set lo up
echo
echo lb-kernel $(uname -r)
LB_SLOW=5 RUST_BACKTRACE=0 /@COMMAND@ 2>&1
echo lb-result $?
poweroff -f
";

/// Boots it with `lb` and `lab` of a directory; what the node's death has cost with each, as `lab` tells it.
pub fn beside_ipvs(binaries: &Path) -> Result<Vec<Value>> {
    let costs = run(binaries, "lab beside-ipvs", "lb-cost ")?;
    ensure!(costs.len() == 2, "{} costs of two were told", costs.len());
    Ok(costs)
}

/// Boots it with `lb` and `bench` of a directory; what `bench` has measured there.
pub fn measured_beside_ipvs(binaries: &Path, quick: bool) -> Result<Value> {
    let command = if quick { "bench --inside --quick" } else { "bench --inside" };
    let measured = run(binaries, command, "lb-measured ")?;
    let one = measured.into_iter().next();
    one.context("nothing was measured in the booted kernel")
}

/// Boots it with `lb` and a command of a directory; what the command has printed behind a mark.
fn run(binaries: &Path, command: &str, mark: &str) -> Result<Vec<Value>> {
    let directory = workspace::own_target().join("kernels");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let kernel = unpacked(LINES[1], &directory)?;
    let name = format!("{}-beside-ipvs", command.split(' ').next().unwrap_or_default());
    let initial = directory.join(format!("{name}.cpio"));
    fs::write(&initial, file_system(binaries, command, &kernel.modules, &directory)?)
        .with_context(|| format!("cannot write {}", initial.display()))?;
    let log = directory.join(format!("{name}.log"));
    let lines = boot(&kernel.image, &initial, &log, SIZE)?;
    told(&lines, mark).with_context(|| format!("see {}", log.display()))
}

/// What the command has told, if it has ended well.
fn told(lines: &[String], mark: &str) -> Result<Vec<Value>> {
    let after = |mark: &str| -> Vec<&str> {
        let rests = lines.iter().filter_map(|line| line.split_once(mark).map(|(_, rest)| rest));
        rests.map(str::trim).collect()
    };
    if let Some(problem) = after("lb-problem ").first() {
        bail!("in the booted kernel, {problem}");
    }
    match after("lb-result ").first() {
        None => bail!("the command did not end in the booted kernel"),
        Some(&"0") => {}
        Some(code) => bail!("the command failed in the booted kernel ({code})"),
    }
    let values = after(mark).into_iter().map(serde_json::from_str);
    Ok(values.collect::<Result<_, _>>()?)
}

/// For people.
pub fn cost_text(cost: &Value) -> String {
    format!(
        "{}: {} requests answered, {} failed, {} of {} connections broken, longest gap {} ms",
        cost["who"].as_str().unwrap_or("?"),
        cost["answered"],
        cost["failed"],
        cost["broken"],
        cost["held"],
        cost["longest_gap_ms"]
    )
}

fn file_system(
    binaries: &Path,
    command: &str,
    modules: &Path,
    directory: &Path,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for mount_point in ["proc", "sys", "dev", "tmp", "run", "var/lib", "busybox", "etc"] {
        archive.directory(mount_point);
    }
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    // Not busybox's, which would take its own `ip` for the real one.
    let shell = Path::new("/bin/sh");
    archive.copy("bin/sh", shell)?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    let mut needed = libraries(shell)?;
    for name in ["lb", command.split(' ').next().unwrap_or_default()] {
        // Without what debuggers need, it is a tenth as long.
        let stripped = directory.join(name);
        let binary = binaries.join(name);
        command::run(Command::new("strip").arg("-o").arg(&stripped).arg(&binary))?;
        archive.copy(name, &stripped)?;
        needed.extend(libraries(&binary)?);
    }
    for name in PROGRAMS {
        let path = command::output_of(
            "sh",
            &["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {name}")],
        )
        .with_context(|| format!("there is no {name}"))?;
        let path = Path::new(path.trim());
        archive.copy(inside(path), path)?;
        needed.extend(libraries(path)?);
    }
    needed.sort();
    needed.dedup();
    for library in needed {
        archive.copy(inside(&library), &library)?;
    }
    // keepalived's files, and the objects that the lab loads, where the repository has them.
    let root = workspace::root();
    for file in ["configs/ha/node-a.conf", "configs/ha/node-b.conf", "target/ebpf/lab"] {
        archive.copy(inside(&root.join(file)), &root.join(file))?;
    }
    archive.directory(inside(&root.join("tests")));
    let modules = ordered(modules)?;
    for (name, bytes) in &modules {
        archive.file(&format!("modules/{name}.ko"), 0o644, bytes);
    }
    let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    let init = INIT.replace("@MODULES@", &names.join(" ")).replace("@COMMAND@", command);
    archive.file("init", 0o755, init.as_bytes());
    Ok(archive.finish())
}

/// The modules, those that others need first.
fn ordered(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    find(directory, &mut files)?;
    let mut done = Vec::new();
    for name in MODULES {
        add(name, &files, &mut done)?;
    }
    Ok(done)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    done: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if done.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let bytes = read(path)?;
    for other in needs(&bytes) {
        add(&other, files, done)?;
    }
    done.push((name.to_owned(), bytes));
    Ok(())
}

/// Modules by their names, which have `_` where files may have `-`.
fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) = file.split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// A module as the kernel takes it: newer packages have them compressed.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|end| end != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
    let output = output.context("cannot start xz")?;
    ensure!(output.status.success(), "xz fails on {}", path.display());
    Ok(output.stdout)
}

/// What a module says of itself in its section .modinfo: `depends=a,b` and a zero.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let text: Vec<u8> =
        module[at + KEY.len()..].iter().copied().take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text).replace('-', "_");
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(b"x\0depends=nf_conntrack,nf-defrag\0y"), ["nf_conntrack", "nf_defrag"]);
        assert!(needs(b"x\0depends=\0y").is_empty() && needs(b"x").is_empty());
    }

    #[test]
    fn what_was_told_counts_when_the_command_has_ended_well() {
        let told =
            |text: &str| told(&text.lines().map(str::to_owned).collect::<Vec<_>>(), "lb-cost ");
        let good = "lb-cost {\"who\":\"a\"}\nlb-cost {\"who\":\"b\"}\n";
        assert_eq!(told(&format!("{good}lb-result 0")).unwrap()[1]["who"], "b");
        for bad in [
            good.to_owned(),
            format!("{good}lb-result 1"),
            "lb-cost damaged\nlb-result 0".to_owned(),
            format!("lb-problem ip_vs cannot be loaded\n{good}lb-result 0"),
        ] {
            assert!(told(&bad).is_err(), "{bad}");
        }
    }
}

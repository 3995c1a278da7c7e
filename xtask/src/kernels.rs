//! `cargo xtask test --kernels`: Debian's kernels, booted side by side under qemu's software emulation, each with the
//! packet tests in an initial file system of its own. Nothing is installed, no disk and no network is used.

mod archive;
mod beside_ipvs;
mod report;

pub use beside_ipvs::{beside_ipvs, cost_text, measured_beside_ipvs};

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{build::HOST_CRATES, command, ebpf, workspace};
use archive::Archive;
use report::Report;

/// Debian's packages that depend on the newest kernel of a line.
const LINES: [&str; 2] = ["linux-image-amd64", "linux-image-6.12-amd64"];

/// The test target that runs in them.
pub const SUITE: &str = "packets_booted";

/// When a kernel is given up on.
const LONGEST: Duration = Duration::from_secs(600);

/// The first program: what the tests need of a system, the tests, and the end. What is left out runs through all values of a checksum:
/// minutes of arithmetic that no kernel does differently.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t bpf bpf /sys/fs/bpf
echo
echo lb-kernel $(/bin/busybox uname -r)
RUST_BACKTRACE=0 /suite --test-threads=1 --nocapture --skip echo_is_answered_for_every_checksum \
  --skip a_udp_checksum_of_zero_stays_zero_and_none_becomes_zero 2>&1
echo lb-result $?
/bin/busybox poweroff -f
";

/// Boots the kernels and prints what came of it; an error says what failed and where to read on.
pub fn run() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "Debian's kernels are booted on x86-64 only: on other machines run `cargo xtask test` on each kernel"
    );
    let suite = suite()?;
    let directory = workspace::own_target().join("kernels");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let initial = directory.join("initial.cpio");
    fs::write(&initial, file_system(&suite, &directory)?)
        .with_context(|| format!("cannot write {}", initial.display()))?;
    let mut kernels = Vec::new();
    for line in LINES {
        kernels.push((line, unpacked(line, &directory)?.image));
    }
    // At once, each on one CPU: there is one test at a time in it, too.
    let reports = thread::scope(|scope| {
        let boots: Vec<_> = kernels
            .iter()
            .map(|(line, kernel)| {
                let log = directory.join(format!("{line}.log"));
                let initial = &initial;
                scope.spawn(move || {
                    let start = Instant::now();
                    let lines = boot(kernel, initial, &log, [1024, 1])?;
                    Ok((Report::of(&lines), log, start.elapsed()))
                })
            })
            .collect();
        boots
            .into_iter()
            .map(|boot| boot.join().unwrap_or_else(|_| bail!("booting a kernel panicked")))
            .collect::<Vec<Result<_>>>()
    });
    let mut failed = Vec::new();
    for report in reports {
        let (report, log, time): (Report, PathBuf, Duration) = report?;
        println!("{}", report.text(time));
        if let Some(problem) = report.problem() {
            failed.push(format!("{problem}; see {}", log.display()));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The death of a node of a pair of lb and of one of IPVS in a booted kernel; some two minutes.
pub fn compare_with_ipvs() -> Result<()> {
    let start = Instant::now();
    for cost in beside_ipvs(&workspace::cargo_target().join("debug"))? {
        println!("  {}", cost_text(&cost));
    }
    println!("a dead node, lb beside IPVS ({:.0} s in all)", start.elapsed().as_secs_f64());
    Ok(())
}

/// The suite's binary.
fn suite() -> Result<PathBuf> {
    let output = workspace::cargo()
        .arg("test")
        .args(HOST_CRATES)
        .args(["--test", SUITE, "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "{SUITE} does not compile");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let path = messages
        .filter(|message| message["target"]["name"] == SUITE)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.with_context(|| format!("cargo names no executable of {SUITE}"))
}

/// Everything that the booted kernel gets to see.
fn file_system(suite: &Path, directory: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for mount_point in ["proc", "sys", "dev", "tmp"] {
        archive.directory(mount_point);
    }
    archive.file("init", 0o755, INIT.as_bytes());
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    // Without what debuggers need, it is a tenth as long.
    let stripped = directory.join("suite");
    command::run(Command::new("strip").arg("-o").arg(&stripped).arg(suite))?;
    archive.copy("suite", &stripped)?;
    for library in libraries(suite)? {
        archive.copy(inside(&library), &library)?;
    }
    // The tests look for the objects where the repository has them.
    let root = workspace::root();
    archive.directory(inside(&root.join("tests")));
    for object in ebpf::OBJECTS {
        let path = root.join("target/ebpf").join(object);
        archive.copy(inside(&path), &path)?;
    }
    Ok(archive.finish())
}

/// A path without its leading slash.
fn inside(path: &Path) -> &str {
    path.to_str().unwrap_or_default().trim_start_matches('/')
}

/// The shared objects of a binary, the dynamic linker among them, as ldd tells.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let text = command::output_of("ldd", &[&binary.display().to_string()])
        .with_context(|| format!("`ldd {}` fails", binary.display()))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A kernel as its package brings it.
struct Unpacked {
    image: PathBuf,
    /// `lib/modules/VERSION/kernel`, of which there is what [`MODULES`] names.
    modules: PathBuf,
}

/// What of a package's modules is unpacked: those of the network, and what they are built on.
const MODULES: [&str; 4] = ["net", "lib", "crypto", "drivers/net/veth.ko*"];

/// The newest kernel of a line, downloaded unless it is there, unpacked and not installed.
fn unpacked(line: &str, directory: &Path) -> Result<Unpacked> {
    let depends = command::output_of("apt-cache", &["depends", line]).unwrap_or_default();
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|version| format!("linux-image-{version}"));
    let Some(package) = package else {
        bail!(
            "apt knows no {line}; are `bookworm` and `bookworm-security` among its sources, and `apt-get update` has run?"
        );
    };
    let version = package.trim_start_matches("linux-image-").to_owned();
    let directory = directory.join(&package);
    let kernel = Unpacked {
        image: directory.join(format!("boot/vmlinuz-{version}")),
        modules: directory.join(format!("lib/modules/{version}/kernel")),
    };
    if kernel.image.is_file() && kernel.modules.is_dir() {
        return Ok(kernel);
    }
    command::step(format!("downloading {package}"));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let download = || {
        // Into our own directory, which apt's own user may not write to.
        command::run(
            Command::new("apt-get")
                .args(["--quiet", "-o", "APT::Sandbox::User=root", "download", &package])
                .current_dir(&directory),
        )
    };
    if download().is_err() {
        command::step("updating apt's package lists and trying again");
        command::run(Command::new("apt-get").args(["--quiet", "update"]))?;
        download()?;
    }
    let modules = MODULES.map(|part| format!("'./lib/modules/{version}/kernel/{part}'")).join(" ");
    let unpack = format!(
        "dpkg-deb --fsys-tarfile {package}_*.deb | tar -x --wildcards ./boot/vmlinuz-{version} {modules} && rm {package}_*.deb"
    );
    command::run(Command::new("sh").args(["-c", &unpack]).current_dir(&directory))?;
    ensure!(kernel.image.is_file(), "{package} has no {}", kernel.image.display());
    Ok(kernel)
}

/// Boots a kernel with so many MiB and CPUs, and reads what it says until it powers off.
fn boot(
    kernel: &Path,
    initial: &Path,
    log: &Path,
    [memory, cpus]: [u32; 2],
) -> Result<Vec<String>> {
    command::step(format!("booting {}", kernel.display()));
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", &memory.to_string(), "-smp", &cpus.to_string()])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initial)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let output = machine.stdout.take().context("qemu has no output")?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let reader = thread::spawn(move || {
        let mut lines = Vec::new();
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
            // Whoever looks on may; what counts is returned.
            let _ = file.write_all(&line);
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
        lines
    });
    let end = Instant::now() + LONGEST;
    while machine.try_wait()?.is_none() {
        if Instant::now() > end {
            machine.kill()?;
            machine.wait()?;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(reader.join().unwrap_or_default())
}

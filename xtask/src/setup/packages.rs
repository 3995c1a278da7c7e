//! Debian packages: found by what they bring or by dpkg, installed by apt-get without any question.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{command, host};

/// Programs that the lab and the tests call.
pub const FOR_LAB: [Package; 2] =
    [Package::program("iproute2", "ip"), Package::program("ethtool", "ethtool")];

/// Programs of other projects that the tests run in their labs.
pub const FOR_TESTS: [Package; 29] = [
    Package::program("systemd", "systemd-analyze"),
    Package::program("keepalived", "keepalived"),
    Package::program("bird2", "bird"),
    Package::program("nftables", "nft"),
    Package::program("etcd-server", "etcd"),
    Package::program("etcd-client", "etcdctl"),
    Package::program("haproxy", "haproxy"),
    Package::program("mandoc", "mandoc"),
    Package::program("openssl", "openssl"),
    Package::program("prometheus", "prometheus"),
    Package::program("tmux", "tmux"),
    Package::program("nginx-light", "nginx"),
    Package::program("gunicorn", "gunicorn"),
    Package::library("python3-flask", None),
    Package::library("python3-pymysql", None),
    // The servers without the packages that start them.
    Package::program("mariadb-server-core", "mariadbd"),
    Package::program("mariadb-client-core", "mariadb"),
    Package::library("postgresql-15", None),
    Package::program("redis-server", "redis-server"),
    Package::program("dnsmasq-base", "dnsmasq"),
    Package::library("python3-grpcio", None),
    Package::program("tshark", "tshark"),
    Package::library("libfaketime", None),
    // The dashboard is looked at in a real browser, with letters as wide as most people's.
    Package::program("chromium", "chromium"),
    Package::program("chromium-driver", "chromedriver"),
    Package::library("fonts-noto-core", None),
    // Other kernels are booted with these.
    Package::program("qemu-system-x86", "qemu-system-x86_64"),
    Package::program("busybox-static", "busybox"),
    Package::program("xz-utils", "xz"),
];

/// Programs that the benchmark compares lb with, beside those of the tests.
pub const FOR_BENCH: [Package; 2] =
    [Package::program("haproxy", "haproxy"), Package::library("libnginx-mod-stream", None)];

/// A Debian package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The program that we want it for; whoever brought it is fine.
    program: Option<&'static str>,
    /// How its version has to begin, if that matters.
    version: Option<&'static str>,
}

impl Package {
    /// Wanted for a program.
    pub const fn program(name: &'static str, program: &'static str) -> Self {
        Self { name, program: Some(program), version: None }
    }

    /// Wanted as a whole.
    pub const fn library(name: &'static str, version: Option<&'static str>) -> Self {
        Self { name, program: None, version }
    }

    /// Where it is or which version it has, if it is installed.
    pub fn found(&self) -> Option<String> {
        if let Some(program) = self.program {
            let path = env::var_os("PATH").unwrap_or_default();
            return env::split_paths(&path)
                .chain(["/usr/sbin".into(), "/sbin".into()])
                .map(|directory| directory.join(program))
                .find(|path| path.is_file())
                .map(|path| path.display().to_string());
        }
        let format = "-f=${db:Status-Status} ${Version}";
        let state = command::output_of("dpkg-query", &["-W", format, self.name])?;
        let version = state.strip_prefix("installed ")?;
        self.accepts(version).then(|| version.to_owned())
    }

    fn accepts(&self, version: &str) -> bool {
        self.version.is_none_or(|wanted| version.starts_with(wanted))
    }

    /// Whether apt knows a fitting version.
    fn is_available(&self) -> bool {
        let policy = command::output_of("apt-cache", &["policy", self.name]).unwrap_or_default();
        candidate(&policy).is_some_and(|version| self.accepts(version))
    }
}

/// Those that are not installed.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| package.found().is_none()).collect()
}

/// Installs packages; does nothing for an empty list.
pub fn install(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let by_hand = format!("By hand: `apt-get install {}`", names.join(" "));
    if !Path::new("/usr/bin/apt-get").is_file() {
        bail!(
            "{} missing, and this is not Debian (no apt-get): install what corresponds to it",
            names.join(", ")
        );
    }
    if !host::is_root() {
        bail!("{} missing, and installing needs root. {by_hand}", names.join(", "));
    }
    if !packages.iter().all(Package::is_available) {
        command::step("updating apt's package lists");
        command::run(apt_get().arg("update"))?;
    }
    if let Some(absent) = packages.iter().find(|package| !package.is_available()) {
        bail!(
            "apt knows no package {} {}; are `bookworm` and `bookworm-security` among its sources? {by_hand}",
            absent.name,
            absent.version.unwrap_or_default()
        );
    }
    command::step(format!("installing {}", names.join(" ")));
    let install =
        || command::run(apt_get().args(["install", "--no-install-recommends"]).args(&names));
    if install().is_err() {
        // Lists older than the archive name files that are gone.
        command::step("updating apt's package lists and trying again");
        command::run(apt_get().arg("update"))?;
        if let Err(error) = install() {
            bail!("{error:#}. {by_hand}");
        }
    }
    Ok(())
}

/// apt-get that asks nothing, removes nothing and starts no service: labs run programs in namespaces of their own.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--yes", "--quiet", "--no-remove"]).env("DEBIAN_FRONTEND", "noninteractive");
    command.env("SYSTEMD_OFFLINE", "1");
    command
}

/// The version that `apt-cache policy` would install.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(candidate(policy), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn an_old_version_does_not_count() {
        let package = Package::library("rustc-web", Some("1.96"));
        assert!(package.accepts("1.96.0+dfsg1-1~deb12u2"));
        assert!(!package.accepts("1.85.0+dfsg3-1~deb12u3"));
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(Package::program("dash", "sh").found().is_some());
        assert!(Package::program("nothing", "no-such-program-anywhere").found().is_none());
    }
}

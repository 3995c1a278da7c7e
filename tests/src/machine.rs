//! A machine: a thread with its own network and mount namespaces.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Child, Command, Output},
    sync::mpsc,
    thread,
};

use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, setrlimit},
};

type Job = Box<dyn FnOnce() + Send>;

/// A machine of the lab. Dropping it ends its anchor thread, and with it every process started in it.
pub struct Machine {
    /// For messages.
    pub name: String,
    /// Thread id of the anchor, which `ip link ... netns` takes.
    pub tid: i32,
    jobs: mpsc::Sender<Job>,
}

impl Machine {
    /// A machine with loopback up, a bpffs of its own, and empty /run and /var/lib.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        // Thousands of connections, both ends in this process. Fails only without root, which is said below.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, 65_536, 65_536);
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        thread::Builder::new().name(format!("lab-{name}")).spawn(move || {
            let tid = nix::unistd::gettid().as_raw();
            // The receiver waits for exactly this.
            let _ = ready.send(isolate().map(|()| tid));
            while let Ok(job) = inbox.recv() {
                job();
            }
        })?;
        let tid = started.recv().context("the machine's thread has ended")??;
        let machine = Self { name: name.to_owned(), tid, jobs };
        machine.ip("link set lo up")?;
        Ok(machine)
    }

    /// Runs something in the machine's thread: threads and processes it starts are in the machine, too.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = Box::new(move || {
            // The caller waits for exactly this.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.send(job).unwrap_or_else(|_| panic!("machine {} has ended", self.name));
        match result.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("machine {} has ended", self.name),
        }
    }

    /// Runs a command to its end.
    pub fn output(&self, mut command: Command) -> anyhow::Result<Output> {
        let shown = format!("{command:?}");
        self.run(move || command.output()).with_context(|| format!("{}: {shown}", self.name))
    }

    /// Starts a process that the kernel kills when the machine goes.
    pub fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        use std::os::unix::process::CommandExt as _;
        let shown = format!("{command:?}");
        self.run(move || {
            // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
            unsafe {
                command.pre_exec(|| {
                    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                    Ok(())
                });
            }
            command.spawn()
        })
        .with_context(|| format!("{}: {shown}", self.name))
    }

    /// Runs a shell command; its failure is an error with everything it printed.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let output = self.output(command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "{}: `{line}` failed: {}{}",
            self.name,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// `ip ARGUMENTS`
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        self.sh(&format!("ip {arguments}"))
    }

    /// A veth pair between two machines, both ends up, with complete checksums on the wire (XDP forwards what the
    /// stack would have left to hardware).
    pub fn connect(
        &self,
        nic: &str,
        other: &Machine,
        other_nic: &str,
        mtu: u32,
    ) -> anyhow::Result<()> {
        self.ip(&format!(
            "link add {nic} mtu {mtu} type veth peer name {other_nic} mtu {mtu} netns {}",
            other.tid
        ))?;
        for (machine, nic) in [(self, nic), (other, other_nic)] {
            machine.sh(&format!("ethtool -K {nic} tx off >/dev/null"))?;
            machine.ip(&format!("link set {nic} up"))?;
        }
        Ok(())
    }
}

fn isolate() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("the lab needs root: cannot make namespaces")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("mount --make-rprivate /")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)
        .context("mount bpffs")?;
    for directory in ["/run", "/var/lib"] {
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .with_context(|| format!("mount a tmpfs on {directory}"))?;
    }
    // Per namespace: accept what comes by any way (dsr and tunnel backends answer from the VIP), no waiting for
    // duplicate address detection.
    for (file, value) in [
        ("/proc/sys/net/ipv4/conf/all/rp_filter", "0"),
        ("/proc/sys/net/ipv4/conf/default/rp_filter", "0"),
        ("/proc/sys/net/ipv6/conf/all/accept_dad", "0"),
        ("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000"),
        ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
    ] {
        std::fs::write(file, value).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}

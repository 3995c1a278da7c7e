//! A program of the operator's: it ends with 0, or with another code, or not in time.
//!
//! It runs as lb's own user, without a shell, with an environment of its own, as the leader of a process group that is
//! killed with everything in it when the check is over.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    process::{Child, Command},
    time::{Instant, timeout_at},
};

use super::{
    CheckCode, Outcome,
    expect::{LIMIT, first_line},
};
use crate::health::Served;

/// How long output is waited for once the program has ended; what it has started may hold the pipe open.
const LINGER: Duration = Duration::from_millis(20);

/// Runs the program; the verdict comes by `deadline`.
pub(super) async fn ask(
    (command, arguments): (&Path, &[String]),
    address: SocketAddr,
    served: Option<&Served>,
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let ours = |error: &dyn std::fmt::Display| {
        outcome(CheckCode::SockErr, &format!("{}: {error}", command.display()))
    };
    if let Err(why) = refuse(command) {
        return ours(&why);
    }
    let (mut group, mut output) = match start(command, arguments, address, served) {
        Ok(started) => started,
        // Not there, not executable, or no process to be had: no word about the backend.
        Err(error) => return ours(&error),
    };
    let mut said = Vec::new();
    let ended = timeout_at(deadline, group.end(&mut output, &mut said)).await;
    drop(group);
    let line = first_line(&said);
    match ended {
        Err(_) => outcome(
            CheckCode::ProcTout,
            &with(&format!("killed after {:?}", deadline - began), &line),
        ),
        Ok(Err(error)) => ours(&error),
        Ok(Ok(status)) if status.success() => outcome(CheckCode::ProcOk, &line),
        Ok(Ok(status)) => outcome(CheckCode::ProcErr, &with(&words(status), &line)),
    }
}

fn words(status: ExitStatus) -> String {
    // "exit status: 3", "signal: 9 (SIGKILL)"
    status.to_string().replacen(": ", " ", 1)
}

fn with(words: &str, line: &str) -> String {
    if line.is_empty() { words.to_owned() } else { format!("{words}: {line}") }
}

/// A program that others can write is a way to become lb's user.
fn refuse(command: &Path) -> Result<(), String> {
    let found = std::fs::metadata(command).map_err(|error| error.to_string())?;
    let ours = nix::unistd::geteuid().as_raw();
    if !found.is_file() {
        return Err("not a file".to_owned());
    }
    if found.uid() != 0 && found.uid() != ours {
        return Err(format!("belongs to user {}: chown it to root", found.uid()));
    }
    match found.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!("mode {:04o} lets others write it: chmod go-w", found.mode() & 0o7777)),
    }
}

/// The program with all that it starts; they end with this.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    /// Waits for the program's end, and reads what it prints meanwhile.
    async fn end(
        &mut self,
        output: &mut pipe::Receiver,
        said: &mut Vec<u8>,
    ) -> io::Result<ExitStatus> {
        let mut open = true;
        let mut piece = [0; 4096];
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status?,
                read = output.read(&mut piece), if open => open = keep(read, &piece, said),
            }
        };
        let rest = async {
            while open {
                open = keep(output.read(&mut piece).await, &piece, said);
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
        Ok(status)
    }
}

/// Keeps what was read up to the limit, and throws the rest away, so that nobody waits for a full pipe. Whether there may
/// be more.
fn keep(read: io::Result<usize>, piece: &[u8], said: &mut Vec<u8>) -> bool {
    let length = read.unwrap_or(0);
    said.extend_from_slice(&piece[..length.min(LIMIT.saturating_sub(said.len()))]);
    length > 0
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Nobody is left, or they end. A group's number is nobody else's while anybody is in it, and comes again only
            // after millions of processes.
            let _ = killpg(id, Signal::SIGKILL);
        }
    }
}

fn start(
    command: &Path,
    arguments: &[String],
    address: SocketAddr,
    served: Option<&Served>,
) -> io::Result<(Group, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let mut program = Command::new(command);
    program.args(arguments).current_dir("/").process_group(0).kill_on_drop(true);
    program.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    program.env("LB_BACKEND_ADDRESS", address.ip().to_string());
    program.env("LB_BACKEND_PORT", address.port().to_string());
    if let Some(served) = served {
        program.env("LB_SERVICE", &served.service).env("LB_BACKEND", &served.backend);
        program.env("LB_VIP", served.vip.ip().to_string());
        program.env("LB_VIP_PORT", served.vip.port().to_string());
    }
    program.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = program.spawn()?;
    let id = child.id().map(|id| Pid::from_raw(id as i32));
    Ok((Group { child, id }, pipe::Receiver::from_owned_fd(reader.into())?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::model::Forward;

    struct Script(tempfile::TempDir);

    impl Script {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let script = Self(directory);
            // Written by another process, so that no fork of this one can hold it open for writing (ETXTBSY).
            let line = format!("cat > '{0}' && chmod 755 '{0}'", script.path().display());
            let mut child = std::process::Command::new("sh")
                .args(["-c", &line])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            use std::io::Write as _;
            child
                .stdin
                .take()
                .unwrap()
                .write_all(format!("#!/bin/sh\n{text}\n").as_bytes())
                .unwrap();
            assert!(child.wait().unwrap().success());
            script
        }

        fn path(&self) -> std::path::PathBuf {
            self.0.path().join("check")
        }

        async fn run(&self, arguments: &[&str], time: Duration) -> Outcome {
            let served = Served {
                service: "shop".into(),
                backend: "shop1".into(),
                vip: "192.0.2.10:443".parse().unwrap(),
                forward: Forward::Nat,
            };
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            let began = Instant::now();
            let address = "10.0.0.11:80".parse().unwrap();
            ask((&self.path(), &arguments), address, Some(&served), began, began + time).await
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_code_decides_and_the_first_line_is_shown() {
        let script = Script::new(
            "echo \"$LB_SERVICE $LB_BACKEND $LB_VIP $LB_VIP_PORT $LB_BACKEND_ADDRESS $LB_BACKEND_PORT $1 $HOME\"\n\
             echo more >&2; exit $2",
        );
        let good = script.run(&["a b;c", "0"], LONG).await;
        assert_eq!(good.code, CheckCode::ProcOk, "{good:?}");
        assert_eq!(good.output, "shop shop1 192.0.2.10 443 10.0.0.11 80 a b;c ");
        let bad = script.run(&["", "3"], LONG).await;
        assert_eq!((bad.code, bad.good), (CheckCode::ProcErr, Some(false)));
        assert!(bad.output.starts_with("exit status 3: shop shop1"), "{bad:?}");
        let killed = Script::new("kill -9 $$").run(&[], LONG).await;
        assert_eq!(killed.code, CheckCode::ProcErr, "{killed:?}");
        assert!(killed.output.contains("signal 9"), "{killed:?}");
    }

    #[tokio::test]
    async fn it_is_killed_with_all_that_it_has_started() {
        let marks = tempfile::tempdir().unwrap();
        let marks = marks.path().to_str().unwrap();
        let script =
            Script::new("sh -c 'echo $$ > $0/child; sleep 600' $1 & echo $$ > $1/me; wait");
        let late = script.run(&[marks], Duration::from_secs(2)).await;
        assert_eq!((late.code, late.good), (CheckCode::ProcTout, Some(false)), "{late:?}");
        for name in ["me", "child"] {
            let process = std::fs::read_to_string(format!("{marks}/{name}")).unwrap();
            let process = format!("/proc/{}/stat", process.trim());
            let mut left = None;
            for _ in 0..500 {
                left = std::fs::read_to_string(&process).ok().filter(|stat| !stat.contains(") Z "));
                if left.is_none() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(left, None, "{name}");
        }
        // One that stays behind holds the pipe open, and is not waited for.
        let began = Instant::now();
        let good = Script::new("sleep 600 & echo fine").run(&[], LONG).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::ProcOk, "fine"));
        assert!(began.elapsed() < LONG);
    }

    #[tokio::test]
    async fn much_output_blocks_nobody() {
        let good = Script::new("yes | head -c 1000000").run(&[], LONG).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::ProcOk, "y"), "{good:?}");
    }

    #[tokio::test]
    async fn a_program_that_cannot_run_is_not_the_backend_s_fault() {
        let script = Script::new("exit 0");
        std::fs::set_permissions(script.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let open = script.run(&[], LONG).await;
        assert_eq!((open.code, open.good), (CheckCode::SockErr, None));
        assert!(open.output.contains("chmod go-w"), "{open:?}");
        std::fs::set_permissions(script.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let plain = script.run(&[], LONG).await;
        assert!(plain.output.contains("Permission denied"), "{plain:?}");
        std::fs::remove_file(script.path()).unwrap();
        let gone = script.run(&[], LONG).await;
        assert_eq!((gone.code, gone.good), (CheckCode::SockErr, None), "{gone:?}");
    }
}

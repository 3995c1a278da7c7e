//! `lb health`

use std::{path::Path, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    Exit,
    client::{Connection, block_on},
    output,
    paths::PinDir,
};
use crate::{
    api::{
        client::{Client, ClientError},
        types::Status,
    },
    control::node,
    dataplane,
};

/// Tell a VRRP or BGP daemon whether this node forwards
///
/// Prints one line and exits with 0: forwarding, and the daemon controls it; 1: not forwarding; 2: the daemon is away
/// or hangs, but packets are still forwarded (links are pinned); 5: may not look. A new data plane counts as not
/// forwarding until the first checks of its backends have been answered, and a drained node (`lb node drain`) as long as it is. Made for keepalived's track_script and BIRD's
/// watchers: it never takes longer than the timeout.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb health
  lb health --forwarding               in keepalived's track_script")]
pub struct Health {
    #[command(flatten)]
    pins: PinDir,
    /// Seconds the daemon has to answer
    #[arg(long, value_name = "INTERVAL", default_value = "2s", value_parser = super::units::parse_interval)]
    timeout: Duration,
    /// Exit with 0 for as long as packets are forwarded, whether or not the daemon is there
    #[arg(long)]
    forwarding: bool,
    /// Print JSON: {"state", "detail"}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Controlled,
    NotForwarding,
    Uncontrolled,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    state: State,
    detail: String,
}

impl Health {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client().with_timeout(self.timeout);
        let answer = ask(&client)?;
        let verdict = match answer {
            Ok(status) => judge(&status),
            Err(error) => judge_without_daemon(&error, &self.pins.pin_dir, client.socket()),
        };
        if self.json {
            output::print_json(&verdict)?;
        } else {
            output::print(&output::lines([&verdict.detail]))?;
        }
        // The codes of DESIGN part 6, which monitors know; not those of `Exit`.
        Ok(match verdict.state {
            State::Controlled => Exit::Ok,
            State::NotForwarding => Exit::Failure,
            State::Uncontrolled if self.forwarding => Exit::Ok,
            State::Uncontrolled => Exit::Usage,
        })
    }
}

/// The daemon's answer, or why there is none. Not being allowed to ask is neither.
fn ask(client: &Client) -> anyhow::Result<Result<Status, ClientError>> {
    match block_on(async { Ok(client.status().await) })? {
        Err(error @ ClientError::Permission { .. }) => Err(error.into()),
        answer => Ok(answer),
    }
}

fn judge(status: &Status) -> Verdict {
    let attached: Vec<&str> = status
        .interfaces
        .iter()
        .filter(|nic| nic.mode != "detached" && nic.link == "up")
        .map(|nic| nic.name.as_str())
        .collect();
    if attached.is_empty() {
        let detail = "not forwarding: no NIC is attached and up".to_owned();
        return Verdict { state: State::NotForwarding, detail };
    }
    if status.starting {
        let detail = "not forwarding yet: the first checks have not all been answered".to_owned();
        return Verdict { state: State::NotForwarding, detail };
    }
    if status.draining {
        return drained();
    }
    let detail = format!("forwarding on {}, controlled by pid {}", attached.join(", "), status.pid);
    Verdict { state: State::Controlled, detail }
}

/// What a drained node says, whoever asks.
fn drained() -> Verdict {
    let detail = "drained: packets are forwarded, but none are to be sent here (`lb node ready`)";
    Verdict { state: State::NotForwarding, detail: detail.to_owned() }
}

fn judge_without_daemon(error: &ClientError, pin_dir: &Path, socket: &Path) -> Verdict {
    if node::is_draining(socket) {
        return drained();
    }
    let attached: Vec<String> = dataplane::attachments_of(pin_dir)
        .into_iter()
        .filter(|attachment| attachment.ifindex != 0)
        .map(|attachment| attachment.ifname)
        .collect();
    if attached.is_empty() {
        return Verdict { state: State::NotForwarding, detail: format!("not forwarding: {error}") };
    }
    let detail = format!("forwarding on {}, not controlled: {error}", attached.join(", "));
    Verdict { state: State::Uncontrolled, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::InterfaceStatus;

    fn status(mode: &str, link: &str) -> Status {
        let nic = InterfaceStatus {
            name: "eth0".into(),
            mode: mode.into(),
            link: link.into(),
            ..InterfaceStatus::default()
        };
        Status { pid: 7, interfaces: vec![nic], ..Status::default() }
    }

    #[test]
    fn forwarding_means_an_attached_nic_that_is_up() {
        let verdict = judge(&status("native", "up"));
        assert_eq!(verdict.state, State::Controlled);
        assert_eq!(verdict.detail, "forwarding on eth0, controlled by pid 7");
        assert_eq!(judge(&status("generic", "down")).state, State::NotForwarding);
        assert_eq!(judge(&status("detached", "up")).state, State::NotForwarding);
        assert_eq!(judge(&Status::default()).state, State::NotForwarding);
        let starting = Status { starting: true, ..status("native", "up") };
        assert_eq!(judge(&starting).state, State::NotForwarding);
        let draining = Status { draining: true, ..status("native", "up") };
        assert_eq!(judge(&draining).state, State::NotForwarding);
    }

    #[test]
    fn without_daemon_and_pins_nothing_forwards() {
        let dir = tempfile::tempdir().unwrap();
        let error = ClientError::NotRunning { socket: "/s".into(), why: "nobody answers on" };
        let socket = dir.path().join("lb.sock");
        let verdict = judge_without_daemon(&error, dir.path(), &socket);
        assert_eq!(verdict.state, State::NotForwarding);
        assert!(verdict.detail.starts_with("not forwarding: lb is not running"), "{verdict:?}");
        std::fs::write(dir.path().join("draining"), "").unwrap();
        let verdict = judge_without_daemon(&error, dir.path(), &socket);
        assert!(verdict.detail.starts_with("drained"), "{verdict:?}");
    }
}

//! `lb drain`

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::{
    Exit, admin,
    client::{Connection, block_on},
    exit::Coded,
    output::{self, clean},
    target::Target,
    units,
};
use crate::api::{
    client::{Client, ClientError},
    types::{self, FailureKind, SetBackend},
};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_millis(500);

/// Send a backend no new flows; its old ones stay
///
/// Connections that are open go on until they end; new ones go to other backends. The state survives reloads and restarts
/// of the daemon, until `lb ready`.
///
/// With --wait the command ends when nothing is left on the backend. lb begins at once to look for what is, instead of after `window`:
/// flows that show themselves are pinned, and the pins are shown as they fall. As a silent connection cannot be seen, that takes at
/// least one idle time-out of the service (`timeouts`), even if nothing is left. Services with `count_connections` know better, once they have counted
/// for an idle time-out: they show how many connections are open, and the command ends with the last one. A daemon that is away meanwhile is waited for.
/// Ctrl-C ends the command, not the drain.
///
/// When the --deadline passes, what --then says is done, and the exit code is 9.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb drain web/web1
  lb drain web/web1 --wait && ssh web1 reboot
  lb drain web/web1 --wait --deadline 30m --then maint")]
pub struct Drain {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND")]
    target: Target,
    /// End when nothing is left on it
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this (1s to 24h)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = units::parse_limit)]
    deadline: Option<Duration>,
    /// What becomes of the backend when the deadline passes
    #[arg(long, value_enum, requires = "deadline", default_value_t = Then::Drain)]
    then: Then,
    /// Print JSON; with --wait one object a line
    #[arg(long)]
    json: bool,
}

/// States after a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    /// It stays in drain
    Drain,
    /// What is left is moved away
    Maint,
    /// It takes flows again
    Ready,
}

impl Drain {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        if !self.wait {
            return admin::put(connection, &self.target, self.json, "drain");
        }
        let client = connection.client();
        block_on(async {
            let first = client.drain(&self.target.service, &self.target.backend).await?;
            tokio::select! {
                result = self.wait(&client, first) => result,
                _ = tokio::signal::ctrl_c() => {
                    let Target { service, backend } = &self.target;
                    let message =
                        format!("interrupted: {service}/{backend} stays in drain; `lb ready {service}/{backend}` ends that");
                    Err(Coded::error(Exit::Failure, message))
                }
            }
        })
    }

    async fn wait(&self, client: &Client, first: types::Drain) -> anyhow::Result<Exit> {
        let deadline = self.deadline.map(|time| Instant::now() + time);
        let Target { service, backend } = &self.target;
        let mut shown: Option<types::Drain> = None;
        let mut seen = first;
        let mut away = false;
        loop {
            if shown.as_ref().is_none_or(|shown| differ(shown, &seen)) {
                self.show(&seen)?;
                shown = Some(seen.clone());
            }
            if seen.empty {
                return Ok(Exit::Ok);
            }
            if !["drain", "removed"].contains(&seen.admin.as_str()) {
                let message = format!(
                    "somebody has ended the drain: {service}/{backend} is in {}",
                    seen.admin
                );
                return Err(Coded::error(Exit::Failure, message));
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return self.give_up(client).await;
            }
            let pause = deadline.map_or(EVERY, |deadline| EVERY.min(deadline - now));
            tokio::time::sleep(pause).await;
            seen = match client.drained(service, backend).await {
                Ok(now) => {
                    away = false;
                    now
                }
                // Removed from the file, it goes when nothing is left.
                Err(ClientError::Refused(failure))
                    if failure.kind == FailureKind::NotFound && seen.admin == "removed" =>
                {
                    types::Drain { empty: true, pins: 0, slots: 0, older_slots: 0, ..seen }
                }
                Err(error @ (ClientError::Refused(_) | ClientError::Permission { .. })) => {
                    return Err(error.into());
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        output::print_error(&anyhow::anyhow!("{error}; waiting for it"));
                    }
                    seen
                }
            };
        }
    }

    async fn give_up(&self, client: &Client) -> anyhow::Result<Exit> {
        let Target { service, backend } = &self.target;
        let admin = match self.then {
            Then::Drain => "drain",
            Then::Maint => "maint",
            Then::Ready => "ready",
        };
        if self.then != Then::Drain {
            let set = SetBackend { admin: Some(admin.to_owned()), weight: None };
            client.set_backend(service, backend, &set).await?;
        }
        let message = format!("the deadline has passed: {service}/{backend} is in {admin}");
        Err(Coded::error(Exit::Deadline, message))
    }

    fn show(&self, seen: &types::Drain) -> anyhow::Result<()> {
        match self.json {
            true => output::print_json_line(seen),
            false => Ok(output::print(&render(&self.target, seen))?),
        }
    }
}

/// Time alone is no news.
fn differ(before: &types::Drain, now: &types::Drain) -> bool {
    let timeless = |seen: &types::Drain| types::Drain { older_seconds: 0, ..seen.clone() };
    timeless(before) != timeless(now)
}

fn render(target: &Target, seen: &types::Drain) -> String {
    let name = clean(&format!("{}/{}", target.service, target.backend));
    if seen.empty {
        return format!("{name}: nothing is left on it\n");
    }
    let mut parts = vec![match seen.pins {
        1 => "1 pin".to_owned(),
        pins => format!("{pins} pins"),
    }];
    if let Some(connections) = seen.connections {
        parts.push(format!("{} connections open", connections.active));
    }
    if seen.older_slots > 0 {
        parts.push(format!(
            "silent flows may be in {} slots for {} more",
            seen.older_slots,
            units::age(seen.older_seconds)
        ));
    }
    if seen.slots > 0 {
        parts.push(format!("it owns {} slots, as nobody else can take them", seen.slots));
    }
    format!("{name}: {}\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Connections;

    #[test]
    fn what_is_left_is_said() {
        let target: Target = "web/web1".parse().unwrap();
        let mut seen = types::Drain {
            admin: "drain".into(),
            pins: 12,
            older_slots: 340,
            older_seconds: 905,
            connections: Some(Connections { active: 9, inactive: 1 }),
            ..types::Drain::default()
        };
        assert_eq!(
            render(&target, &seen),
            "web/web1: 12 pins, 9 connections open, silent flows may be in 340 slots for 15m05s more\n"
        );
        let later = types::Drain { older_seconds: 4, ..seen.clone() };
        assert!(!differ(&seen, &later) && differ(&seen, &types::Drain { pins: 3, ..later }));
        seen.empty = true;
        assert_eq!(render(&target, &seen), "web/web1: nothing is left on it\n");
    }
}

//! `lb detach`

use std::{io, path::Path};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use super::{
    Exit,
    client::{Connection, block_on, report},
    exit::Coded,
    paths::{PinDir, RunDir},
};
use crate::{
    api::{
        client::{Client, ClientError},
        types::Done,
    },
    control::journal,
    dataplane::{self, Lock},
    net::Net,
};

/// Where the daemon writes down what it has done to the host.
const STATE: &str = "state.json";

/// End forwarding and remove everything lb has put into the kernel
///
/// Removes program, links, maps, pins of flows and the addresses that lb has put on NICs, and ends the daemon if it
/// runs. Without a daemon it does so itself. Stopping the daemon alone never ends forwarding.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  systemctl stop lb && lb detach        packets are forwarded until the second command")]
pub struct Detach {
    #[command(flatten)]
    pins: PinDir,
    #[command(flatten)]
    run: RunDir,
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Detach {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = Client::new(connection.path(&self.run.run_dir));
        let done = block_on(async {
            match client.detach().await {
                Ok(done) => Ok(done),
                Err(ClientError::NotRunning { .. }) => {
                    detach(&self.pins.pin_dir, &self.run.run_dir).await
                }
                Err(error) => Err(error.into()),
            }
        })?;
        report(&done, self.json)
    }
}

/// What the daemon would do, without it.
async fn detach(pin_dir: &Path, run_dir: &Path) -> anyhow::Result<Done> {
    // A daemon that starts or stops right now holds the lock and has no socket. Without a run directory there is none.
    let _lock = match run_dir.exists() {
        true => Some(Lock::acquire(run_dir)?),
        false => None,
    };
    let state = run_dir.join(STATE);
    let mut changes = remove_addresses(&recorded_addresses(&state)?).await?;
    if pin_dir.exists() {
        dataplane::detach_all(pin_dir)
            .with_context(|| format!("cannot remove the pins in {}", pin_dir.display()))?;
        changes.push("program, links and maps removed".to_owned());
    }
    match std::fs::remove_file(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", state.display()))?;
        }
        _ => {}
    }
    journal::remove(run_dir)
        .with_context(|| format!("cannot remove the journal in {}", run_dir.display()))?;
    Ok(Done { changes })
}

/// The part of the daemon's state that is needed here; other versions' states have it, too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Recorded {
    /// NIC and address.
    addresses: Vec<(String, std::net::IpAddr)>,
}

fn recorded_addresses(state: &Path) -> anyhow::Result<Vec<(String, std::net::IpAddr)>> {
    let text = match std::fs::read_to_string(state) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", state.display()));
        }
    };
    match serde_json::from_str::<Recorded>(&text) {
        Ok(recorded) => Ok(recorded.addresses),
        Err(error) => Err(Coded::error(
            Exit::Failure,
            format!(
                "{} is damaged ({error}): take the VIPs that lb has put on NICs off by hand (`ip address`), remove the \
                 file, and run `lb detach` again",
                state.display()
            ),
        )),
    }
}

async fn remove_addresses(addresses: &[(String, std::net::IpAddr)]) -> anyhow::Result<Vec<String>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let (net, _snapshots) = Net::start().await?;
    let mut changes = Vec::new();
    for (interface, address) in addresses {
        net.remove_address_now(interface, *address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot take {address} off {interface}: {error}"))?;
        changes.push(format!("{address} taken off {interface}"));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_daemons_state() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join(STATE);
        assert!(recorded_addresses(&state).unwrap().is_empty());
        let text = r#"{"revision":3,"addresses":[["eth0","192.0.2.1"],["eth1","fd00::1"]]}"#;
        std::fs::write(&state, text).unwrap();
        let expected = [("eth0", "192.0.2.1"), ("eth1", "fd00::1")]
            .map(|(nic, address)| (nic.to_owned(), address.parse().unwrap()));
        assert_eq!(recorded_addresses(&state).unwrap(), expected);
        std::fs::write(&state, "{").unwrap();
        let error = recorded_addresses(&state).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn nothing_there_is_no_error_and_a_running_daemon_is() {
        let dir = tempfile::tempdir().unwrap();
        let (pins, run) = (dir.path().join("pins"), dir.path().join("run"));
        let done = block_on(detach(&pins, &run)).unwrap();
        assert!(done.changes.is_empty(), "{done:?}");
        let lock = Lock::acquire(&run).unwrap();
        let error = block_on(detach(&pins, &run)).unwrap_err();
        assert_eq!(super::super::exit::classify(&error), Exit::AlreadyRunning, "{error}");
        drop(lock);
        block_on(detach(&pins, &run)).unwrap();
    }
}

//! What outlives the daemon beside the maps: names, overrides, health, and the configuration in force. Kept in the run
//! directory (gone at a reboot, as the maps are), always whole: written aside, synced, renamed.

use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

pub use super::discovery::Kept;
use super::{change::Trial, history::History, private_file};
pub use crate::plan::members::Admin;
use crate::{
    api::types::{Counters, Event, Setting},
    health::{Health, agent::AgentHealth, passive},
};

/// The file in the run directory.
pub const FILE: &str = "state.json";

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Number of the configuration in force.
    pub revision: u64,
    /// Its text: what an apply was about to make true when it was interrupted.
    pub config_text: String,
    /// What comes back if the configuration in force is not confirmed.
    pub trial: Option<Trial>,
    /// What was set beside the file.
    pub settings: Vec<Setting>,
    /// VIP addresses that lb has put on NICs.
    pub addresses: Vec<(String, IpAddr)>,
    /// Fingerprint of the seed that the loaded program hashes with.
    pub seed_fingerprint: String,
    /// What DNS and files said of backends when they were last good.
    pub discovered: Kept,
    /// By `address:port/protocol`.
    pub services: BTreeMap<String, ServiceState>,
    /// The last events.
    pub events: Vec<Event>,
    /// How the last daemon has left the tables; `None` while one runs, and after one was killed.
    pub left: Option<Left>,
}

/// How a daemon that was told to stop has left the tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Slots that remember flows, or watch for them.
    pub unsettled: u32,
    /// Flows that are remembered.
    pub pins: u64,
    /// What each service had counted, by `address:port/protocol`.
    pub totals: BTreeMap<String, Counters>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceState {
    /// Its name at the last apply.
    pub name: String,
    /// Counters of backends that are gone.
    pub retired: Counters,
    /// Ids whose counters are in `retired` already.
    pub retired_ids: Vec<u32>,
    /// What has happened to it.
    pub history: History,
    /// How many tiers have lost the quorum: which side of the hysteresis it is on.
    pub short: u8,
    /// By `address:port`.
    pub backends: BTreeMap<String, BackendState>,
}

/// How far a drain with an end (`lb drain --wait`) has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// There is none: slots take their time.
    #[default]
    No,
    /// What is left is looked for at once.
    AtOnce,
    /// Nothing is left.
    Empty,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendState {
    /// Its name.
    pub name: String,
    /// Set by hand.
    pub admin: Admin,
    /// How far a drain has come.
    pub leaving: Leaving,
    /// Weight set by hand.
    pub weight: Option<u16>,
    /// Last known health.
    pub health: Option<Health>,
    /// What its agent has said.
    pub agent: AgentHealth,
    /// When it came back, while it starts slowly; milliseconds of CLOCK_MONOTONIC.
    pub slow_start: Option<u64>,
    /// Ejections.
    pub passive: passive::Kept,
}

impl State {
    /// Reads the state of `run_dir`; `None` if there is none. A damaged file is set aside with a warning: everything in
    /// it but overrides is found in the maps and the YAML again.
    pub fn load(run_dir: &Path) -> io::Result<Option<Self>> {
        let path = run_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_str(&text) {
            Ok(state) => Ok(Some(state)),
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                tracing::warn!(path = %path.display(), %error, aside = %aside.display(), "the state file is damaged; administrative overrides are lost, everything else is adopted from the maps");
                fs::rename(&path, &aside)?;
                Ok(None)
            }
        }
    }

    /// Writes the state.
    pub fn save(&self, run_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        private_file::replace(&run_dir.join(FILE), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let mut state = State { revision: 7, ..State::default() };
        let backend = BackendState { admin: Admin::Drain, weight: Some(3), ..Default::default() };
        let mut service = ServiceState { name: "web".into(), ..Default::default() };
        service.backends.insert("10.0.0.1:80".into(), backend);
        state.services.insert("192.0.2.1:80/tcp".into(), service);
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        fs::write(dir.path().join(FILE), "{\"revision\":").unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        assert!(dir.path().join("state.json.damaged").exists());
    }
}

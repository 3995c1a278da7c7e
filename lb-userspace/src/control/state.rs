//! What outlives the daemon beside the maps: names, overrides, health, and the configuration in force. Kept in the run
//! directory (gone at a reboot, as the maps are), always whole: written aside, synced, renamed. What has changed since is in
//! the [journal](super::journal) beside it.

use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

use super::{change::Trial, history::History, journal, private_file};
pub use super::{cluster::Override, discovery::Kept};
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
    /// What was set by hand on the nodes of the cluster.
    pub overrides: Vec<Override>,
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
    /// Number of the journal that goes on from here.
    pub journal: u64,
    /// What of the files could not be read; for the event log.
    #[serde(skip)]
    pub damage: Option<String>,
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
pub struct ServiceState<B = BTreeMap<String, BackendState>> {
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
    pub backends: B,
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
    #[serde(skip_serializing_if = "is_default")]
    pub admin: Admin,
    /// How far a drain has come.
    #[serde(skip_serializing_if = "is_default")]
    pub leaving: Leaving,
    /// Weight set by hand.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    /// Last known health.
    #[serde(skip_serializing_if = "is_default")]
    pub health: Option<Health>,
    /// What its agent has said.
    #[serde(skip_serializing_if = "is_default")]
    pub agent: AgentHealth,
    /// When it came back, while it starts slowly; milliseconds of CLOCK_MONOTONIC.
    #[serde(skip_serializing_if = "is_default")]
    pub slow_start: Option<u64>,
    /// Ejections.
    #[serde(skip_serializing_if = "is_default")]
    pub passive: passive::Kept,
}

/// What need not be written: most backends have nothing but a name.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl State {
    /// Reads the state of `run_dir`; `None` if there is none. A damaged file is set aside with a warning: everything in
    /// it but overrides is found in the maps and the YAML again.
    pub fn load(run_dir: &Path) -> io::Result<Option<Self>> {
        let path = run_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Its numbers begin anew.
                journal::remove(run_dir)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_str(&text) {
            Ok(mut state) => {
                journal::replay(run_dir, &mut state)?;
                Ok(Some(state))
            }
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                tracing::warn!(path = %path.display(), %error, aside = %aside.display(), "the state file is damaged; administrative overrides are lost, everything else is adopted from the maps");
                fs::rename(&path, &aside)?;
                journal::remove(run_dir)?;
                Ok(None)
            }
        }
    }

    /// Writes the state. Returns its length, bytes.
    pub fn save(&self, run_dir: &Path) -> io::Result<u64> {
        self.save_with(run_dir, &self.services)
    }

    /// The same with other services.
    pub fn save_with(&self, run_dir: &Path, services: &impl Serialize) -> io::Result<u64> {
        private_file::replace_with(&run_dir.join(FILE), |file| {
            serde_json::to_writer(file, &Whole::of(self, services)).map_err(io::Error::from)
        })
    }
}

/// A [`State`] whose services are elsewhere.
#[derive(Serialize)]
struct Whole<'a, S> {
    revision: u64,
    config_text: &'a str,
    trial: &'a Option<Trial>,
    settings: &'a [Setting],
    addresses: &'a [(String, IpAddr)],
    discovered: &'a Kept,
    overrides: &'a [Override],
    seed_fingerprint: &'a str,
    services: &'a S,
    events: &'a [Event],
    left: &'a Option<Left>,
    journal: u64,
}

impl<'a, S> Whole<'a, S> {
    fn of(state: &'a State, services: &'a S) -> Self {
        // Names every field: a new one cannot be forgotten.
        let State {
            revision,
            config_text,
            trial,
            settings,
            addresses,
            discovered,
            overrides,
            seed_fingerprint,
            services: _,
            events,
            left,
            journal,
            damage: _,
        } = state;
        Self {
            revision: *revision,
            config_text,
            trial,
            settings,
            addresses,
            discovered,
            overrides,
            seed_fingerprint,
            services,
            events,
            left,
            journal: *journal,
        }
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
        let mut service: ServiceState = ServiceState { name: "web".into(), ..Default::default() };
        service.backends.insert("10.0.0.1:80".into(), backend);
        state.services.insert("192.0.2.1:80/tcp".into(), service);
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        fs::write(dir.path().join(FILE), "{\"revision\":").unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        assert!(dir.path().join("state.json.damaged").exists());
    }
}

//! Configurations applied, tried, confirmed and gone back to.

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Where the text is from, for messages.
    pub path: String,
    /// A configuration.
    pub text: String,
    /// On trial for so many seconds, 1..=86400; `None` = for good.
    pub confirm_seconds: Option<u64>,
}

/// Body of `POST /v1/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The revision whose text is to be in force; `None` = the one before, or the end of a trial.
    pub revision: Option<u64>,
    /// As in [`Apply`].
    pub confirm_seconds: Option<u64>,
}

/// Answer of `POST /v1/apply` and `POST /v1/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Number of the configuration in force now.
    pub revision: u64,
    /// One line per change; empty = nothing to do.
    pub changes: Vec<String>,
    /// Until `lb confirm` has to be said; `None` = for good.
    pub trial: Option<Trial>,
}

/// A configuration that is in force until it is confirmed, or given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number.
    pub revision: u64,
    /// What comes back without `lb confirm`.
    pub back_to: u64,
    /// Seconds left.
    pub seconds_left: u64,
}

/// `GET /v1/backends/{service}/{backend}`, and the answer of `POST /v1/backends/{service}/{backend}/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Its name.
    pub name: String,
    /// As in [`BackendStatus`](super::BackendStatus).
    pub admin: String,
    /// Nothing is left on it: no slot names it, and no pin. Only ever said after `.../drain`.
    pub empty: bool,
    /// Slots that it still owns, as there is nobody to give them to.
    pub slots: u32,
    /// Slots whose older flows are its: some may be silent, and not be pinned yet.
    pub older_slots: u32,
    /// For so many seconds at most.
    pub older_seconds: u64,
    /// Pins that name it, at the last sweep.
    pub pins: u64,
    /// Connections that are open, of services with `count_connections`; `None` = not known.
    pub connections: Option<super::Connections>,
}

/// Body of `POST /v1/set`, and an element of [`Status`](super::Status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// `SERVICE`, `SERVICE/BACKEND`, or `global`.
    pub target: String,
    /// A key of the YAML, `check.path` for one inside another.
    pub key: String,
    /// Its value, as in the YAML.
    pub value: String,
}

/// Body of `POST /v1/unset`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unset {
    /// As in [`Setting`].
    pub target: String,
    /// As in [`Setting`]; `None` = all of the target.
    pub key: Option<String>,
}

/// Body of `POST /v1/save`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Save {
    /// Only tell what would be written.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer of `POST /v1/save`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The text before.
    pub before: String,
    /// The text with everything that was set.
    pub text: String,
    /// What was set and is in the text, one line each.
    pub written: Vec<String>,
    /// What has no word in the YAML and stays beside it, one line each.
    pub left: Vec<String>,
    /// What came of writing it; `None` in a dry run, and if there was nothing to write.
    pub applied: Option<Applied>,
}

/// `GET /v1/revisions`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// The oldest first.
    pub revisions: Vec<Revision>,
}

/// One text that was in force, or was replaced in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number; numbers only grow, also across reboots.
    pub number: u64,
    /// When, milliseconds of Unix time.
    pub unix_milliseconds: u64,
    /// Who wanted it, or why it came.
    pub cause: String,
    /// SHA-256 of the text, hexadecimal.
    pub hash: String,
    /// Length of the text, bytes.
    pub bytes: u64,
    /// What it changed, in words.
    pub summary: Vec<String>,
    /// `in_force`, `trial`, `past` (was in force), or `replaced` (found in the file by an apply, and never in force).
    pub state: String,
}

/// `GET /v1/revisions/{number}`; of the one in force: `GET /v1/revisions/running`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionText {
    /// What is known of it.
    pub revision: Revision,
    /// The YAML.
    pub text: String,
}

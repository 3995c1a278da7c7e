//! Other load balancers' files -> ours. Pure: a text in, YAML and notes out. What has no equivalent is named in a note with its
//! line, so that nothing is lost in silence.

pub mod haproxy;
pub mod keepalived;
mod words;
mod yaml;

use std::net::IpAddr;

/// What cannot be read off the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// The VIP of what listens on all addresses.
    pub vip: Option<IpAddr>,
    /// How packets reach the backends, where the file has no word for it.
    pub forward: Forward,
}

/// `forward:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// Through lb both ways, as a proxy.
    #[default]
    Nat,
    /// Layer 2.
    Dsr,
    /// IP in IP.
    Tunnel,
}

/// A translated file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Our configuration.
    pub yaml: String,
    /// What has been left out or needs a decision, each with its line.
    pub notes: Vec<String>,
    /// How many services there are.
    pub services: usize,
}

/// A service on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    name: String,
    address: Option<IpAddr>,
    port: u16,
    /// The last one of a range.
    last_port: Option<u16>,
    /// `mss_clamp:`
    mss: Option<u16>,
    protocol: Option<&'static str>,
    forward: Forward,
    /// What stands behind `balance:`; empty = what it is without the key.
    balance: &'static str,
    hash_balance_factor: Option<u16>,
    /// What stands behind `persistence:`.
    persistence: Option<String>,
    /// Whole lines of keys that say who may in.
    admission: Vec<String>,
    /// What stands behind `observe:`.
    observe: Option<String>,
    allow_fail_open: bool,
    quorum: Option<u32>,
    hysteresis: Option<u32>,
    check: Option<Check>,
    /// Keys of `agent_check`.
    agent: Vec<String>,
    defaults: Settings,
    backends: Vec<Backend>,
}

/// A health check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Check {
    http: bool,
    tls: bool,
    sni: Option<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    status: Option<String>,
    port: Option<u16>,
    /// `type:`, if it is none of those by `http` and `tls`.
    kind: Option<&'static str>,
    /// Further keys, as our files have them.
    more: Vec<String>,
}

/// A text as a value in our files.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Settings of a backend or of all; periods in our notation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    weight: Option<u16>,
    inter: Option<String>,
    fastinter: Option<String>,
    downinter: Option<String>,
    rise: Option<u16>,
    fall: Option<u16>,
    timeout: Option<String>,
    slowstart: Option<String>,
}

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Backend {
    name: String,
    address: String,
    settings: Settings,
    is_backup: bool,
    is_sorry: bool,
    /// Whose health it has; in our notation.
    track: Option<String>,
}

/// A name as our files want it: other characters become `-`.
fn name(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
    let name: String = text.chars().take(64).map(clean).collect();
    let name = name.trim_start_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// Milliseconds in our notation.
fn period(milliseconds: u64) -> String {
    for (length, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if milliseconds > 0 && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid() {
        for (text, expected) in [
            ("web", "web"),
            ("be_app:443", "be_app-443"),
            ("-x", "x"),
            ("", "unnamed"),
            ("é", "unnamed"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
    }

    #[test]
    fn periods_have_the_largest_whole_unit() {
        assert_eq!(
            [500, 2000, 90_000, 120_000, 3_600_000].map(period),
            ["500ms", "2s", "90s", "2m", "1h"]
        );
    }
}

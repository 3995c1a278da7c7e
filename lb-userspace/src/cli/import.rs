//! `lb import`

use std::{net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{Exit, output};
use crate::import::{self, Choices};

/// Translate a configuration of HAProxy or keepalived
///
/// Prints our YAML on standard output, and on standard error what has been left out or needs a decision, each with its line.
/// From HAProxy's file it takes frontends, backends and listens with their servers and checks; from keepalived's the
/// virtual_server blocks. Nothing is changed. Exits with 0, or with 1 if there was nothing to translate.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb import /etc/haproxy/haproxy.cfg --vip 192.0.2.10 > lb.yaml && lb check lb.yaml")]
pub struct Import {
    /// The file
    file: PathBuf,
    /// Whose file it is; by its name and content if not given
    #[arg(long, value_enum)]
    from: Option<From>,
    /// The VIP of what listens on all addresses
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<IpAddr>,
    /// How packets reach the backends, where the file does not say it
    #[arg(long, value_enum, default_value_t = Forward::Nat)]
    forward: Forward,
    /// Print JSON: {"yaml", "notes": [..]}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    Haproxy,
    Keepalived,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Forward {
    /// The answer comes back through lb
    Nat,
    /// By layer 2; backends answer clients directly
    Dsr,
    /// IP in IP; backends answer clients directly
    Tunnel,
}

impl Import {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let forward = match self.forward {
            Forward::Nat => import::Forward::Nat,
            Forward::Dsr => import::Forward::Dsr,
            Forward::Tunnel => import::Forward::Tunnel,
        };
        let choices = Choices { vip: self.vip, forward };
        let is_keepalived = match self.from {
            Some(from) => matches!(from, From::Keepalived),
            None => text.contains("virtual_server") && text.contains("real_server"),
        };
        let imported = match is_keepalived {
            true => import::keepalived::import(&text, &choices),
            false => import::haproxy::import(&text, &choices),
        };
        if self.json {
            let json = serde_json::json!({"yaml": imported.yaml, "notes": imported.notes});
            output::print_json(&json)?;
        } else {
            for note in &imported.notes {
                eprintln!(
                    "{}: {}",
                    output::clean(&self.file.display().to_string()),
                    output::clean(note)
                );
            }
            output::print(&imported.yaml)?;
        }
        Ok(if imported.services == 0 { Exit::Failure } else { Exit::Ok })
    }
}

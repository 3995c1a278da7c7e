//! `lb apply`

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output,
};
use crate::api::types::{self, Applied};

/// Put a configuration in force, and keep it: or only if it is confirmed
///
/// The daemon checks the text and makes it true; then its own configuration file is replaced by it (whole, with owner and
/// mode), so that what is in force is what a restart reads. If any of that is not possible, nothing has changed. An edit of
/// the file that was never in force is kept in `lb history`.
///
/// With --confirm it is in force on trial: the file stays as it is until `lb confirm`. Without that, what was in force
/// before is so again after the time: by itself, also if the daemon is killed or restarted in between, and at once after a reboot.
/// `lb rollback` ends a trial earlier; so does whoever changes the file, or has it read again (`lb reload`, SIGHUP). During a trial
/// there is no other `lb apply`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb plan new.yaml && lb apply new.yaml
  lb apply new.yaml --confirm 60s && curl --fail http://192.0.2.10/ && lb confirm")]
pub struct Apply {
    /// The file
    file: PathBuf,
    /// Go back by itself unless `lb confirm` is said within this time (1s to 24h)
    #[arg(long, value_name = "TIME", value_parser = super::units::parse_limit)]
    confirm: Option<Duration>,
    /// Print JSON: {"revision": .., "changes": [..], "trial": ..}
    #[arg(long)]
    json: bool,
}

impl Apply {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let apply = types::Apply {
            path: self.file.display().to_string(),
            text,
            confirm_seconds: self.confirm.map(|time| time.as_secs()),
        };
        let client = connection.client();
        let applied = block_on(async { Ok(client.apply(&apply).await?) })?;
        report(&applied, self.json)
    }
}

/// Prints what is in force now.
pub(super) fn report(applied: &Applied, json: bool) -> anyhow::Result<Exit> {
    match json {
        true => output::print_json(applied)?,
        false => output::print(&render(applied))?,
    }
    Ok(Exit::Ok)
}

fn render(applied: &Applied) -> String {
    let mut text = output::lines(applied.changes.iter());
    if applied.changes.is_empty() {
        text.push_str("nothing to do\n");
    }
    match &applied.trial {
        None => text.push_str(&format!("revision {} is in force\n", applied.revision)),
        Some(trial) => text.push_str(&format!(
            "revision {} is in force for {} s: `lb confirm` keeps it, without that revision {} comes back\n",
            trial.revision, trial.seconds_left, trial.back_to
        )),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Trial;

    #[test]
    fn a_trial_says_how_it_ends() {
        let mut applied =
            Applied { revision: 4, changes: vec!["NIC eth1: added".into()], trial: None };
        assert_eq!(render(&applied), "NIC eth1: added\nrevision 4 is in force\n");
        applied.trial = Some(Trial { revision: 4, back_to: 3, seconds_left: 60 });
        let text = render(&applied);
        assert!(text.contains("for 60 s: `lb confirm` keeps it") && text.contains("revision 3"));
    }
}

//! `lb history`

use std::io::IsTerminal as _;

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, clean},
    units,
};
use crate::api::types::{Revision, Revisions};

/// Characters of a hash that are shown.
const SHOWN: usize = 12;

/// Show which configurations were in force, when, by whom, and what each changed
///
/// The newest first. The last 100 (up to 32 MiB) are kept with their texts in the state directory, across restarts and reboots, readable by lb's
/// user alone. An edit of the file that never was in force, and was replaced by `lb apply` or `lb rollback`, is among them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb history -n 5
  lb history --text 12 > old.yaml")]
pub struct History {
    /// Only the last N
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Print the text of this revision instead
    #[arg(long, value_name = "REVISION", conflicts_with = "last")]
    text: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl History {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        if let Some(number) = self.text {
            let revision = block_on(async { Ok(client.revision(Some(number)).await?) })?;
            match self.json {
                true => output::print_json(&revision)?,
                // Into a file it goes as it is.
                false if !std::io::stdout().is_terminal() => output::print(&revision.text)?,
                false => output::print(&output::clean_lines(&revision.text))?,
            }
            return Ok(Exit::Ok);
        }
        let mut all = block_on(async { Ok(client.revisions().await?) })?;
        let skip = self.last.map_or(0, |last| all.revisions.len().saturating_sub(last));
        all.revisions.drain(..skip);
        match self.json {
            true => output::print_json(&all)?,
            false => output::print(&render(&all))?,
        }
        Ok(Exit::Ok)
    }
}

fn render(all: &Revisions) -> String {
    let mut text: String = all.revisions.iter().rev().map(render_one).collect();
    if text.is_empty() {
        text.push_str("no configuration has been written down yet\n");
    }
    text
}

fn render_one(revision: &Revision) -> String {
    let mut text = format!(
        "{:>5}  {}  {:<8}  {}  {}\n",
        revision.number,
        units::local_time(revision.unix_milliseconds),
        clean(&revision.state.replace('_', " ")),
        revision
            .hash
            .chars()
            .take(SHOWN)
            .map(|digit| clean(&digit.to_string()))
            .collect::<String>(),
        clean(&revision.cause),
    );
    for line in &revision.summary {
        text.push_str(&format!("         {}\n", clean(line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first() {
        let revision = |number, state: &str| Revision {
            number,
            state: state.into(),
            cause: "lb apply by root\x1b[31m".into(),
            hash: "0123456789abcdef".into(),
            summary: vec!["service web: settings: window".into()],
            ..Revision::default()
        };
        let all = Revisions { revisions: vec![revision(1, "past"), revision(2, "in_force")] };
        let text = render(&all);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("    2  ") && lines[0].contains("  in force  0123456789ab  "));
        assert!(lines[0].ends_with("lb apply by root\\u{1b}[31m"), "{text}");
        assert_eq!(lines[1], "         service web: settings: window");
        assert!(lines[2].starts_with("    1  "));
        assert_eq!(render(&Revisions::default()), "no configuration has been written down yet\n");
    }
}

//! `lb diff`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use similar::TextDiff;

use super::{
    Exit,
    client::{Connection, block_on},
    output, plan,
};
use crate::api::{
    client::{Client, ClientError},
    types::{Draft, Plan, RevisionText, ServiceStatus, Status},
};

/// Lines around a change that are shown.
const AROUND: usize = 3;

/// Compare the configuration in force with a file, or with an earlier revision
///
/// The texts as a unified diff (`-` in force, `+` the other), and below it what putting the other in force would change, as `lb plan` says
/// it. Without an argument: with the daemon's configuration file, which differs while a trial runs or the file is invalid.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb diff
  lb diff new.yaml
  lb diff 12                          what `lb rollback 12` would change")]
pub struct Diff {
    /// A file, or the number of a revision of `lb history` (of a file with such a name: `./12`)
    #[arg(value_name = "FILE|REVISION")]
    with: Option<String>,
    /// Print JSON: {"diff": .., "plan": .., "problem": ..}
    #[arg(long)]
    json: bool,
}

/// Both comparisons.
#[derive(Serialize)]
struct Compared {
    /// Unified diff; empty = the texts are the same.
    diff: String,
    /// What would change; `None` = it would be refused.
    plan: Option<Plan>,
    /// Why it would be refused.
    problem: Option<String>,
    /// What is set beside the file and stays so, one line each.
    beside: Vec<String>,
}

impl Diff {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let compared = block_on(async {
            let running = client.revision(None).await?;
            let other = self.other(&client).await?;
            let beside = beside(&client.status().await?);
            compare(&client, &running, other, beside).await
        })?;
        match self.json {
            true => output::print_json(&compared)?,
            false => output::print(&render(&compared))?,
        }
        Ok(Exit::Ok)
    }

    async fn other(&self, client: &Client) -> anyhow::Result<Draft> {
        let path = match &self.with {
            Some(with) => match with.parse() {
                Ok(number) => {
                    let text = client.revision(Some(number)).await?.text;
                    return Ok(Draft { path: format!("revision {number}"), text });
                }
                Err(_) => PathBuf::from(with),
            },
            None => client.status().await?.config.into(),
        };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Draft { path: path.display().to_string(), text })
    }
}

async fn compare(
    client: &Client,
    running: &RevisionText,
    other: Draft,
    beside: Vec<String>,
) -> anyhow::Result<Compared> {
    let name = format!("revision {} (in force)", running.revision.number);
    let diff = unified(&name, &running.text, &other.path, &other.text);
    let (plan, problem) = match client.plan(&other).await {
        Ok(plan) => (Some(plan), None),
        Err(ClientError::Refused(failure)) => (None, Some(failure.error)),
        Err(error) => return Err(error.into()),
    };
    Ok(Compared { diff, plan, problem, beside })
}

/// What `lb set`, `lb weight`, `lb drain` and `lb maint` have set.
fn beside(status: &Status) -> Vec<String> {
    let set = status.settings.iter().map(|one| format!("{} {}={}", one.target, one.key, one.value));
    let by_hand = |service: &ServiceStatus| {
        let mut lines = Vec::new();
        for backend in service.backends.iter().filter(|backend| backend.admin != "removed") {
            let name = format!("{}/{}", service.name, backend.name);
            if backend.weight != backend.configured_weight {
                lines.push(format!("{name} weight={}", backend.weight));
            }
            if backend.admin != "ready" {
                lines.push(format!("{name} is in {}", backend.admin));
            }
        }
        lines
    };
    set.chain(status.services.iter().flat_map(by_hand)).collect()
}

pub(super) fn unified(old_name: &str, old: &str, new_name: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(AROUND).header(old_name, new_name).to_string()
}

fn render(compared: &Compared) -> String {
    let mut text = output::clean_lines(&compared.diff);
    if text.is_empty() {
        text.push_str("the texts are the same\n");
    }
    text.push('\n');
    match (&compared.plan, &compared.problem) {
        (Some(plan), _) => text.push_str(&plan::render(plan)),
        (None, problem) => {
            text.push_str("it would be refused:\n");
            text.push_str(&output::lines(problem));
        }
    }
    if !compared.beside.is_empty() {
        text.push_str("\nSet beside the file, whatever it says:\n");
        for line in &compared.beside {
            text.push_str(&format!("  {}\n", output::clean(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_meaning_are_compared() {
        let diff = unified("revision 3 (in force)", "a: 1\nb: 2\n", "new.yaml", "a: 1\nb: \x1b3\n");
        let mut compared =
            Compared { diff, plan: Some(Plan::default()), problem: None, beside: vec![] };
        assert_eq!(
            render(&compared),
            "--- revision 3 (in force)\n+++ new.yaml\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: \\u{1b}3\n\nnothing would change\n"
        );
        compared = Compared {
            diff: String::new(),
            plan: None,
            problem: Some("x:1:1: no".into()),
            beside: vec!["web/web1 is in drain".into()],
        };
        let expected = "the texts are the same\n\nit would be refused:\nx:1:1: no\n\n\
                        Set beside the file, whatever it says:\n  web/web1 is in drain\n";
        assert_eq!(render(&compared), expected);
    }
}

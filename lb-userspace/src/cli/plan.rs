//! `lb plan`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, clean},
};
use crate::api::types;

/// Tell what a configuration file would change, without changing anything
///
/// Compares the file with what the running daemon has loaded: services and backends that come and go, settings, and the
/// share of new flows that would go to another backend, of each service and by each change: all hashes of flows are counted, so the
/// share is exact, and what flows do differs from it by chance only. Open TCP flows stay where they are in any case.
/// What would be refused is refused here, with the same words. Backends that are new count as UP. Exits with 0 if the
/// file can be applied, 3 if not.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb plan new.yaml
  lb plan new.yaml --json | jq '.services[] | {name, moved_share}'")]
pub struct Plan {
    /// The file
    #[arg(default_value = super::run::CONFIG)]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let client = connection.client();
        let path = self.file.display().to_string();
        let plan = block_on(async { Ok(client.plan(&types::Draft { path, text }).await?) })?;
        if self.json {
            output::print_json(&plan)?;
        } else {
            output::print(&render(&plan))?;
        }
        Ok(Exit::Ok)
    }
}

pub(super) fn render(plan: &types::Plan) -> String {
    let mut text: String = plan.node.iter().map(|line| format!("{}\n", clean(line))).collect();
    for service in plan.services.iter().filter(|service| service.change != "none") {
        text.push_str(&format!("service {}  {}\n", clean(&service.name), clean(&service.listen)));
        for line in &service.lines {
            text.push_str(&format!("  {}\n", clean(line)));
        }
    }
    if text.is_empty() {
        text.push_str("nothing would change\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::PlanService;

    #[test]
    fn only_what_changes_is_shown() {
        let changed = PlanService {
            name: "web".into(),
            listen: "192.0.2.10:80/tcp".into(),
            change: "changed".into(),
            lines: vec!["backend web3 (10.0.0.3:80) added".into()],
            ..PlanService::default()
        };
        let none = PlanService { change: "none".into(), ..changed.clone() };
        let plan =
            types::Plan { node: vec!["NIC eth1: attached".into()], services: vec![changed, none] };
        let expected = "\
NIC eth1: attached
service web  192.0.2.10:80/tcp
  backend web3 (10.0.0.3:80) added
";
        assert_eq!(render(&plan), expected);
        assert_eq!(render(&types::Plan::default()), "nothing would change\n");
    }
}

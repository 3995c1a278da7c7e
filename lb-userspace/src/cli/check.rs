//! `lb check`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Exit, output};
use crate::config::{self, Diagnostic};

/// Tell everything that is wrong with a configuration file
///
/// Reads the file as `lb run` would and prints each error and warning with its line, its column and what would be
/// right. Needs no daemon and no privileges. What depends on the host (does the NIC exist, whose address is the VIP) is
/// judged by `lb run`. Exits with 0 if the file is valid, 3 if not.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb check lb.yaml
  lb check --json lb.yaml | jq .errors")]
pub struct Check {
    /// The file
    #[arg(default_value = super::run::CONFIG)]
    file: PathBuf,
    /// Print JSON: {"valid", "errors": [..], "warnings": [..]}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    errors: &'a [Diagnostic],
    warnings: &'a [Diagnostic],
}

impl Check {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        let result = config::load(&self.file);
        if self.json {
            let report = match &result {
                Ok(parsed) => Report { valid: true, errors: &[], warnings: &parsed.warnings },
                Err(errors) => Report { valid: false, errors: &errors.diagnostics, warnings: &[] },
            };
            output::print_json(&report)?;
            return Ok(if report.valid { Exit::Ok } else { Exit::Configuration });
        }
        let parsed = result?;
        let warnings: Vec<String> =
            parsed.rendered_warnings().map(|warning| format!("warning: {warning}")).collect();
        let services = parsed.config.services.len();
        let backends: usize = parsed.config.services.iter().map(|s| s.backends.len()).sum();
        let plural = |n| if n == 1 { "" } else { "s" };
        output::print(&format!(
            "{}{}: valid, {services} service{}, {backends} backend{}\n",
            output::lines(warnings),
            output::clean(&self.file.display().to_string()),
            plural(services),
            plural(backends),
        ))?;
        Ok(Exit::Ok)
    }
}

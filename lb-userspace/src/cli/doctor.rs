//! `lb doctor`

use std::path::PathBuf;

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, Style, clean},
    paths::PinDir,
    run::CONFIG,
};
use crate::doctor::{
    self, Finding, Remedy, Report, Severity,
    gather::{self, Scope},
};

/// Examine this host, its NICs and the daemon, and tell what to do about what is not as it should be
///
/// Looks at the kernel (really trying what lb needs of BPF), privileges, the NICs' XDP mode, driver, offloads, queues and
/// MTU, the host's routing settings, and, if the daemon runs, at what it and the loaded program say. Changes nothing.
/// Each finding comes with what was found, why it matters, and the command that remedies it. Without --iface, the NICs
/// are those of the daemon, else those of the configuration. What cannot be known from here is said to be unknown.
/// Exits with 0 if there are neither warnings nor errors (notes do not count), 8 if there are.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb doctor                                 this host, as lb runs on it
  lb doctor --config lb.yaml --iface eth0   before the first start
  lb doctor --json | jq '.findings[] | select(.severity == \"error\")'")]
pub struct Doctor {
    /// The configuration to examine for [default: the running daemon's, else /etc/lb/lb.yaml if it is there]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A NIC to examine; may be repeated
    #[arg(short, long = "iface", value_name = "NIC")]
    interfaces: Vec<String>,
    #[command(flatten)]
    pins: PinDir,
    /// Show what is as it should be, too
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON: {"ok", "notes", "warnings", "errors", "findings": [{"group", "check", "severity", "found", "why", "remedy"}]}
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let scope = Scope {
            config: self.config,
            usual_config: CONFIG.into(),
            interfaces: self.interfaces,
            pin_dir: self.pins.pin_dir,
            socket: connection.client().socket().to_owned(),
        };
        let facts = block_on(async { Ok(gather::gather(&scope).await?) })?;
        let report = doctor::examine(&facts);
        if self.json {
            output::print_json(&report)?;
        } else {
            let no_nic = facts.nics.is_empty();
            output::print(&render(&report, self.verbose, no_nic, Style::of_stdout()))?;
        }
        Ok(if report.warnings + report.errors == 0 { Exit::Ok } else { Exit::Findings })
    }
}

fn render(report: &Report, verbose: bool, no_nic: bool, style: Style) -> String {
    let shown: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| verbose || finding.severity != Severity::Ok)
        .collect();
    let mut text = String::new();
    let mut group = None;
    for finding in shown {
        if group != Some(&finding.group) {
            if group.is_some() {
                text.push('\n');
            }
            text.push_str(&format!("{}\n", clean(&finding.group)));
            group = Some(&finding.group);
        }
        text.push_str(&entry(finding, style));
    }
    if group.is_some() {
        text.push('\n');
    }
    if no_nic {
        text.push_str(
            "No NIC was examined: name one with --iface, or a configuration with --config.\n",
        );
    }
    let Report { ok, notes, warnings, errors, .. } = report;
    let more = if verbose { "" } else { " (--verbose shows what is ok)" };
    text.push_str(&format!(
        "{errors} error{}, {warnings} warning{}, {notes} note{}, {ok} ok{more}\n",
        plural(*errors),
        plural(*warnings),
        plural(*notes),
    ));
    text
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn entry(finding: &Finding, style: Style) -> String {
    let name = finding.severity.name();
    // Padded before it is coloured: colours have no width.
    let severity = format!("{}{}", style.state(name), " ".repeat(7 - name.len()));
    let mut text = format!("  {severity}  {}: {}\n", finding.check, clean(&finding.found));
    if !finding.why.is_empty() {
        text.push_str(&format!("           why: {}\n", finding.why));
    }
    match &finding.remedy {
        Some(Remedy::Command(line)) => text.push_str(&format!("           run: {}\n", clean(line))),
        Some(Remedy::Advice(line)) => text.push_str(&format!("           do:  {}\n", clean(line))),
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let ok = Finding {
            group: "kernel".into(),
            check: "jit",
            severity: Severity::Ok,
            found: "compiled".into(),
            why: "",
            remedy: None,
        };
        let bad = Finding {
            group: "eth0".into(),
            check: "lro",
            severity: Severity::Warning,
            found: "LRO is on".into(),
            why: "packets are merged",
            remedy: Some(Remedy::Command("ethtool -K eth0 lro off".into())),
        };
        Report { ok: 1, warnings: 1, findings: vec![ok, bad], ..Report::default() }
    }

    #[test]
    fn only_what_needs_attention_is_shown() {
        let expected = "\
eth0
  warning  lro: LRO is on
           why: packets are merged
           run: ethtool -K eth0 lro off

0 errors, 1 warning, 0 notes, 1 ok (--verbose shows what is ok)
";
        assert_eq!(render(&report(), false, false, Style::PLAIN), expected);
        let verbose = render(&report(), true, true, Style::PLAIN);
        assert!(verbose.starts_with("kernel\n  ok       jit: compiled\n\neth0\n"), "{verbose}");
        assert!(verbose.contains("name one with --iface"), "{verbose}");
    }

    #[test]
    fn colours_follow_the_severity() {
        let text = render(&report(), false, false, Style { colour: true });
        assert!(text.contains("\x1b[33mwarning\x1b[0m  lro"), "{text:?}");
    }
}

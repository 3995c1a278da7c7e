//! The `lb` command: one verb a file. Verbs ask the daemon over its socket; `run` is the daemon.

mod admin;
mod apply;
mod capture;
mod check;
mod client;
mod completions;
mod confirm;
mod decap;
mod detach;
mod diff;
mod doctor;
mod drain;
mod events;
mod exit;
mod fleet;
mod health;
mod history;
mod import;
mod log;
mod lookup;
mod man;
mod node;
mod output;
mod paths;
mod plan;
mod reload;
mod replay;
mod rollback;
mod run;
mod save;
mod schema;
mod set;
mod stats;
mod status;
mod target;
mod top;
mod units;
mod weight;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::exit::Exit;
use self::{client::Connection, output::print_error};

/// Balances TCP and UDP over IPv4 and IPv6 in the kernel, before the network stack.
///
/// `lb run` is the daemon: it attaches an XDP program to the NICs, probes the backends, and applies its YAML file
/// whenever it changes. The other commands ask the running daemon over its socket, or work on files.
#[derive(Debug, Parser)]
#[command(name = "lb", version, after_long_help = exit::HELP, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Check(check::Check),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Confirm(confirm::Confirm),
    Rollback(rollback::Rollback),
    History(history::History),
    Diff(diff::Diff),
    Set(set::Set),
    Unset(set::Unset),
    Save(save::Save),
    Import(import::Import),
    Schema(schema::Schema),
    Status(status::Show),
    Stats(stats::Show),
    Top(top::Top),
    Drain(drain::Drain),
    Ready(admin::Ready),
    Node(node::Node),
    Fleet(fleet::Fleet),
    Maint(admin::Maint),
    Weight(weight::Weight),
    Lookup(lookup::Lookup),
    Replay(replay::Replay),
    Why(why::Why),
    Capture(capture::Capture),
    Events(events::Show),
    Log(log::Log),
    Reload(reload::Reload),
    Detach(detach::Detach),
    Decap(decap::Decap),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Parses the command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    let Cli { connection, verb } = Cli::parse();
    match dispatch(&connection, verb) {
        Ok(exit) => exit.into(),
        // `lb stats | head`: the reader has seen enough.
        Err(error) if exit::is_broken_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            print_error(&error);
            exit::classify(&error).into()
        }
    }
}

fn dispatch(connection: &Connection, verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Run(run) => run.execute(connection),
        Verb::Check(check) => check.execute(),
        Verb::Plan(plan) => plan.execute(connection),
        Verb::Apply(apply) => apply.execute(connection),
        Verb::Confirm(confirm) => confirm.execute(connection),
        Verb::Rollback(rollback) => rollback.execute(connection),
        Verb::History(history) => history.execute(connection),
        Verb::Diff(diff) => diff.execute(connection),
        Verb::Set(set) => set.execute(connection),
        Verb::Unset(unset) => unset.execute(connection),
        Verb::Save(save) => save.execute(connection),
        Verb::Import(import) => import.execute(),
        Verb::Schema(schema) => schema.execute(),
        Verb::Status(show) => show.execute(connection),
        Verb::Stats(show) => show.execute(connection),
        Verb::Top(top) => top.execute(connection),
        Verb::Drain(drain) => drain.execute(connection),
        Verb::Ready(ready) => ready.execute(connection),
        Verb::Node(node) => node.execute(connection),
        Verb::Fleet(fleet) => fleet.execute(connection),
        Verb::Maint(maint) => maint.execute(connection),
        Verb::Weight(weight) => weight.execute(connection),
        Verb::Why(why) => why.execute(connection),
        Verb::Events(show) => show.execute(connection),
        Verb::Log(log) => log.execute(connection),
        Verb::Lookup(lookup) => lookup.execute(connection),
        Verb::Replay(replay) => replay.execute(connection),
        Verb::Capture(capture) => capture.execute(connection),
        Verb::Reload(reload) => reload.execute(connection),
        Verb::Detach(detach) => detach.execute(connection),
        Verb::Decap(decap) => decap.execute(),
        Verb::Health(health) => health.execute(connection),
        Verb::Doctor(doctor) => doctor.execute(connection),
        Verb::Completions(completions) => completions.execute(),
        Verb::Man(man) => man.execute(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_one_line_of_short_help_and_more_of_the_long() {
        for verb in Cli::command().get_subcommands() {
            let short = verb.get_about().unwrap_or_else(|| panic!("{}", verb.get_name()));
            assert!(!short.to_string().contains('\n'), "{}: {short}", verb.get_name());
            assert!(verb.get_long_about().is_some(), "{} has no long help", verb.get_name());
        }
    }

    /// The command lines of a verb's help, without what is piped into them, follows them or explains them.
    fn examples(verb: &clap::Command) -> Vec<String> {
        let help = verb.clone().render_long_help().to_string();
        let Some((_, examples)) = help.split_once("\nExamples:\n") else { return Vec::new() };
        examples
            .lines()
            .take_while(|line| line.starts_with("  "))
            .flat_map(|line| line.split("&&").map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| {
                let line = line.split(['|', '>']).next()?.trim_start();
                // A comment stands apart.
                let line = line.split("   ").next()?.trim();
                let line = line.strip_prefix("LB_LOG=debug ").unwrap_or(line);
                line.starts_with("lb ").then(|| line.to_owned())
            })
            .collect()
    }

    #[test]
    fn every_verb_has_an_example_that_is_a_command_of_its_own() {
        for verb in Cli::command().get_subcommands() {
            let examples = examples(verb);
            let own = format!("lb {}", verb.get_name());
            assert!(examples.iter().any(|line| line.starts_with(&own)), "{own}: {examples:?}");
            for line in examples {
                Cli::try_parse_from(line.split_whitespace())
                    .unwrap_or_else(|error| panic!("{own}: `{line}`: {error}"));
            }
        }
    }

    #[test]
    fn every_verb_that_prints_data_has_json() {
        const WITHOUT: [(&str, &str); 4] = [
            ("schema", "prints JSON"),
            ("completions", "prints a shell script"),
            ("man", "writes files"),
            ("top", "is a view; `lb stats --watch --json` is for programs"),
        ];
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            let json = verb.get_arguments().any(|argument| argument.get_id() == "json");
            let reasoned = WITHOUT.iter().any(|(without, _)| *without == name);
            assert_ne!(json, reasoned, "lb {name}: either --json, or a reason not to have it");
        }
    }

    #[test]
    fn options_of_all_verbs_may_follow_the_verb() {
        let cli = Cli::try_parse_from(["lb", "status", "--json", "--socket", "/x/y"]).unwrap();
        assert_eq!(cli.connection.socket, Some("/x/y".into()));
    }

    #[test]
    fn watch_takes_an_interval_only_after_an_equals_sign() {
        for line in ["lb stats --watch web/w1", "lb stats web --watch=500ms", "lb stats -w"] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Cli::try_parse_from(["lb", "stats", "--watch=soon"]).is_err());
    }
}

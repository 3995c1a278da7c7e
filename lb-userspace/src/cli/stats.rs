//! `lb stats`

mod csv;
mod filter;
mod ipvs;
mod rates;
mod render;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use self::{ipvs::Layout, rates::Rates};
use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, Style},
    target::Filter,
    units,
};
use crate::api::{
    client::{Client, ClientError},
    types::Stats,
};

/// Show packets, bytes and flows of services and backends
///
/// Counters start when lb is attached and never go back, whatever happens to the daemon. IN is what went to backends,
/// OUT what came back (nat only; with dsr and tunnel the backends answer clients directly), bytes are those of IP
/// packets, FLOWS counts TCP SYNs. Reasons tell why packets were dropped or answered. With --watch, the table is shown
/// again and again with rates per second since the last one.
///
/// --ipvs shows connections only where they are known, and "-" elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb stats
  lb stats web/web1 --watch=2s
  lb stats --csv > stats.csv
  lb stats --ipvs=rate")]
pub struct Show {
    /// Only this service or backend
    #[arg(value_name = "SERVICE[/BACKEND]")]
    filter: Option<Filter>,
    /// Show rates, again and again
    #[arg(
        short,
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s",
        value_parser = units::parse_interval
    )]
    watch: Option<Duration>,
    /// Print CSV with HAProxy's columns in HAProxy's order; takes a second, of which the rates are
    #[arg(long, conflicts_with_all = ["watch", "json", "ipvs"])]
    csv: bool,
    /// Print ipvsadm's lists in ipvsadm's layout
    #[arg(
        long,
        value_name = "LAYOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "list",
        conflicts_with_all = ["watch", "json"]
    )]
    ipvs: Option<ipvs::Layout>,
    /// Print JSON; with --watch one object a line: {"seconds", "stats", "rates"}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Sample<'a> {
    /// Seconds since the last sample.
    seconds: f64,
    stats: &'a Stats,
    rates: &'a Rates,
}

impl Show {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        block_on(async {
            match self.watch {
                None => self.once(&client).await?,
                Some(interval) => self.watch(&client, interval).await?,
            }
            Ok(Exit::Ok)
        })
    }

    async fn once(&self, client: &Client) -> anyhow::Result<()> {
        if self.csv {
            let (stats, rates) = self.second(client).await?;
            return Ok(output::print(&csv::render(&stats, &rates, &client.status().await?))?);
        }
        if let Some(layout) = self.ipvs {
            let (stats, rates) = match layout {
                Layout::Rate => self.second(client).await?,
                Layout::List | Layout::Stats => (self.ask(client).await?, Rates::default()),
            };
            let status = client.status().await?;
            return Ok(output::print(&ipvs::render(layout, &stats, &rates, &status))?);
        }
        let stats = self.ask(client).await?;
        if self.json {
            output::print_json(&stats)
        } else {
            Ok(output::print(&render::table(&stats, None, Style::of_stdout()))?)
        }
    }

    /// Counters, and their rates over one second.
    async fn second(&self, client: &Client) -> anyhow::Result<(Stats, Rates)> {
        let (began, before) = (Instant::now(), self.ask(client).await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (seconds, after) = (began.elapsed().as_secs_f64(), self.ask(client).await?);
        let rates = Rates::between(&before, &after, seconds);
        Ok((after, rates))
    }

    /// Until a signal or a closed pipe. A daemon that restarts meanwhile is waited for.
    async fn watch(&self, client: &Client, interval: Duration) -> anyhow::Result<()> {
        let style = Style::of_stdout();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut last = (Instant::now(), self.ask(client).await?);
        // The first picture comes soon, whatever the interval.
        tokio::time::sleep(interval.min(Duration::from_millis(500))).await;
        loop {
            match self.ask(client).await {
                Ok(stats) => {
                    let now = Instant::now();
                    let seconds = now.duration_since(last.0).as_secs_f64();
                    let rates = Rates::between(&last.1, &stats, seconds);
                    if self.json {
                        output::print_json(&Sample { seconds, stats: &stats, rates: &rates })?;
                    } else {
                        show(&render::table(&stats, Some(&rates), style))?;
                    }
                    last = (now, stats);
                }
                Err(error) if is_away(&error) => {
                    if self.json {
                        output::print_error(&error);
                    } else {
                        show(&output::lines([error.to_string()]))?;
                    }
                }
                Err(error) => return Err(error),
            }
            ticks.tick().await;
        }
    }

    async fn ask(&self, client: &Client) -> anyhow::Result<Stats> {
        let stats = client.stats().await?;
        Ok(match &self.filter {
            Some(wanted) => filter::apply(stats, wanted)?,
            None => stats,
        })
    }
}

/// A picture in the place of the last one on a terminal, below it elsewhere.
fn show(text: &str) -> io::Result<()> {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";
    match io::stdout().is_terminal() {
        true => output::print(&format!("{HOME_AND_CLEAR}{text}")),
        false => output::print(&format!("{text}\n")),
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ClientError::NotRunning { .. } | ClientError::Timeout { .. })
    )
}

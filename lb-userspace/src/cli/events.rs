//! `lb events`

use std::time::Duration;

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, clean},
    units,
};
use crate::api::{
    client::Client,
    types::{Event, Events},
};

/// How often `--follow` asks.
const EVERY: Duration = Duration::from_millis(500);
/// Most events of one answer.
const PAGE: usize = 1_000;

/// Show what has happened, and why
///
/// Every change of state, the oldest first: backends going DOWN and UP with what the check said, who drained what, which
/// configuration came into force or was refused, NICs, programs, starts and stops. The last 1,000 are remembered, 200 of
/// them across restarts of the daemon; all of them are in the daemon's log.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb events --follow")]
pub struct Show {
    /// Only of this service, or of SERVICE/BACKEND
    #[arg(value_name = "SERVICE[/BACKEND]")]
    target: Option<String>,
    /// Go on showing events as they happen, also across restarts of the daemon
    #[arg(short, long)]
    follow: bool,
    /// Only the last N
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Print JSON, with --follow one object a line
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        block_on(async {
            let mut page = client.events(0, PAGE).await?;
            let mut after = page.last;
            self.keep_wanted(&mut page);
            self.print(&page)?;
            if !self.follow {
                return Ok(Exit::Ok);
            }
            loop {
                tokio::time::sleep(EVERY).await;
                after = self.print_new(&client, after).await?;
            }
        })
    }

    /// Prints what is new. A daemon that is away is waited for.
    async fn print_new(&self, client: &Client, after: u64) -> anyhow::Result<u64> {
        let Ok(mut page) = client.events(after, PAGE).await else { return Ok(after) };
        let seen = page.events.last().map_or(page.last, |event| event.id);
        page.events.retain(|event| self.wants(event));
        self.print(&page)?;
        Ok(seen)
    }

    fn keep_wanted(&self, page: &mut Events) {
        page.events.retain(|event| self.wants(event));
        let skip = self.last.map_or(0, |last| page.events.len().saturating_sub(last));
        page.events.drain(..skip);
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(target) = &self.target else { return true };
        let service = event.service.as_deref();
        match target.split_once('/') {
            None => service == Some(target.as_str()),
            Some((name, backend)) => {
                service == Some(name) && event.backend.as_deref() == Some(backend)
            }
        }
    }

    fn print(&self, page: &Events) -> anyhow::Result<()> {
        match (self.json, self.follow) {
            (true, false) => output::print_json(page),
            (true, true) => page.events.iter().try_for_each(output::print_json_line),
            (false, _) => Ok(output::print(&render(page))?),
        }
    }
}

fn render(page: &Events) -> String {
    let mut text = String::new();
    if page.lost > 0 {
        text.push_str(&format!("({} events are forgotten)\n", page.lost));
    }
    for event in &page.events {
        let time = units::local_time(event.unix_milliseconds);
        text.push_str(&format!("{time}  {:<14}  {}", clean(&event.kind), clean(&event.text)));
        if !event.cause.is_empty() {
            text.push_str(&format!("  ({})", clean(&event.cause)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(service: Option<&str>, backend: Option<&str>) -> Event {
        Event {
            id: 1,
            unix_milliseconds: 0,
            kind: "backend_down".into(),
            service: service.map(str::to_owned),
            backend: backend.map(str::to_owned),
            text: "web/web1 is DOWN".into(),
            cause: "L4CON\x1b[31m".into(),
        }
    }

    #[test]
    fn an_event_is_a_line_that_cannot_play_with_the_terminal() {
        let page = Events { events: vec![event(Some("web"), None)], last: 1, lost: 3 };
        let text = render(&page);
        assert!(text.starts_with("(3 events are forgotten)\n"), "{text}");
        let line = "backend_down    web/web1 is DOWN  (L4CON\\u{1b}[31m)\n";
        assert!(text.ends_with(line), "{text:?}");
    }

    #[test]
    fn only_the_services_or_the_backends_own_are_shown() {
        let show = |target: &str| Show {
            target: Some(target.to_owned()),
            follow: false,
            last: None,
            json: false,
        };
        assert!(show("web").wants(&event(Some("web"), Some("web1"))));
        assert!(!show("web").wants(&event(Some("db"), None)));
        assert!(!show("web").wants(&event(None, None)));
        assert!(show("web/web1").wants(&event(Some("web"), Some("web1"))));
        assert!(!show("web/web1").wants(&event(Some("web"), Some("web2"))));
    }
}

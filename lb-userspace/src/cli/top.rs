//! `lb top`: the whole of lb on one screen, by the control socket alone.
//!
//! [`model::Model`] is everything shown; `update` changes it by one message (pure), `view` draws it (pure); what is here
//! only carries messages: keys, answers of the daemon, signals.

mod history;
mod keys;
mod model;
mod palette;
mod poll;
mod rows;
mod terminal;
#[cfg(test)]
mod testing;
mod update;
mod view;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    model::{Effect, Message, Model},
    palette::Palette,
    poll::Question,
    terminal::Screen,
};
use super::{
    Exit,
    client::{Connection, block_on},
    exit::Coded,
    units,
};
use crate::api::client::Client;

/// An answer that takes longer than this is shown as missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watch services, backends and events, live; drain, ready and weights by a key
///
/// A full-screen view of what lb does: states, shares, packets, bits, new flows and drops per second with their recent
/// course, sorted and filtered as you like; Enter shows one service or backend with its checks, its next hop and why
/// packets were dropped. `d`, `r`, `m` and `w` drain a backend, make it ready, take it out, or set its weight; each asks
/// first. `?` shows all keys. A daemon that goes away is waited for.
///
/// Elsewhere than on a terminal, see `lb stats --watch --json`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb top
  lb top --interval=2s --filter=DOWN")]
pub struct Top {
    /// Time between two looks
    #[arg(short, long, value_name = "INTERVAL", default_value = "1s", value_parser = units::parse_interval)]
    interval: Duration,
    /// Show only what has this text in its name, address or state; `/` changes it
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    filter: String,
}

impl Top {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            let error = "lb top needs a terminal; use `lb stats --watch` or `lb status` elsewhere";
            return Err(Coded::error(Exit::Usage, error));
        }
        let client = connection.client().with_timeout(PATIENCE);
        block_on(async {
            // A wrong socket or a missing permission is an error message, not a full-screen view of nothing.
            client.status().await?;
            self.watch(client).await?;
            Ok(Exit::Ok)
        })
    }

    async fn watch(self, client: Client) -> anyhow::Result<()> {
        let mut screen = Screen::open()?;
        let (messages, mut inbox) = mpsc::unbounded_channel();
        let (width, height) = crossterm::terminal::size().context("cannot ask the terminal")?;
        let mut model = Model::new(self.filter, (width, height));
        let palette = Palette::of_stdout();
        let mut keys = EventStream::new();
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut asking = false;
        loop {
            screen.draw(|frame| view::draw(&model, palette, Instant::now(), frame))?;
            let message = tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        Message::Key(key)
                    }
                    Some(Ok(Event::Resize(width, height))) => Message::Resize(width, height),
                    Some(Ok(_)) => continue,
                    // The terminal has gone.
                    Some(Err(_)) | None => return Ok(()),
                },
                Some(message) = inbox.recv() => message,
                _ = ticks.tick() => {
                    // A daemon that is slow is asked again only when it has answered.
                    if !std::mem::replace(&mut asking, true) {
                        ask(&client, model.question(), &messages);
                    }
                    continue;
                }
                _ = terminate.recv() => return Ok(()),
                _ = hang_up.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            };
            asking &= !message.is_answer();
            for effect in update::update(&mut model, message) {
                match effect {
                    Effect::Quit => return Ok(()),
                    Effect::Set(change) => poll::set(&client, change, &messages),
                    Effect::Look => {
                        if !std::mem::replace(&mut asking, true) {
                            ask(&client, model.question(), &messages);
                        }
                    }
                }
            }
        }
    }
}

fn ask(client: &Client, question: Question, messages: &mpsc::UnboundedSender<Message>) {
    let (client, messages) = (client.clone(), messages.clone());
    tokio::spawn(async move {
        // The view has gone when this fails.
        let _ = messages.send(poll::ask(&client, question).await);
    });
}

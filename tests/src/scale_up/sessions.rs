//! Browsers with sessions: each comes back with its cookie, over a new connection, and wants the servers that it had.

use std::{
    collections::BTreeSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{
    ScaleUp,
    load::{self, Page},
};
use crate::client;

/// A page that cannot be had now is asked for again until then.
const PATIENCE: Duration = Duration::from_secs(15);
/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(4);
/// From one attempt to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// Their addresses come after those of the visitors.
const FIRST: usize = 1_000;

/// The sessions, and who served each last.
pub struct Sessions<'a> {
    lab: &'a ScaleUp,
    connector: TlsConnector,
    known: Vec<Page>,
}

/// How many sessions were served by another server than before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Another web server.
    pub web: usize,
    /// The same web server, and another application server.
    pub app: usize,
    /// The servers that they had.
    pub from: BTreeSet<String>,
}

impl<'a> Sessions<'a> {
    /// Begins so many.
    pub fn start(lab: &'a ScaleUp, count: usize) -> anyhow::Result<Self> {
        let connector = load::connector(lab)?;
        let known = ask_all(lab, &connector, &vec![None; count])?;
        ensure!(known.iter().all(|page| page.cookie.is_some()), "a session without a cookie");
        Ok(Self { lab, connector, known })
    }

    /// Everybody comes back.
    pub fn come_back(&mut self) -> anyhow::Result<Moved> {
        let cookies: Vec<_> = self.known.iter().map(|page| page.cookie.clone()).collect();
        let pages = ask_all(self.lab, &self.connector, &cookies)?;
        let mut moved = Moved::default();
        for (known, page) in self.known.iter_mut().zip(pages) {
            ensure!(page.cookie.is_none(), "a session that was known began anew: {page:?}");
            if page.web != known.web {
                moved.web += 1;
                moved.from.insert(known.web.clone());
            } else if page.app != known.app {
                moved.app += 1;
                moved.from.insert(known.app.clone());
            }
            *known = Page { cookie: known.cookie.take(), ..page };
        }
        Ok(moved)
    }
}

fn ask_all(
    lab: &ScaleUp,
    connector: &TlsConnector,
    cookies: &[Option<String>],
) -> anyhow::Result<Vec<Page>> {
    let (ready, answers) = mpsc::channel();
    let (connector, cookies) = (connector.clone(), cookies.to_vec());
    client::in_thread(&lab.client, move || async move {
        let mut tasks = JoinSet::new();
        for (number, cookie) in cookies.into_iter().enumerate() {
            let connector = connector.clone();
            tasks.spawn(async move { (number, ask(&connector, number, cookie.as_deref()).await) });
        }
        let mut pages = tasks.join_all().await;
        pages.sort_by_key(|(number, _)| *number);
        let pages: anyhow::Result<Vec<Page>> = pages.into_iter().map(|(_, page)| page).collect();
        // The caller waits for exactly this.
        let _ = ready.send(pages);
    });
    answers.recv().context("the sessions' thread has ended")?
}

async fn ask(
    connector: &TlsConnector,
    number: usize,
    cookie: Option<&str>,
) -> anyhow::Result<Page> {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = load::page(connector.clone(), load::regular(FIRST + number), cookie);
        let page = tokio::time::timeout(ATTEMPT, page).await;
        let page = page.unwrap_or_else(|_| Err(anyhow::anyhow!("timed out")));
        if page.is_ok() || Instant::now() >= until {
            return page.with_context(|| format!("session {number}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

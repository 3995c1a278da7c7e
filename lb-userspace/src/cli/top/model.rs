//! Everything that `lb top` shows and knows.

use std::{collections::VecDeque, time::Instant};

use crossterm::event::KeyEvent;

use super::{
    history::History,
    poll::Question,
    rows::{Row, Sort},
};
use crate::api::types::{
    BackendStats, BackendStatus, Event, Events, ServiceStatus, SetBackend, Stats, Status, Why,
};

/// Events that are kept for the pane.
pub const EVENTS: usize = 200;

/// What happens to the model.
#[derive(Debug)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size: columns, lines.
    Resize(u16, u16),
    /// The daemon has answered.
    Sample(Box<Sample>),
    /// It has not.
    Away(String),
    /// A change is done, or refused.
    Done(Result<String, String>),
}

impl Message {
    /// Whether a look at the daemon has ended.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Sample(_) | Self::Away(_))
    }
}

/// One look at the daemon.
#[derive(Debug)]
pub struct Sample {
    /// When the counters were read.
    pub at: Instant,
    /// `lb status`
    pub status: Status,
    /// `lb stats`
    pub stats: Stats,
    /// What has happened since the last look.
    pub events: Events,
    /// Why the service in view drops packets.
    pub why: Option<Why>,
}

/// What the model wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// End.
    Quit,
    /// Look at the daemon now.
    Look,
    /// Change a backend.
    Set(Change),
}

/// A change of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Its service.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// What to set.
    pub set: SetBackend,
}

/// A service, or one of its backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The service.
    pub service: String,
    /// The backend; `None` = the service itself.
    pub backend: Option<String>,
}

/// What fills the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// All services and backends.
    #[default]
    List,
    /// One of them; scrolled down by so many lines.
    Detail(Place, u16),
}

/// What keys go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The page.
    #[default]
    Page,
    /// All keys are shown.
    Help,
    /// The filter is being typed; the text before, to go back to.
    Filter(String),
    /// A backend's new weight is being typed.
    Weight(Place, String),
    /// `y` does this.
    Confirm(Change),
}

/// The model.
#[derive(Debug)]
pub struct Model {
    /// The last answer.
    pub status: Status,
    /// The last counters.
    pub stats: Stats,
    /// When they were read; `None` = not yet.
    pub at: Option<Instant>,
    /// Rates and their course.
    pub history: History,
    /// The last events, the oldest first.
    pub events: VecDeque<Event>,
    /// Id of the last event.
    pub last_event: u64,
    /// Why the service in view drops packets.
    pub why: Option<Why>,
    /// The page.
    pub page: Page,
    /// What keys go to.
    pub input: Input,
    /// The row that keys are about.
    pub selected: Option<Place>,
    /// Its number in the list, for when it goes.
    pub selected_index: usize,
    /// The order.
    pub sort: Sort,
    /// Only rows with this text are shown.
    pub filter: String,
    /// Whether the pane of events is shown.
    pub show_events: bool,
    /// Why the daemon does not answer, while it does not.
    pub away: Option<String>,
    /// What came of the last change; `Err` = it was refused.
    pub notice: Option<Result<String, String>>,
    /// Columns and lines of the terminal.
    pub size: (u16, u16),
}

impl Model {
    /// Before the first answer.
    pub fn new(filter: String, size: (u16, u16)) -> Self {
        Self {
            status: Status::default(),
            stats: Stats::default(),
            at: None,
            history: History::default(),
            events: VecDeque::new(),
            last_event: 0,
            why: None,
            page: Page::List,
            input: Input::Page,
            selected: None,
            selected_index: 0,
            sort: Sort::default(),
            filter,
            show_events: true,
            away: None,
            notice: None,
            size,
        }
    }

    /// What to ask the daemon next.
    pub fn question(&self) -> Question {
        let why = match &self.page {
            Page::List => None,
            Page::Detail(place, _) => Some(place.service.clone()),
        };
        Question { events_after: self.last_event, why }
    }

    /// The rows of the list as they stand.
    pub fn rows(&self) -> Vec<Row<'_>> {
        super::rows::rows(&self.status, &self.stats, &self.history, self.sort, &self.filter)
    }

    /// What keys such as `d` are about.
    pub fn target(&self) -> Option<&Place> {
        match &self.page {
            Page::List => self.selected.as_ref(),
            Page::Detail(place, _) => Some(place),
        }
    }

    /// A service by its name.
    pub fn service(&self, name: &str) -> Option<&ServiceStatus> {
        self.status.services.iter().find(|service| service.name == name)
    }

    /// A backend's counters.
    pub fn counted(&self, place: &Place) -> Option<&BackendStats> {
        let backend = place.backend.as_ref()?;
        let service = self.stats.services.iter().find(|known| known.name == place.service)?;
        service.backends.iter().find(|known| known.name == *backend)
    }

    /// A backend by its place.
    pub fn backend(&self, place: &Place) -> Option<&BackendStatus> {
        let backend = place.backend.as_ref()?;
        self.service(&place.service)?.backends.iter().find(|known| known.name == *backend)
    }
}

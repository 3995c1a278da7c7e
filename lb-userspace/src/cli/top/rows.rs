//! The rows of the list: each service, and under it its backends; filtered and sorted within their level.

use std::cmp::Ordering;

use super::{
    history::{History, Rate},
    model::Place,
};
use crate::api::types::{BackendStatus, ServiceStatus, Stats, Status};

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// What it is of.
    pub place: Place,
    /// `UP`, `DOWN`, `UP 1/3`...
    pub state: &'a str,
    /// `ready`, `drain`...; empty for a service.
    pub admin: &'a str,
    /// Weight in force; `None` for a service.
    pub weight: Option<u16>,
    /// Share of new flows, 0..=1; `None` for a service.
    pub share: Option<f64>,
    /// Traffic; `None` = not known yet.
    pub rate: Option<Rate>,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// The order of the file.
    #[default]
    File,
    /// The name.
    Name,
    /// The worst first.
    State,
    /// Weight.
    Weight,
    /// Share of new flows.
    Share,
    /// Packets per second.
    Packets,
    /// Bits per second.
    Bits,
    /// New flows per second.
    Flows,
    /// Drops per second.
    Drops,
}

impl Column {
    const ALL: [Self; 9] = [
        Self::File,
        Self::Name,
        Self::State,
        Self::Weight,
        Self::Share,
        Self::Packets,
        Self::Bits,
        Self::Flows,
        Self::Drops,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Name => "name",
            Self::State => "state",
            Self::Weight => "weight",
            Self::Share => "share",
            Self::Packets => "packets",
            Self::Bits => "bits",
            Self::Flows => "flows",
            Self::Drops => "drops",
        }
    }
}

/// The order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// The other way round.
    pub reversed: bool,
}

impl Sort {
    /// By the next column.
    pub fn next(self) -> Self {
        let index = Column::ALL.iter().position(|column| *column == self.column).unwrap_or(0);
        Self { column: Column::ALL[(index + 1) % Column::ALL.len()], reversed: false }
    }

    fn compare(self, a: &Row<'_>, b: &Row<'_>) -> Ordering {
        let rate = |row: &Row<'_>, value: fn(&Rate) -> f64| row.rate.as_ref().map_or(-1.0, value);
        // Much before little: what is busy is what is looked for.
        let busiest = |value: fn(&Rate) -> f64| rate(b, value).total_cmp(&rate(a, value));
        let order = match self.column {
            Column::File => Ordering::Equal,
            Column::Name => a.place.cmp(&b.place),
            Column::State => badness(a).cmp(&badness(b)).reverse(),
            Column::Weight => b.weight.cmp(&a.weight),
            Column::Share => b.share.unwrap_or(0.0).total_cmp(&a.share.unwrap_or(0.0)),
            Column::Packets => busiest(|rate| rate.packets),
            Column::Bits => busiest(|rate| rate.bits),
            Column::Flows => busiest(|rate| rate.flows),
            Column::Drops => busiest(|rate| rate.drops),
        };
        if self.reversed { order.reverse() } else { order }
    }
}

/// How much a row needs to be looked at.
fn badness(row: &Row<'_>) -> u8 {
    match (row.state, row.admin) {
        ("DOWN" | "FAIL-OPEN" | "PANIC" | "SORRY", "" | "ready") => 4,
        (state, "" | "ready") if state.starts_with("DOWN") || state.starts_with("EJECTED") => 3,
        (_, "drain" | "maint" | "removed") => 2,
        ("BACKUP" | "UNDER-QUORUM", _) => 1,
        (state, _) if state.contains('/') => 1,
        _ => 0,
    }
}

/// All rows that have `filter` in name, address, state or administrative state. A service is shown with any of its
/// backends, and with all of them if it is meant itself.
pub fn rows<'a>(
    status: &'a Status,
    stats: &Stats,
    history: &History,
    sort: Sort,
    filter: &str,
) -> Vec<Row<'a>> {
    let filter = filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&filter);
    let mut groups: Vec<(Row<'a>, Vec<Row<'a>>)> = Vec::new();
    for service in &status.services {
        let counted = stats.services.iter().find(|known| known.name == service.name);
        let whole = has(&service.name) || has(&service.listen) || has(&service.state);
        let mut backends: Vec<Row<'a>> = service
            .backends
            .iter()
            .enumerate()
            .filter(|(_, backend)| {
                let texts = [&backend.name, &backend.address, &backend.state, &backend.admin];
                whole || texts.iter().any(|text| has(text))
            })
            .map(|(index, backend)| {
                // Both answers are in the order of the file.
                let share = counted
                    .and_then(|known| known.backends.get(index))
                    .filter(|known| known.name == backend.name)
                    .map(|known| known.share);
                of_backend(service, backend, share, history)
            })
            .collect();
        if !whole && backends.is_empty() {
            continue;
        }
        backends.sort_by(|a, b| sort.compare(a, b));
        groups.push((of_service(service, history), backends));
    }
    groups.sort_by(|(a, _), (b, _)| sort.compare(a, b));
    groups
        .into_iter()
        .flat_map(|(service, backends)| std::iter::once(service).chain(backends))
        .collect()
}

fn of_service<'a>(service: &'a ServiceStatus, history: &History) -> Row<'a> {
    let place = Place { service: service.name.clone(), backend: None };
    Row {
        rate: history.rate(&place),
        place,
        state: &service.state,
        admin: "",
        weight: None,
        share: None,
    }
}

fn of_backend<'a>(
    service: &ServiceStatus,
    backend: &'a BackendStatus,
    share: Option<f64>,
    history: &History,
) -> Row<'a> {
    let place = Place { service: service.name.clone(), backend: Some(backend.name.clone()) };
    Row {
        rate: history.rate(&place),
        place,
        state: &backend.state,
        admin: &backend.admin,
        weight: Some(backend.weight),
        share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let backend = |name: &str, state: &str, admin: &str, weight| BackendStatus {
            name: name.into(),
            address: format!("10.0.0.1:80-{name}"),
            state: state.into(),
            admin: admin.into(),
            weight,
            ..BackendStatus::default()
        };
        let service = |name: &str, state: &str, backends| ServiceStatus {
            name: name.into(),
            listen: "192.0.2.1:80/tcp".into(),
            state: state.into(),
            backends,
            ..ServiceStatus::default()
        };
        Status {
            services: vec![
                service(
                    "web",
                    "UP",
                    vec![
                        backend("b", "UP", "ready", 1),
                        backend("a", "DOWN", "ready", 3),
                        backend("c", "UP", "drain", 2),
                    ],
                ),
                service("dns", "DOWN", vec![backend("x", "DOWN", "ready", 1)]),
            ],
            ..Status::default()
        }
    }

    fn shown(sort: Sort, filter: &str) -> String {
        let status = status();
        let rows = rows(&status, &Stats::default(), &History::default(), sort, filter);
        let names = rows.iter().map(|row| row.place.backend.as_ref().unwrap_or(&row.place.service));
        names.cloned().collect::<Vec<_>>().join(" ")
    }

    fn by(column: Column) -> Sort {
        Sort { column, reversed: false }
    }

    #[test]
    fn backends_are_sorted_under_their_service() {
        assert_eq!(shown(by(Column::File), ""), "web b a c dns x");
        assert_eq!(shown(by(Column::Name), ""), "dns x web a b c");
        assert_eq!(shown(by(Column::State), ""), "dns x web a c b");
        assert_eq!(shown(by(Column::Weight), ""), "web a c b dns x");
        assert_eq!(shown(Sort { column: Column::Weight, reversed: true }, ""), "web b c a dns x");
    }

    #[test]
    fn a_filter_keeps_the_service_of_what_it_finds() {
        assert_eq!(shown(Sort::default(), "DRAIN"), "web c");
        assert_eq!(shown(Sort::default(), "dns"), "dns x");
        assert_eq!(shown(Sort::default(), "80-a"), "web a");
        assert_eq!(shown(Sort::default(), "nothing has this"), "");
    }

    #[test]
    fn the_next_column_comes_round() {
        let mut sort = Sort { column: Column::File, reversed: true };
        let mut seen = Vec::new();
        for _ in 0..Column::ALL.len() {
            sort = sort.next();
            assert!(!sort.reversed);
            seen.push(sort.column.name());
        }
        assert_eq!((seen.len(), seen.last()), (9, Some(&"file")));
    }
}

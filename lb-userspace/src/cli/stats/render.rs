//! The table of `lb stats`.

use std::collections::BTreeMap;

use comfy_table::{Cell, Table};
use lb_common::abi::Reason;

use super::rates::{Rate, Rates};
use crate::{
    api::types::{BackendStats, Counters, ServiceStats, Stats},
    cli::{
        output::{Style, clean, number_cell, table_text},
        units,
    },
};

/// Totals, or rates if there are any.
pub fn table(stats: &Stats, rates: Option<&Rates>, style: Style) -> String {
    let mut text = String::new();
    for service in &stats.services {
        text.push_str(&render_service(service, rates, style));
        text.push('\n');
    }
    if stats.services.is_empty() {
        text.push_str("no services\n\n");
    }
    text.push_str(&reasons("node", &stats.node));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn render_service(service: &ServiceStats, rates: Option<&Rates>, style: Style) -> String {
    const NAMES: [&str; 5] = ["BACKEND", "STATE", "ADMIN", "WEIGHT", "SHARE"];
    const TOTALS: [&str; 6] = ["PKTS IN", "BYTES IN", "PKTS OUT", "BYTES OUT", "FLOWS", "RESETS"];
    const RATES: [&str; 6] = ["PPS IN", "RATE IN", "PPS OUT", "RATE OUT", "FLOWS/s", "RESETS/s"];
    let numbers = if rates.is_some() { RATES } else { TOTALS };
    let mut table = style.table(&[NAMES.as_slice(), numbers.as_slice()].concat());
    for backend in &service.backends {
        let rate = rates.map(|rates| rates.backend(&service.name, &backend.name));
        add(&mut table, names(backend, style), &backend.counters, rate);
    }
    let total = ["total", "", "", "", ""].map(Cell::new);
    let rate = rates.map(|rates| rates.service(&service.name));
    add(&mut table, total, &service.total, rate);
    format!(
        "{}  {}\n{}{}",
        clean(&service.name),
        clean(&service.listen),
        table_text(&table, "  "),
        reasons("  reasons", &service.reasons)
    )
}

fn names(backend: &BackendStats, style: Style) -> [Cell; 5] {
    [
        Cell::new(clean(&backend.name)),
        style.state_cell(&backend.state),
        style.state_cell(&backend.admin),
        number_cell(backend.weight),
        number_cell(units::percent(backend.share)),
    ]
}

/// A row of totals (`rate` is `None`) or of rates (`Some(None)`: not known yet).
fn add(table: &mut Table, names: [Cell; 5], totals: &Counters, rate: Option<Option<Rate>>) {
    let numbers = match rate {
        None => [
            units::count(totals.packets_in as f64),
            units::bytes(totals.bytes_in as f64),
            units::count(totals.packets_out as f64),
            units::bytes(totals.bytes_out as f64),
            units::count(totals.flows as f64),
            units::count(totals.resets as f64),
        ],
        Some(None) => std::array::from_fn(|_| "-".to_owned()),
        Some(Some(rate)) => [
            units::count(rate.packets_in),
            units::bit_rate(rate.bytes_in),
            units::count(rate.packets_out),
            units::bit_rate(rate.bytes_out),
            units::count(rate.flows),
            units::count(rate.resets),
        ],
    };
    table.add_row(names.into_iter().chain(numbers.map(number_cell)));
}

/// `reasons: dropped no_backend 12, ttl 3; other echo 7`, in the order of their numbers.
fn reasons(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let known = |name: &str| Reason::ALL.iter().position(|reason| reason.name() == name);
    let is_drop = |name: &str| known(name).is_some_and(|index| Reason::ALL[index].is_drop());
    let list = |drops: bool| {
        let mut counts: Vec<_> =
            counts.iter().filter(|(name, n)| **n > 0 && is_drop(name) == drops).collect();
        counts.sort_by_key(|(name, _)| known(name));
        counts.iter().map(|(name, n)| format!("{} {n}", clean(name))).collect::<Vec<_>>().join(", ")
    };
    let (dropped, other) = (list(true), list(false));
    match (dropped.is_empty(), other.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("{title}: dropped {dropped}\n"),
        (true, false) => format!("{title}: {other}\n"),
        (false, false) => format!("{title}: dropped {dropped}; not dropped {other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stats {
        let counters = |n: u64| Counters {
            packets_in: 1000 * n,
            bytes_in: 65_536 * n,
            packets_out: 900 * n,
            bytes_out: 1_048_576 * n,
            flows: 100 * n,
            resets: n,
        };
        let backend = |name: &str, state: &str, share, n| BackendStats {
            name: name.into(),
            state: state.into(),
            admin: "ready".into(),
            weight: 100,
            share,
            counters: counters(n),
            ..BackendStats::default()
        };
        Stats {
            services: vec![ServiceStats {
                name: "web".into(),
                listen: "192.0.2.10:80/tcp".into(),
                total: counters(3),
                reasons: BTreeMap::from([
                    ("echo".to_owned(), 7),
                    ("no_backend".to_owned(), 12),
                    ("ttl".to_owned(), 3),
                ]),
                backends: vec![backend("web1", "UP", 1.0, 2), backend("web2", "DOWN", 0.0, 1)],
            }],
            node: BTreeMap::from([("passed".to_owned(), 5), ("unknown\x1b".to_owned(), 1)]),
        }
    }

    #[test]
    fn totals_have_units_and_reasons() {
        let expected = "\
web  192.0.2.10:80/tcp
  BACKEND  STATE  ADMIN  WEIGHT  SHARE   PKTS IN  BYTES IN  PKTS OUT  BYTES OUT  FLOWS  RESETS
  web1     UP     ready     100  100.0%    2.00k    128KiB     1.80k    2.00MiB    200       2
  web2     DOWN   ready     100    0.0%    1.00k   64.0KiB       900    1.00MiB    100       1
  total                                    3.00k    192KiB     2.70k    3.00MiB    300       3
  reasons: dropped ttl 3, no_backend 12; not dropped echo 7

node: unknown\\u{1b} 1, passed 5
";
        let text = table(&sample(), None, Style::PLAIN);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn rates_take_the_place_of_totals() {
        let (mut before, after) = (sample(), sample());
        before.services[0].backends[0].counters.packets_in = 0;
        before.services[0].backends[1].name = "gone".into();
        let rates = Rates::between(&before, &after, 2.0);
        let text = table(&after, Some(&rates), Style::PLAIN);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name));
            line.unwrap_or_else(|| panic!("{text}")).split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(row("web1")[5..], ["1.00k", "0bit/s", "0", "0bit/s", "0", "0"], "{text}");
        assert_eq!(row("web2")[5..], ["-"; 6], "{text}");
    }

    #[test]
    fn nothing_configured_is_said() {
        assert_eq!(table(&Stats::default(), None, Style::PLAIN), "no services\n");
    }
}

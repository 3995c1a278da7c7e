//! The list: as many columns as there is room for, the most important first.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{rate_text, spark};
use crate::cli::{
    output::clean,
    top::{
        model::Model,
        palette::Palette,
        rows::{Column, Row},
    },
    units,
};

/// A column: what is in it, its heading, its width, and what it is sorted by.
struct Head {
    kind: Kind,
    heading: &'static str,
    width: usize,
    sorted_by: Option<Column>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    State,
    Admin,
    Weight,
    Share,
    Packets,
    Bits,
    Flows,
    Drops,
    Trend,
}

const fn head(kind: Kind, heading: &'static str, width: usize, sorted_by: Option<Column>) -> Head {
    Head { kind, heading, width, sorted_by }
}

/// As they stand, from the left, after the name.
const HEADS: [Head; 9] = [
    head(Kind::State, "STATE", 9, Some(Column::State)),
    head(Kind::Admin, "ADMIN", 7, None),
    head(Kind::Weight, "WGT", 3, Some(Column::Weight)),
    head(Kind::Share, "SHARE", 6, Some(Column::Share)),
    head(Kind::Packets, "PKT/S", 6, Some(Column::Packets)),
    head(Kind::Bits, "BIT/S", 6, Some(Column::Bits)),
    head(Kind::Flows, "NEW/S", 6, Some(Column::Flows)),
    head(Kind::Drops, "DROP/S", 6, Some(Column::Drops)),
    head(Kind::Trend, "TREND", 7, None),
];
/// In the order in which they get room.
const IMPORTANCE: [Kind; 9] = [
    Kind::State,
    Kind::Packets,
    Kind::Admin,
    Kind::Flows,
    Kind::Trend,
    Kind::Drops,
    Kind::Share,
    Kind::Bits,
    Kind::Weight,
];
/// The name's width at least, and at most.
const NAME: (usize, usize) = (12, 40);
/// The longest course.
const LONGEST_TREND: usize = 60;

/// Draws the list.
pub fn draw(model: &Model, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.rows();
    let widths = Widths::for_room(usize::from(area.width), &rows);
    let mut lines = vec![heading(model, &widths, palette)];
    let room = usize::from(area.height).saturating_sub(1);
    // The selected row is always in view, with its neighbours where there is room.
    let first = (model.selected_index + 1 + room / 3).min(rows.len()).saturating_sub(room);
    let first = first.min(model.selected_index);
    for (index, row) in rows.iter().enumerate().skip(first).take(room) {
        let line = line(model, row, &widths, palette);
        let selected = index == model.selected_index;
        lines.push(if selected { line.style(palette.selected()) } else { line });
    }
    if rows.is_empty() {
        let why = match (model.at.is_some(), model.filter.is_empty()) {
            (false, _) => "waiting for the first answer".to_owned(),
            (true, true) => "no services: the configuration has none".to_owned(),
            (true, false) => format!("nothing has `{}`: Esc shows all", clean(&model.filter)),
        };
        lines.push(Line::from(why));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The columns that there is room for.
struct Widths {
    name: usize,
    heads: Vec<(&'static Head, usize)>,
}

impl Widths {
    fn for_room(room: usize, rows: &[Row<'_>]) -> Self {
        let longest = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0);
        let mut left = room.saturating_sub(NAME.0);
        let mut kinds = Vec::new();
        for kind in IMPORTANCE {
            let width =
                HEADS.iter().find(|head| head.kind == kind).map_or(0, |head| head.width + 1);
            if width > left {
                break;
            }
            left -= width;
            kinds.push(kind);
        }
        let more = longest.clamp(NAME.0, NAME.1).saturating_sub(NAME.0).max(left.min(4)).min(left);
        let trend = (left - more).min(LONGEST_TREND - 7);
        let heads = HEADS
            .iter()
            .filter(|head| kinds.contains(&head.kind))
            .map(|head| (head, head.width + if head.kind == Kind::Trend { trend } else { 0 }))
            .collect();
        Self { name: (NAME.0 + more).min(room), heads }
    }
}

fn heading(model: &Model, widths: &Widths, palette: Palette) -> Line<'static> {
    let mark = |column| match (model.sort.column == column, model.sort.reversed) {
        (false, _) => "",
        (true, false) => "v",
        (true, true) => "^",
    };
    let mut text = fit(&format!("NAME{}", mark(Column::Name)), widths.name, false);
    for (head, width) in &widths.heads {
        let mark = head.sorted_by.map_or("", mark);
        let heading = format!("{}{mark}", head.heading);
        // Where there is no room for the mark, the heading makes it.
        let heading = match heading.len() > *width {
            true => format!("{}{mark}", &head.heading[..head.heading.len() - 1]),
            false => heading,
        };
        text.push(' ');
        text.push_str(&fit(&heading, *width, is_number(head.kind)));
    }
    Line::styled(text, palette.heading())
}

fn line(model: &Model, row: &Row<'_>, widths: &Widths, palette: Palette) -> Line<'static> {
    let mut spans = vec![Span::raw(fit(&name(row), widths.name, false))];
    for (head, width) in &widths.heads {
        let (text, style) = match head.kind {
            Kind::State => (clean(row.state), palette.state(row.state)),
            Kind::Admin => (clean(row.admin), palette.state(row.admin)),
            Kind::Weight => {
                (row.weight.map_or_else(String::new, |w| w.to_string()), palette.plain())
            }
            Kind::Share => (row.share.map_or_else(String::new, units::percent), palette.plain()),
            Kind::Packets => (rate_text(row.rate, |rate| rate.packets), palette.plain()),
            Kind::Bits => (rate_text(row.rate, |rate| rate.bits), palette.plain()),
            Kind::Flows => (rate_text(row.rate, |rate| rate.flows), palette.plain()),
            Kind::Drops if row.place.backend.is_some() => ("-".to_owned(), palette.faint()),
            Kind::Drops => {
                let some = row.rate.is_some_and(|rate| rate.drops > 0.0);
                let style = if some { palette.alarm() } else { palette.plain() };
                (rate_text(row.rate, |rate| rate.drops), style)
            }
            Kind::Trend => {
                let course = model.history.course(&row.place, |rate| rate.packets);
                (spark::line(&course, *width), palette.course())
            }
        };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(fit(&text, *width, is_number(head.kind)), style));
    }
    Line::from(spans)
}

fn name(row: &Row<'_>) -> String {
    match &row.place.backend {
        None => clean(&row.place.service),
        Some(backend) => format!("  {}", clean(backend)),
    }
}

fn is_number(kind: Kind) -> bool {
    !matches!(kind, Kind::State | Kind::Admin)
}

/// Exactly `width` characters; what is longer ends in `~`.
fn fit(text: &str, width: usize, right: bool) -> String {
    let length = text.chars().count();
    match (length > width, right) {
        (true, _) => {
            text.chars().take(width.saturating_sub(1)).chain("~".chars()).take(width).collect()
        }
        (false, true) => format!("{text:>width$}"),
        (false, false) => format!("{text:<width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_its_column() {
        assert_eq!([fit("ab", 4, false), fit("ab", 4, true)], ["ab  ", "  ab"]);
        assert_eq!([fit("abcde", 4, true), fit("abc", 0, true)], ["abc~", ""]);
    }

    #[test]
    fn more_room_shows_more() {
        let kinds = |room| Widths::for_room(room, &[]).heads.len();
        assert_eq!((kinds(18), kinds(40), kinds(80), kinds(200)), (0, 3, 9, 9));
        for room in 1..300 {
            let widths = Widths::for_room(room, &[]);
            let all = widths.heads.iter().map(|(_, width)| width + 1).sum::<usize>();
            assert!(widths.name + all <= room, "{room}");
        }
    }
}

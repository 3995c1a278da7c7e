//! The pane of events, the latest at the bottom.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use crate::{
    api::types::Event,
    cli::{
        output::clean,
        top::{
            model::{Model, Page, Place},
            palette::Palette,
        },
        units,
    },
};

/// Draws the pane; in a service's or backend's page only with its own events.
pub fn draw(model: &Model, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let room = usize::from(area.height).saturating_sub(1);
    let mut lines = vec![Line::styled("EVENTS", palette.heading())];
    let wanted = |event: &&Event| match &model.page {
        Page::List => true,
        Page::Detail(place, _) => is_of(event, place),
    };
    let mut events: Vec<&Event> = model.events.iter().rev().filter(wanted).take(room).collect();
    events.reverse();
    if events.is_empty() {
        lines.push(Line::styled("nothing has happened", palette.faint()));
    }
    lines.extend(events.into_iter().map(|event| line(event, palette)));
    frame.render_widget(Paragraph::new(lines), area);
}

fn is_of(event: &Event, place: &Place) -> bool {
    event.service.as_ref() == Some(&place.service)
        && (place.backend.is_none() || event.backend == place.backend)
}

fn line(event: &Event, palette: Palette) -> Line<'static> {
    let time = units::local_time(event.unix_milliseconds);
    // The time of day, whole seconds.
    let time = time.get(11..19).unwrap_or(&time).to_owned();
    let mut text = clean(&event.text);
    if !event.cause.is_empty() {
        text.push_str(&format!("  ({})", clean(&event.cause)));
    }
    let style = match event.kind.as_str() {
        "backend_down" | "service_down" | "config_refused" => palette.alarm(),
        "backend_up" | "service_up" => palette.good(),
        _ => palette.plain(),
    };
    Line::from(vec![Span::styled(format!("{time} "), palette.faint()), Span::styled(text, style)])
}

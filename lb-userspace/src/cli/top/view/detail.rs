//! The page of one service or backend: what it is, what it does, and why packets of it were dropped.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{rate_text, spark};
use crate::{
    api::types::{BackendStats, BackendStatus, ServiceStatus, WhyReason},
    cli::{
        output::clean,
        top::{
            history::Rate,
            model::{Model, Place},
            palette::Palette,
        },
        units,
    },
};

/// Width of the names at the left.
const NAMES: usize = 9;

/// Draws the page from line `scroll` on.
pub fn draw(
    model: &Model,
    place: &Place,
    scroll: u16,
    palette: Palette,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let Some(service) = model.service(&place.service) else { return };
    let mut lines = Vec::new();
    match model.backend(place) {
        Some(backend) => {
            backend_lines(service, backend, palette, &mut lines);
            if let Some(counted) = model.counted(place) {
                measured_lines(counted, palette, &mut lines);
            }
        }
        None => service_lines(service, palette, &mut lines),
    }
    let rate = model.history.rate(place);
    let width = usize::from(area.width).saturating_sub(NAMES + 9).min(120);
    type Value = fn(&Rate) -> f64;
    let courses: [(&str, Value); 5] = [
        ("packets/s", |rate| rate.packets),
        ("bits/s", |rate| rate.bits),
        ("new/s", |rate| rate.flows),
        ("drops/s", |rate| rate.drops),
        ("resets/s", |rate| rate.resets),
    ];
    for (name, value) in courses {
        // Drops are the service's.
        if name == "drops/s" && place.backend.is_some() {
            continue;
        }
        let course = spark::line(&model.history.course(place, value), width);
        lines.push(Line::from(vec![
            Span::styled(format!("{name:<NAMES$} "), palette.faint()),
            Span::raw(format!("{:>6} ", rate_text(rate, value))),
            Span::styled(course, palette.course()),
        ]));
    }
    lines.push(Line::default());
    why(model, palette, &mut lines);
    // A page never scrolls its last line away.
    let scroll = scroll.min((lines.len() as u16).saturating_sub(1));
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0));
    frame.render_widget(text, area);
}

fn title(name: String, palette: Palette) -> Line<'static> {
    Line::styled(name, palette.heading())
}

fn fact(name: &str, value: impl Into<Span<'static>>, palette: Palette) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<NAMES$} "), palette.faint()), value.into()])
}

fn service_lines(service: &ServiceStatus, palette: Palette, lines: &mut Vec<Line<'static>>) {
    lines.push(title(clean(&service.name), palette));
    lines.push(fact("listens", clean(&service.listen), palette));
    let how = format!("{}, {}", clean(&service.forward), clean(&service.balance));
    lines.push(fact("forwards", how, palette));
    let since = units::age(service.last_change_seconds);
    let state = format!("{} for {since}", clean(&service.state));
    lines.push(fact("state", Span::styled(state, palette.state(&service.state)), palette));
    if let Some(stage) = service.syn_flood.filter(|stage| stage.engaged) {
        let text =
            format!("engaged: {} SYNs/s; unknown clients are challenged", stage.syns_per_second);
        lines.push(fact("SYN flood", Span::styled(text, palette.state("DOWN")), palette));
    }
    let backends = &service.backends;
    let up = backends.iter().filter(|b| b.state.starts_with("UP") || b.state == "NOLB").count();
    lines.push(fact("backends", format!("{up} of {} UP", backends.len()), palette));
    let slots = service.slots;
    let all = slots.settled + slots.window + slots.harvest + slots.pinned;
    let phases = [(slots.window, "WINDOW"), (slots.harvest, "HARVEST"), (slots.pinned, "PINNED")];
    let moving: Vec<String> = phases
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, phase)| format!("{count} {phase}"))
        .collect();
    let ring = match moving.is_empty() {
        true => format!("all {all} slots settled"),
        false => format!("{} of {all} slots", moving.join(", ")),
    };
    lines.push(fact("ring", ring, palette));
}

fn backend_lines(
    service: &ServiceStatus,
    backend: &BackendStatus,
    palette: Palette,
    lines: &mut Vec<Line<'static>>,
) {
    let name = format!("{}/{}", clean(&service.name), clean(&backend.name));
    lines.push(title(name, palette));
    lines.push(fact("address", clean(&backend.address), palette));
    let state =
        format!("{} for {}", clean(&backend.state), units::age(backend.last_change_seconds));
    let mut line = fact("state", Span::styled(state, palette.state(&backend.state)), palette);
    line.push_span(Span::raw(", "));
    line.push_span(Span::styled(clean(&backend.admin), palette.state(&backend.admin)));
    lines.push(line);
    let weight = match backend.weight == backend.configured_weight {
        true => backend.weight.to_string(),
        false => format!("{} (file {})", backend.weight, backend.configured_weight),
    };
    let owns = format!("{weight}, {} slots, {} pinned flows", backend.slots, backend.pins);
    lines.push(fact("weight", owns, palette));
    lines.push(fact("check", check(backend), palette));
    if let Some(checks) = &backend.checks {
        let text = format!(
            "{} failed while UP, went DOWN {} times, {} DOWN in all",
            checks.failed,
            checks.downs,
            units::age(checks.down_seconds)
        );
        lines.push(fact("checks", text, palette));
    }
    let next_hop = Span::styled(clean(&backend.next_hop), palette.state(&backend.next_hop));
    lines.push(fact("next hop", next_hop, palette));
}

/// What is known of some backends only.
fn measured_lines(counted: &BackendStats, palette: Palette, lines: &mut Vec<Line<'static>>) {
    if let Some(connections) = counted.connections {
        let text = format!("{} active, {} inactive", connections.active, connections.inactive);
        lines.push(fact("connected", text, palette));
    }
    if let Some(times) = counted.handshake.as_ref().filter(|times| times.count > 0) {
        let mean = 1e3 * times.sum_seconds / times.count as f64;
        let text = format!("{mean:.2}ms on average of {} seen", times.count);
        lines.push(fact("handshake", text, palette));
    }
}

/// The same words as in `lb status`, uncut.
fn check(backend: &BackendStatus) -> String {
    if backend.check.is_empty() {
        return "none".to_owned();
    }
    let mut text = format!("{} {}", clean(&backend.check), clean(&backend.check_output));
    if let Some(milliseconds) = backend.check_milliseconds {
        text.push_str(&format!(" in {milliseconds:.1}ms"));
    }
    text
}

fn why(model: &Model, palette: Palette, lines: &mut Vec<Line<'static>>) {
    lines.push(title("Dropped and answered packets of the service".to_owned(), palette));
    let Some(why) = &model.why else {
        lines.push(Line::styled("asking...", palette.faint()));
        return;
    };
    let reasons: Vec<&WhyReason> = why.services.iter().flat_map(|s| &s.reasons).collect();
    if reasons.is_empty() {
        lines.push(Line::from("nothing dropped, nothing answered"));
    }
    for reason in reasons {
        let kind = if reason.drop { "dropped" } else { "not dropped" };
        let style = if reason.drop { palette.alarm() } else { palette.plain() };
        let head = format!("{} {}, {kind}", reason.count, clean(&reason.name));
        lines.push(Line::styled(head, style));
        lines.push(Line::from(format!("  {}", clean(&reason.text))));
        if !reason.remedy.is_empty() {
            lines.push(Line::from(format!("  {}", clean(&reason.remedy))));
        }
        if let Some(sample) = reason.samples.first() {
            let age = units::age(sample.seconds_ago as u64);
            let text = format!("  {age} ago: {}", clean(&sample.packet));
            lines.push(Line::styled(text, palette.faint()));
        }
    }
}

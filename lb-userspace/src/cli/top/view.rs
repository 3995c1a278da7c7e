//! The picture of a model. Pure: what is not in the model is not shown.

mod detail;
mod events;
mod help;
mod list;
mod others;
mod spark;

use std::time::Instant;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    history::Rate,
    model::{Input, Model, Page, Place},
    palette::Palette,
};
use crate::cli::{output::clean, units};

/// Lines of the pane of events, its heading included: on a low terminal, and on a high one.
const EVENT_LINES: (u16, u16) = (4, 8);
/// A terminal with this many lines is high.
const HIGH: u16 = 30;
/// Terminals with fewer lines have no room for it.
const LINES_FOR_EVENTS: u16 = 20;

/// Draws everything.
pub fn draw(model: &Model, palette: Palette, now: Instant, frame: &mut Frame<'_>) {
    let area = frame.area();
    let head = head(model, palette, now, area.width);
    let has_events = model.show_events && area.height >= LINES_FOR_EVENTS;
    let [top, body, pane, foot] = Layout::vertical([
        Constraint::Length(head.len() as u16),
        Constraint::Min(1),
        Constraint::Length(match (has_events, area.height >= HIGH) {
            (false, _) => 0,
            (true, false) => EVENT_LINES.0,
            (true, true) => EVENT_LINES.1,
        }),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    match &model.page {
        Page::List => list::draw(model, palette, frame, body),
        Page::Detail(place, scroll) => detail::draw(model, place, *scroll, palette, frame, body),
    }
    events::draw(model, palette, frame, pane);
    frame.render_widget(Paragraph::new(footer(model, palette)), foot);
    if model.input == Input::Help {
        help::draw(palette, frame, area);
    }
}

/// Version and totals, and above all what is wrong.
fn head(model: &Model, palette: Palette, now: Instant, width: u16) -> Vec<Line<'static>> {
    let status = &model.status;
    let mut lines = Vec::new();
    let backends = || status.services.iter().flat_map(|service| &service.backends);
    let up = backends().filter(|b| b.state.starts_with("UP") || b.state == "NOLB").count();
    let all = backends().count();
    let state = if up == all { palette.good() } else { palette.alarm() };
    lines.push(Line::from(vec![
        Span::styled(format!("lb {}", clean(&status.version)), palette.heading()),
        Span::raw(format!("  up {}  ", units::age(status.uptime_seconds))),
        Span::styled(format!("{up}/{all} backends UP"), state),
        Span::raw(format!("  revision {}", status.revision)),
        Span::raw(if status.starting { "  starting" } else { "" }),
    ]));
    lines.push(Line::from(totals(model, width)));
    lines.extend(others::line(status, palette));
    if let Some(why) = &model.away {
        let age = model.at.map_or(0, |at| now.saturating_duration_since(at).as_secs());
        let age = units::age(age);
        lines.push(alarm(format!("NO ANSWER for {age}, trying again: {}", clean(why)), palette));
    }
    if status.config_error.is_some() {
        lines.push(alarm("INVALID CONFIGURATION on disk, see `lb status`".to_owned(), palette));
    }
    if let Some(warning) = status.warnings.first() {
        let more = match status.warnings.len() {
            1 => String::new(),
            count => format!(" (and {} more, see `lb status`)", count - 1),
        };
        lines.push(alarm(format!("WARNING {}{more}", clean(warning)), palette));
    }
    lines
}

fn alarm(text: String, palette: Palette) -> Line<'static> {
    Line::styled(text, palette.alarm())
}

/// Sums over all services, drops that belong to none included.
fn totals(model: &Model, width: u16) -> String {
    let services = model.status.services.iter().map(|service| service.name.clone());
    let mut sum = Rate::default();
    let mut known = false;
    for service in services.chain([String::new()]) {
        let Some(rate) = model.history.rate(&Place { service, backend: None }) else { continue };
        known = true;
        sum.packets += rate.packets;
        sum.bits += rate.bits;
        sum.flows += rate.flows;
        sum.drops += rate.drops;
    }
    if !known {
        return "rates come with the second look".to_owned();
    }
    let number = |value: f64| units::count(value.round());
    let (packets, bits) = (number(sum.packets), number(sum.bits));
    let (flows, drops) = (number(sum.flows), number(sum.drops));
    match width {
        0..60 => format!("{packets}p/s {bits}b/s {flows} new/s {drops} dropped/s"),
        _ => format!("{packets} packets/s  {bits}bit/s  {flows} new flows/s  {drops} drops/s"),
    }
}

/// A question, what came of the last change, or the keys.
fn footer(model: &Model, palette: Palette) -> Line<'static> {
    match &model.input {
        Input::Confirm(change) => {
            let name = format!("{}/{}", clean(&change.service), clean(&change.backend));
            let question = match change.set.admin.as_deref() {
                Some("drain") => format!("Drain {name}: no new flows, open ones stay. y/n?"),
                Some("maint") => format!("Take {name} out: its flows move NOW. y/n?"),
                _ => format!("Make {name} ready for new flows. y/n?"),
            };
            return Line::styled(question, palette.selected());
        }
        Input::Weight(place, text) => {
            let backend = clean(place.backend.as_deref().unwrap_or_default());
            let question =
                format!("Weight of {}/{backend} (0-256): {text}_", clean(&place.service));
            let error = match &model.notice {
                Some(Err(error)) => format!("  {}", clean(error)),
                _ => String::new(),
            };
            return Line::styled(question + &error, palette.selected());
        }
        Input::Filter(_) => {
            return Line::styled(format!("Filter: {}_", clean(&model.filter)), palette.selected());
        }
        Input::Page | Input::Help => {}
    }
    match &model.notice {
        Some(Ok(text)) => return Line::styled(clean(text), palette.good()),
        Some(Err(text)) => {
            return Line::styled(format!("REFUSED: {}", clean(text)), palette.alarm());
        }
        None => {}
    }
    let keys = match model.page {
        Page::List => {
            "? keys  q end  Enter look  s sort  / filter  d drain  r ready  m maint  w weight"
        }
        Page::Detail(..) => "Esc back  ? keys  q end  d drain  r ready  m maint  w weight",
    };
    Line::styled(keys, palette.faint())
}

/// The words of a rate for tables and pages; `-` where it is not known.
fn rate_text(rate: Option<Rate>, value: impl Fn(&Rate) -> f64) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| units::count(value(&rate).round()))
}

/// The middle of an area, at most so wide and high.
fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    Rect { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent};
    use ratatui::{Terminal, backend::TestBackend, style::Color};

    use super::*;
    use crate::api::types::{Connections, Histogram};
    use crate::cli::top::{model::Message, testing, update::update};

    fn terminal(model: &Model, palette: Palette) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
        let now = model.at.unwrap_or_else(Instant::now);
        terminal.draw(|frame| draw(model, palette, now, frame)).unwrap();
        terminal
    }

    fn lines(model: &Model) -> Vec<String> {
        let terminal = terminal(model, Palette::PLAIN);
        let buffer = terminal.backend().buffer();
        let line = |y| (0..model.size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..model.size.1).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn press(model: &mut Model, keys: &str) {
        for key in keys.chars() {
            let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
            update(model, Message::Key(KeyEvent::from(code)));
        }
    }

    fn has(lines: &[String], text: &str) -> bool {
        lines.iter().any(|line| line.contains(text))
    }

    #[test]
    fn the_list_fits_eighty_columns() {
        let model = testing::model();
        let seen = lines(&model);
        let expected = "\
lb 0.1.0  up 1m05s  2/3 backends UP  revision 3
90.0k packets/s  720Mbit/s  9.00k new flows/s  600 drops/s
NAME            STATE     ADMIN   WGT  SHARE  PKT/S  BIT/S  NEW/S DROP/S   TREND
web             UP                            60.0k   480M  6.00k    300      ▃█
  web1          UP        ready   100  50.0%  30.0k   240M  3.00k      -      ▃█
  web2          DOWN 1/2  ready   100  50.0%  30.0k   240M  3.00k      -      ▃█
dns             UP                            30.0k   240M  3.00k    300      ▃█
  ns1           UP        ready   100  50.0%  30.0k   240M  3.00k      -      ▃█";
        assert_eq!(seen[..8].join("\n"), expected, "\n{}", seen.join("\n"));
        assert!(has(&seen, "web/web2 is DOWN  (L7STS 503)"), "{seen:#?}");
        assert!(seen[23].starts_with("? keys  q end"), "{seen:#?}");
    }

    #[test]
    fn forty_columns_show_what_matters_most() {
        let mut model = testing::model();
        model.size = (40, 20);
        let seen = lines(&model);
        assert!(has(&seen, "60.0k") && has(&seen, "DOWN 1/2") && has(&seen, "ready"), "{seen:#?}");
        assert!(has(&seen, "90.0kp/s 720Mb/s"), "{seen:#?}");
        press(&mut model, "j\n");
        assert!(has(&lines(&model), "L7OK"), "{:#?}", lines(&model));
        press(&mut model, "?");
        assert!(has(&lines(&model), "drain the backend"), "{:#?}", lines(&model));
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        let mut model = testing::model();
        for size in [(1, 1), (3, 2), (10, 4), (200, 3), (20, 60)] {
            model.size = size;
            for keys in ["?", "q", "j\n", "d", "n", "h", "/", "\n"] {
                press(&mut model, keys);
                lines(&model);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_above_all() {
        let mut model = testing::model();
        model.status.config_error = Some("lb.yaml:1:1: no".into());
        model.status.warnings = vec!["eth1: no such NIC".into(), "more".into()];
        update(&mut model, Message::Away("lb is not running".into()));
        let seen = lines(&model);
        assert!(
            seen[2].starts_with("NO ANSWER for 0s, trying again: lb is not running"),
            "{seen:#?}"
        );
        assert!(seen[3].starts_with("INVALID CONFIGURATION"), "{seen:#?}");
        assert!(seen[4].starts_with("WARNING eth1: no such NIC (and 1 more"), "{seen:#?}");
        assert!(has(&seen, "web1"), "the last known state stays: {seen:#?}");
    }

    #[test]
    fn a_backend_is_explained_without_playing_with_the_terminal() {
        let mut model = testing::model();
        model.size = (80, 40);
        let counted = &mut model.stats.services[0].backends[1];
        counted.connections = Some(Connections { active: 12, inactive: 3 });
        counted.handshake = Some(Histogram { count: 4, sum_seconds: 0.002, buckets: vec![] });
        press(&mut model, "jj\n");
        model.why = Some(testing::why());
        let seen = lines(&model);
        for text in [
            "web/web2",
            "10.0.0.12:80",
            "DOWN 1/2 for 2h03m, ready",
            "L7STS 503 \\u{1b}[31mgone in 1.2ms",
            "eth0 via 10.0.0.1",
            "3 failed while UP, went DOWN 1 times, 1m05s DOWN in all",
            "12 active, 3 inactive",
            "0.50ms on average of 4 seen",
            "12 not_allowed",
            "add its prefix",
            "198.51.100.7:4711 > 192.0.2.10:80",
            "web/web2 is DOWN",
        ] {
            assert!(has(&seen, text), "{text}\n{}", seen.join("\n"));
        }
    }

    #[test]
    fn a_service_page_tells_of_its_ring_and_drops() {
        let mut model = testing::model();
        press(&mut model, "\n");
        model.why = Some(testing::why());
        let seen = lines(&model);
        for text in ["192.0.2.10:80/tcp", "nat", "20 WINDOW of 1021", "not_allowed"] {
            assert!(has(&seen, text), "{text}\n{}", seen.join("\n"));
        }
    }

    #[test]
    fn questions_stand_where_keys_were() {
        let mut model = testing::model();
        press(&mut model, "jd");
        assert!(lines(&model)[23].starts_with("Drain web/web1: no new flows"), "{model:?}");
        press(&mut model, "nw12");
        assert!(lines(&model)[23].contains("(0-256): 12_"), "{model:?}");
        press(&mut model, "9\n");
        update(&mut model, Message::Done(Err("no".into())));
        assert_eq!(lines(&model)[23], "REFUSED: no");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let model = testing::model();
        let coloured = |palette| {
            let terminal = terminal(&model, palette);
            let cells = terminal.backend().buffer().content();
            cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(!coloured(Palette::PLAIN));
        assert!(coloured(Palette::COLOURED));
    }

    #[test]
    fn a_thousand_backends_scroll_with_the_selection() {
        let mut model = testing::model();
        let mut status = testing::status();
        let backend = status.services[0].backends[0].clone();
        status.services[0].backends = (0..1000)
            .map(|number| {
                let name = format!("web{number}");
                crate::api::types::BackendStatus { name, ..backend.clone() }
            })
            .collect();
        model.status = status;
        press(&mut model, "G");
        let seen = lines(&model);
        assert!(has(&seen, "ns1") && has(&seen, "web999") && !has(&seen, "web1 "), "{seen:#?}");
        press(&mut model, "g");
        assert!(has(&lines(&model), "web0"), "{:#?}", lines(&model));
    }
}

//! What keys do. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    model::{Change, Effect, Input, Model, Page, Place},
    rows::Sort,
    update::follow_selection,
};
use crate::api::types::SetBackend;

/// All keys of the pages, for the help.
pub const HELP: [(&str, &str); 14] = [
    ("up down, k j", "move; PgUp PgDn by a page, Home End to the ends"),
    ("Enter, right, l", "look into a service or backend"),
    ("Esc, left, h", "go back"),
    ("d", "drain the backend: no new flows, its old ones stay"),
    ("r", "make the backend ready again"),
    ("m", "take the backend out: its flows move at once"),
    ("w", "set the backend's weight"),
    ("s", "sort by the next column"),
    ("S", "sort the other way round"),
    ("/", "show only what has a text in its name, address or state"),
    ("e", "show or hide the events"),
    ("Space", "look at the daemon now"),
    ("?", "show or hide these keys"),
    ("q, Ctrl-C", "end"),
];

/// One key.
pub fn press(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return vec![Effect::Quit];
    }
    // A notice has been read when the next key is pressed.
    model.notice = None;
    match std::mem::take(&mut model.input) {
        Input::Page => page(model, key.code),
        Input::Help => Vec::new(),
        Input::Filter(before) => filter(model, before, key.code),
        Input::Weight(place, text) => weight(model, place, text, key.code),
        Input::Confirm(change) => confirm(model, change, key.code),
    }
}

fn page(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    match key {
        KeyCode::Char('q') => return vec![Effect::Quit],
        KeyCode::Char('?') => model.input = Input::Help,
        KeyCode::Char('e') => model.show_events = !model.show_events,
        KeyCode::Char(' ') => return vec![Effect::Look],
        KeyCode::Char('d') => ask(model, "drain"),
        KeyCode::Char('r') => ask(model, "ready"),
        KeyCode::Char('m') => ask(model, "maint"),
        KeyCode::Char('w') => ask_weight(model),
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => back(model),
        KeyCode::Up | KeyCode::Char('k') => go(model, -1),
        KeyCode::Down | KeyCode::Char('j') => go(model, 1),
        KeyCode::PageUp => go(model, -page_length(model)),
        KeyCode::PageDown => go(model, page_length(model)),
        KeyCode::Home | KeyCode::Char('g') => go(model, isize::MIN),
        KeyCode::End | KeyCode::Char('G') => go(model, isize::MAX),
        _ if model.page == Page::List => return list(model, key),
        _ => {}
    }
    Vec::new()
}

/// Keys that only the list knows.
fn list(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    match key {
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => {
            if let Some(place) = model.selected.clone() {
                (model.page, model.why) = (Page::Detail(place, 0), None);
                return vec![Effect::Look];
            }
        }
        KeyCode::Char('s') => sort(model, model.sort.next()),
        KeyCode::Char('S') => sort(model, Sort { reversed: !model.sort.reversed, ..model.sort }),
        KeyCode::Char('/') => model.input = Input::Filter(model.filter.clone()),
        _ => {}
    }
    follow_selection(model);
    Vec::new()
}

/// Says it, too: the column may be one that there is no room for.
fn sort(model: &mut Model, sort: Sort) {
    let reversed = if sort.reversed { ", reversed" } else { "" };
    model.sort = sort;
    model.notice = Some(Ok(format!("sorted by {}{reversed}", sort.column.name())));
}

fn back(model: &mut Model) {
    match model.page {
        Page::Detail(..) => model.page = Page::List,
        // In the list, the filter is what there is to leave.
        Page::List => {
            model.filter.clear();
            follow_selection(model);
        }
    }
}

fn go(model: &mut Model, by: isize) {
    if let Page::Detail(_, scroll) = &mut model.page {
        // The view knows where the text ends.
        *scroll = (*scroll as isize).saturating_add(by).clamp(0, 1_000) as u16;
        return;
    }
    let last = model.rows().len().saturating_sub(1);
    let index = (model.selected_index as isize).saturating_add(by).clamp(0, last as isize);
    (model.selected, model.selected_index) = (None, index as usize);
    follow_selection(model);
}

/// Lines that a page key moves by.
fn page_length(model: &Model) -> isize {
    (model.size.1 as isize - 12).max(3)
}

fn ask(model: &mut Model, admin: &str) {
    match backend(model) {
        Ok(place) => {
            let set = SetBackend { admin: Some(admin.to_owned()), weight: None };
            model.input = Input::Confirm(change(place, set));
        }
        Err(why) => model.notice = Some(Err(why)),
    }
}

fn ask_weight(model: &mut Model) {
    match backend(model) {
        Ok(place) => model.input = Input::Weight(place, String::new()),
        Err(why) => model.notice = Some(Err(why)),
    }
}

fn backend(model: &Model) -> Result<Place, String> {
    match model.target() {
        Some(place) if place.backend.is_some() => Ok(place.clone()),
        _ => Err("that is for a backend: go to one first".to_owned()),
    }
}

fn change(place: Place, set: SetBackend) -> Change {
    Change { service: place.service, backend: place.backend.unwrap_or_default(), set }
}

fn confirm(model: &mut Model, change: Change, key: KeyCode) -> Vec<Effect> {
    match key {
        KeyCode::Char('y' | 'Y') => return vec![Effect::Set(change)],
        KeyCode::Char('n' | 'N') | KeyCode::Esc => {
            model.notice = Some(Ok("nothing was changed".to_owned()));
        }
        // Whatever was meant, it was no answer.
        _ => model.input = Input::Confirm(change),
    }
    Vec::new()
}

fn filter(model: &mut Model, before: String, key: KeyCode) -> Vec<Effect> {
    match key {
        KeyCode::Enter => {}
        KeyCode::Esc => model.filter = before,
        _ => {
            edit(&mut model.filter, key, |character| !character.is_control());
            model.input = Input::Filter(before);
        }
    }
    follow_selection(model);
    Vec::new()
}

fn weight(model: &mut Model, place: Place, mut text: String, key: KeyCode) -> Vec<Effect> {
    match key {
        KeyCode::Esc => {
            model.notice = Some(Ok("nothing was changed".to_owned()));
            Vec::new()
        }
        KeyCode::Enter => match text.parse::<u16>() {
            Ok(weight @ 0..=256) => {
                vec![Effect::Set(change(place, SetBackend { admin: None, weight: Some(weight) }))]
            }
            _ => {
                model.notice = Some(Err("a weight is a number from 0 to 256".to_owned()));
                model.input = Input::Weight(place, text);
                Vec::new()
            }
        },
        _ => {
            edit(&mut text, key, |character| character.is_ascii_digit());
            model.input = Input::Weight(place, text);
            Vec::new()
        }
    }
}

/// The longest text that is typed.
const LONGEST: usize = 60;

fn edit(text: &mut String, key: KeyCode, fits: impl Fn(char) -> bool) {
    match key {
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char(character) if fits(character) && text.chars().count() < LONGEST => {
            text.push(character);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::{rows::Column, testing};

    fn type_keys(model: &mut Model, keys: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            effects.extend(press(model, KeyEvent::from(code)));
        }
        effects
    }

    fn set(admin: Option<&str>, weight: Option<u16>) -> Effect {
        Effect::Set(Change {
            service: "web".into(),
            backend: "web1".into(),
            set: SetBackend { admin: admin.map(str::to_owned), weight },
        })
    }

    #[test]
    fn nothing_is_changed_without_a_yes() {
        let mut model = testing::model();
        assert_eq!(type_keys(&mut model, "jdn"), []);
        assert_eq!(model.notice, Some(Ok("nothing was changed".into())));
        assert_eq!(type_keys(&mut model, "dxq\nj"), [], "no answer");
        assert!(matches!(model.input, Input::Confirm(_)));
        assert_eq!(type_keys(&mut model, "y"), [set(Some("drain"), None)]);
        assert_eq!(model.input, Input::Page);
        assert_eq!(type_keys(&mut model, "my"), [set(Some("maint"), None)]);
        assert_eq!(type_keys(&mut model, "ry"), [set(Some("ready"), None)]);
    }

    #[test]
    fn a_service_is_not_drained() {
        let mut model = testing::model();
        assert_eq!(type_keys(&mut model, "d"), []);
        assert!(model.notice.as_ref().is_some_and(Result::is_err), "{:?}", model.notice);
        assert_eq!(type_keys(&mut model, "y"), []);
    }

    #[test]
    fn weights_are_typed_and_checked() {
        let mut model = testing::model();
        assert_eq!(type_keys(&mut model, "jw12x\x083\n"), [set(None, Some(13))]);
        assert_eq!(type_keys(&mut model, "w300\n"), []);
        assert!(model.notice.as_ref().is_some_and(Result::is_err), "{:?}", model.notice);
        assert_eq!(type_keys(&mut model, "\x08\n"), [set(None, Some(30))]);
        assert_eq!(type_keys(&mut model, "w7\x1b"), []);
        assert_eq!(model.input, Input::Page);
    }

    #[test]
    fn moving_ends_at_the_ends() {
        let mut model = testing::model();
        type_keys(&mut model, "k");
        assert_eq!(model.selected_index, 0);
        type_keys(&mut model, "jjjjjjjjjj");
        assert_eq!(model.selected_index, 4);
        type_keys(&mut model, "g");
        assert_eq!(model.selected_index, 0);
        type_keys(&mut model, "G");
        assert_eq!(model.selected_index, 4);
    }

    #[test]
    fn the_filter_is_applied_while_it_is_typed() {
        let mut model = testing::model();
        type_keys(&mut model, "/web2");
        let shown = model.rows().iter().filter_map(|row| row.place.backend.clone()).count();
        assert_eq!(shown, 1);
        type_keys(&mut model, "\x1b");
        assert_eq!((model.filter.as_str(), model.rows().len()), ("", 5));
        type_keys(&mut model, "/dns\nq");
        assert_eq!(model.filter, "dns");
        type_keys(&mut model, "\x1b");
        assert_eq!(model.filter, "");
    }

    #[test]
    fn pages_are_opened_and_left() {
        let mut model = testing::model();
        assert_eq!(type_keys(&mut model, "j\n"), [Effect::Look]);
        assert_eq!(model.question().why.as_deref(), Some("web"));
        type_keys(&mut model, "jjj");
        assert!(matches!(&model.page, Page::Detail(place, 3) if place.backend.is_some()));
        assert_eq!(type_keys(&mut model, "dy"), [set(Some("drain"), None)]);
        type_keys(&mut model, "\x1b");
        assert_eq!((&model.page, model.selected_index), (&Page::List, 1));
    }

    #[test]
    fn sorting_help_events_and_the_end() {
        let mut model = testing::model();
        type_keys(&mut model, "s");
        assert_eq!(model.sort.column, Column::Name);
        type_keys(&mut model, "S");
        assert!(model.sort.reversed);
        type_keys(&mut model, "?");
        assert_eq!(model.input, Input::Help);
        type_keys(&mut model, "q");
        assert_eq!(model.input, Input::Page, "any key ends the help");
        type_keys(&mut model, "e");
        assert!(!model.show_events);
        assert_eq!(type_keys(&mut model, "q"), [Effect::Quit]);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        model.input = Input::Filter(String::new());
        assert_eq!(press(&mut model, interrupt), [Effect::Quit]);
    }
}

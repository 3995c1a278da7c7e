//! How one message changes the model. Pure.

use super::{
    keys,
    model::{EVENTS, Effect, Input, Message, Model, Page, Sample},
};

/// Takes a message; says what is to be done.
pub fn update(model: &mut Model, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) => return keys::press(model, key),
        Message::Resize(width, height) => model.size = (width, height),
        Message::Away(why) => model.away = Some(why),
        Message::Sample(sample) => take(model, *sample),
        Message::Done(result) => {
            model.notice = Some(result);
            return vec![Effect::Look];
        }
    }
    Vec::new()
}

fn take(model: &mut Model, sample: Sample) {
    let Sample { at, status, stats, events, why } = sample;
    model.away = None;
    model.history.add(at, &stats);
    (model.status, model.stats, model.at) = (status, stats, Some(at));
    if events.last < model.last_event {
        // Another log: lb was detached and started anew. Its events have been sent from the first.
        model.events.clear();
    }
    model.last_event = events.events.last().map_or(events.last, |event| event.id);
    model.events.extend(events.events);
    let more = model.events.len().saturating_sub(EVENTS);
    model.events.drain(..more);
    // An answer to an earlier question, asked before a page was opened, has none.
    if why.is_some() || model.page == Page::List {
        model.why = why;
    }
    leave_what_is_gone(model);
    follow_selection(model);
}

/// A page or a question about what no longer exists is closed.
fn leave_what_is_gone(model: &mut Model) {
    let Page::Detail(place, _) = &model.page else { return };
    let exists = match place.backend {
        None => model.service(&place.service).is_some(),
        Some(_) => model.backend(place).is_some(),
    };
    if !exists {
        let name = match &place.backend {
            None => place.service.clone(),
            Some(backend) => format!("{}/{backend}", place.service),
        };
        model.notice = Some(Err(format!("{name} is gone")));
        (model.page, model.input) = (Page::List, Input::Page);
    }
}

/// The selection stays with its service or backend wherever sorting puts it; if that is gone, with the row at its place.
pub fn follow_selection(model: &mut Model) {
    let rows = model.rows();
    let same = |place| rows.iter().position(|row| Some(&row.place) == Option::from(place));
    let index = model
        .selected
        .as_ref()
        .and_then(same)
        .unwrap_or_else(|| model.selected_index.min(rows.len().saturating_sub(1)));
    let place = rows.get(index).map(|row| row.place.clone());
    (model.selected, model.selected_index) = (place, index);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        api::types::{Event, Events},
        cli::top::{model::Place, testing},
    };

    fn sample(status: crate::api::types::Status, events: Events) -> Message {
        let stats = testing::stats(&status, 0);
        Message::Sample(Box::new(Sample { at: Instant::now(), status, stats, events, why: None }))
    }

    fn event(id: u64) -> Event {
        Event { id, ..Event::default() }
    }

    #[test]
    fn a_daemon_that_comes_back_is_no_longer_away() {
        let mut model = testing::model();
        update(&mut model, Message::Away("lb is not running".into()));
        assert_eq!(model.away.as_deref(), Some("lb is not running"));
        assert_eq!(model.status.services.len(), 2, "what was known is still shown");
        update(&mut model, sample(testing::status(), Events::default()));
        assert_eq!(model.away, None);
    }

    #[test]
    fn the_selection_follows_its_backend_and_survives_its_end() {
        let mut model = testing::model();
        model.selected = Some(Place { service: "web".into(), backend: Some("web2".into()) });
        let mut status = testing::status();
        status.services.reverse();
        update(&mut model, sample(status.clone(), Events::default()));
        let names = |model: &Model| model.selected.clone().unwrap();
        assert_eq!((names(&model).backend.as_deref(), model.selected_index), (Some("web2"), 4));
        status.services[1].backends.truncate(1);
        update(&mut model, sample(status, Events::default()));
        assert_eq!((names(&model).backend.as_deref(), model.selected_index), (Some("web1"), 3));
    }

    #[test]
    fn a_page_about_what_is_gone_is_left() {
        let mut model = testing::model();
        model.page = Page::Detail(Place { service: "web".into(), backend: Some("web2".into()) }, 0);
        let mut status = testing::status();
        status.services[0].backends.pop();
        update(&mut model, sample(status, Events::default()));
        assert_eq!(model.page, Page::List);
        assert_eq!(model.notice, Some(Err("web/web2 is gone".into())));
    }

    #[test]
    fn events_come_once_and_a_new_log_begins_anew() {
        let mut model = testing::model();
        let page = |ids: &[u64], last| Events {
            events: ids.iter().map(|id| event(*id)).collect(),
            last,
            lost: 0,
        };
        update(&mut model, sample(testing::status(), page(&[7, 8], 8)));
        assert_eq!(model.question().events_after, 8);
        update(&mut model, sample(testing::status(), page(&[], 8)));
        update(&mut model, sample(testing::status(), page(&[9], 9)));
        let ids = |model: &Model| model.events.iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(ids(&model), [1, 7, 8, 9]);
        update(&mut model, sample(testing::status(), page(&[1, 2], 2)));
        assert_eq!((ids(&model), model.last_event), (vec![1, 2], 2));
    }

    #[test]
    fn what_came_of_a_change_is_said_and_looked_at() {
        let mut model = testing::model();
        let effects = update(&mut model, Message::Done(Err("no backend `x`".into())));
        assert_eq!(effects, [Effect::Look]);
        assert_eq!(model.notice, Some(Err("no backend `x`".into())));
    }
}

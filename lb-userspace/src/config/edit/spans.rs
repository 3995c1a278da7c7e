//! Where each value of a YAML text begins and ends, in bytes.

use saphyr_parser::{Event, Parser};

/// One value.
#[derive(Debug)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The first byte behind it.
    pub end: usize,
    /// It is an alias, or has an anchor: others have the same value.
    pub shared: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// Text.
    Scalar(String),
    /// A list.
    List(Vec<Span>),
    /// A mapping, in the order of the text.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// First byte of the key.
    pub start: usize,
    /// The value.
    pub value: Span,
}

/// The outermost value; `None` if the text is not what lb accepts as a file.
pub fn read(text: &str) -> Option<Span> {
    let without_mark = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skipped = text.len() - without_mark.len();
    // Marks count characters.
    let mut bytes: Vec<usize> =
        without_mark.char_indices().map(|(byte, _)| byte + skipped).collect();
    bytes.push(text.len());
    let place = |index: usize| bytes.get(index).copied().unwrap_or(text.len());

    let mut open: Vec<(Span, Option<(String, usize)>)> = Vec::new();
    let mut root = None;
    let mut parser = Parser::new_from_str(without_mark);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        let (start, end) = (place(span.start.index()), place(span.end.index()));
        let complete = match event {
            Event::Scalar(value, _, anchor, _) => {
                let end = start + text[start..end].trim_end().len();
                Span { start, end, shared: anchor != 0, kind: Kind::Scalar(value.into_owned()) }
            }
            Event::Alias(_) => Span { start, end, shared: true, kind: Kind::Scalar(String::new()) },
            Event::SequenceStart(anchor, _) => {
                let kind = Kind::List(Vec::new());
                open.push((Span { start, end: start, shared: anchor != 0, kind }, None));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                let kind = Kind::Mapping(Vec::new());
                open.push((Span { start, end: start, shared: anchor != 0, kind }, None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (mut closed, _) = open.pop()?;
                // One in brackets ends with its bracket, another with the last thing in it.
                if text[closed.start..].starts_with(['{', '[']) {
                    closed.end = end;
                }
                closed
            }
            _ => continue,
        };
        let Some((parent, key)) = open.last_mut() else {
            root = Some(complete);
            continue;
        };
        parent.end = parent.end.max(complete.end);
        match (&mut parent.kind, key.take(), complete) {
            (Kind::List(items), _, item) => items.push(item),
            (Kind::Mapping(entries), Some((name, start)), value) => {
                entries.push(Entry { key: name, start, value });
            }
            (Kind::Mapping(_), None, Span { kind: Kind::Scalar(name), start, .. }) => {
                *key = Some((name, start));
            }
            _ => return None,
        }
    }
    root
}

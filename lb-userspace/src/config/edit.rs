//! Changes single values in a YAML text and leaves everything else as it is, comments and order included.
//!
//! The same parser reads the text as for [`super::parse`]; what is replaced are the bytes between the marks that it sets.
//! Every edit is checked afterwards: the edited text, read again, has to be the tree that was wanted. What cannot be edited so (values
//! that others share by an anchor, unusual notations) is refused.

mod spans;
mod tree;

use self::spans::{Kind, Span};
use super::document::Document;

/// A value that is to be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where it is.
    pub path: Vec<Step>,
    /// What it is to be, from [`value`].
    pub value: String,
}

/// One step from the outermost value inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// The item of a list whose key `name` says this.
    Named(String),
}

impl Edit {
    /// Of a key (`check.path`) of a service, of one of its backends, or of the file as a whole.
    pub fn new(service: Option<&str>, backend: Option<&str>, key: &str, value: String) -> Self {
        let mut path = Vec::new();
        for (list, name) in [("services", service), ("backends", backend)] {
            if let Some(name) = name {
                path.extend([Step::Key(list.to_owned()), Step::Named(name.to_owned())]);
            }
        }
        path.extend(key.split('.').map(|key| Step::Key(key.to_owned())));
        Self { path, value }
    }
}

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A service or backend of this name is not in it.
    #[error("the file has no `{0}`")]
    Missing(String),
    /// What is in between is no mapping.
    #[error("`{0}` is not a mapping in the file: give it as a whole, such as {0}={{key: value}}")]
    NoMapping(String),
    /// It is an alias, or has an anchor.
    #[error(
        "the file shares this value with others by an anchor (`&` and `*`): change it there by hand"
    )]
    Shared,
    /// The result would be something else than what is wanted.
    #[error(
        "the notation of the file at this place is too unusual to be edited: change it there by hand"
    )]
    Unusual,
}

/// What the user gives as a value, in the notation that fits everywhere: lists and mappings in brackets, and text in quotes where it
/// needs them.
pub fn value(raw: &str) -> String {
    let raw = raw.trim();
    let collection = raw.starts_with(['[', '{', '"', '\'']);
    let fits = match tree::of_value(raw) {
        Some(value) if collection => !raw.is_empty() && value.is_whole(),
        Some(value) => value.is_plain(raw),
        None => false,
    };
    match fits {
        true => raw.to_owned(),
        false => serde_json::Value::from(raw).to_string(),
    }
}

/// The text with all of these changes, one after the other.
pub fn edit(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut edited = text.to_owned();
    let mut wanted = match Document::read(text) {
        Ok(document) => tree::Tree::of(&document.root),
        Err(_) => return Err(EditError::Unusual),
    };
    for one in edits {
        edited = apply(&edited, one)?;
        wanted.set(&one.path, &one.value).ok_or(EditError::Unusual)?;
    }
    match Document::read(&edited) {
        Ok(document) if tree::Tree::of(&document.root) == wanted => Ok(edited),
        _ => Err(EditError::Unusual),
    }
}

/// Whether there is such a service (and backend) in the text.
pub fn has(text: &str, service: &str, backend: Option<&str>) -> bool {
    let Some(root) = spans::read(text) else { return false };
    let edit = Edit::new(Some(service), backend, "name", String::new());
    let mut node = &root;
    edit.path.iter().all(|step| match find(node, step) {
        Some(inner) => {
            node = inner;
            true
        }
        None => false,
    })
}

fn find<'a>(node: &'a Span, step: &Step) -> Option<&'a Span> {
    match (&node.kind, step) {
        (Kind::Mapping(entries), Step::Key(key)) => {
            entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.value)
        }
        (Kind::List(items), Step::Named(name)) => {
            let named = |item: &&Span| {
                let found = find(item, &Step::Key("name".to_owned()));
                found.is_some_and(|found| matches!(&found.kind, Kind::Scalar(text) if text == name))
            };
            items.iter().find(named)
        }
        _ => None,
    }
}

fn apply(text: &str, edit: &Edit) -> Result<String, EditError> {
    let root = spans::read(text).ok_or(EditError::Unusual)?;
    let mut node = &root;
    for (number, step) in edit.path.iter().enumerate() {
        if node.shared {
            return Err(EditError::Shared);
        }
        match (find(node, step), step, &node.kind) {
            (Some(inner), ..) => node = inner,
            (None, Step::Named(name), _) => return Err(EditError::Missing(name.clone())),
            (None, Step::Key(key), Kind::Mapping(_)) => {
                let rest = nested(&edit.path[number + 1..], &edit.value)?;
                return Ok(insert(text, node, key, &rest));
            }
            (None, Step::Key(key), _) => {
                let parent = match number.checked_sub(1).map(|before| &edit.path[before]) {
                    Some(Step::Key(parent)) => parent.clone(),
                    _ => key.clone(),
                };
                return Err(EditError::NoMapping(parent));
            }
        }
    }
    if node.shared {
        return Err(EditError::Shared);
    }
    Ok(splice(text, node.start, node.end, &edit.value))
}

/// `{tcp: 5s}` for what is not there yet.
fn nested(rest: &[Step], value: &str) -> Result<String, EditError> {
    match rest {
        [] => Ok(value.to_owned()),
        [Step::Key(key), rest @ ..] => Ok(format!("{{{key}: {}}}", nested(rest, value)?)),
        [Step::Named(name), ..] => Err(EditError::Missing(name.clone())),
    }
}

fn insert(text: &str, mapping: &Span, key: &str, value: &str) -> String {
    let Kind::Mapping(entries) = &mapping.kind else { return text.to_owned() };
    let Some(first) = entries.first() else {
        return splice(text, mapping.start + 1, mapping.start + 1, &format!("{key}: {value}"));
    };
    if text[mapping.start..].starts_with('{') {
        let end = entries.last().unwrap_or(first).value.end;
        return splice(text, end, end, &format!(", {key}: {value}"));
    }
    let line_start = text[..first.start].rfind('\n').map_or(0, |newline| newline + 1);
    let indent = " ".repeat(text[line_start..first.start].chars().count());
    // Behind the last entry that is on one line, so that the new one is near those of its kind.
    let one_line =
        |entry: &&spans::Entry| !text[entry.start..entry.value.end].contains(['\n', '\r']);
    match entries.iter().rev().find(one_line) {
        Some(entry) => {
            let rest = &text[entry.value.end..];
            let end = entry.value.end + rest.find(['\r', '\n']).unwrap_or(rest.len());
            let line_break = if text[end..].starts_with("\r\n") { "\r\n" } else { "\n" };
            splice(text, end, end, &format!("{line_break}{indent}{key}: {value}"))
        }
        None => splice(text, first.start, first.start, &format!("{key}: {value}\n{indent}")),
    }
}

fn splice(text: &str, start: usize, end: usize, new: &str) -> String {
    [&text[..start], new, &text[end..]].concat()
}

#[cfg(test)]
mod tests;

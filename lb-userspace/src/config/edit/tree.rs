//! What a text says, without where and how: for telling whether an edit did what it should.

use std::collections::BTreeMap;

use super::{
    super::document::{Document, Node, NodeValue},
    Step,
};

/// A value without its places; the order of keys does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Text, and whether it is plain (and may be a number).
    Scalar(String, bool),
    /// A list.
    List(Vec<Tree>),
    /// A mapping.
    Mapping(BTreeMap<String, Tree>),
}

/// The value of a text for one key; `None` if it is not one whole value, in any place.
pub fn of_value(text: &str) -> Option<Tree> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    let read = |document: String| match Tree::of(&Document::read(&document).ok()?.root) {
        Tree::Mapping(mut entries) if entries.len() == 2 => {
            let next = entries.remove("w")?;
            (next == Tree::Scalar("1".to_owned(), true)).then_some(())?;
            entries.remove("v")
        }
        _ => None,
    };
    let flow = read(format!("{{v: {text}, w: 1}}"))?;
    (read(format!("v: {text}\nw: 1\n"))? == flow).then_some(flow)
}

impl Tree {
    /// Of a value that was read.
    pub fn of(node: &Node) -> Self {
        match &node.value {
            NodeValue::Scalar { text, plain } => Self::Scalar(text.to_string(), *plain),
            NodeValue::List(items) => Self::List(items.iter().map(Self::of).collect()),
            NodeValue::Mapping(entries) => Self::Mapping(
                entries
                    .iter()
                    .map(|entry| (entry.key.to_string(), Self::of(&entry.value)))
                    .collect(),
            ),
        }
    }

    /// Whether it was written in brackets or quotes to its end.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::Scalar(_, true))
    }

    /// Whether it is this text, without quotes.
    pub fn is_plain(&self, text: &str) -> bool {
        matches!(self, Self::Scalar(plain, true) if plain == text && !text.is_empty())
    }

    /// The same change as in the text; `None` if there is no such place.
    pub fn set(&mut self, path: &[Step], value: &str) -> Option<()> {
        let Some((step, rest)) = path.split_first() else {
            *self = of_value(value)?;
            return Some(());
        };
        match (self, step) {
            (Self::Mapping(entries), Step::Key(key)) => entries
                .entry(key.clone())
                .or_insert_with(|| Self::Mapping(BTreeMap::new()))
                .set(rest, value),
            (Self::List(items), Step::Named(name)) => {
                let named = |item: &&mut Self| match item {
                    Self::Mapping(entries) => {
                        matches!(entries.get("name"), Some(Self::Scalar(text, _)) if text == name)
                    }
                    _ => false,
                };
                items.iter_mut().find(named)?.set(rest, value)
            }
            _ => None,
        }
    }
}

//! A document against the shape of the file: unknown, missing and doubled keys, wrong types, words and bounds - all of
//! them, not the first.

use std::fmt::Write as _;

use serde_yaml::{Mapping, Value};

use super::{
    diagnostic::{Diagnostic, MAX_DIAGNOSTICS},
    document::{Document, Entry, Node, NodeValue, Position, Scalar},
    shape::{self, Key, Kind, Shape, Variant},
    value, words,
};

/// What of a document has the right shape, without what is unknown.
#[derive(Debug, Default)]
pub struct Checked {
    /// The top level without `services`, and without keys that are wrong.
    pub top: Mapping,
    /// The services; `None` = something in it is wrong.
    pub services: Vec<Option<Value>>,
    /// Keys of the top level whose values are wrong.
    pub wrong: Vec<String>,
    /// Everything found.
    pub errors: Vec<Diagnostic>,
}

/// Compares a document with the shape of the file.
pub fn check(document: &Document) -> Checked {
    let mut checked = Checked::default();
    let mut walk = Walk { path: String::new(), errors: Vec::new() };
    let Kind::Mapping(keys) = &shape::file().kind else { unreachable!("the file is a mapping") };
    if let NodeValue::Mapping(entries) = &document.root.value {
        walk.mapping(entries, document.root.at, keys, None, |walk, key, node| {
            match (&key.shape.kind, &node.value) {
                (Kind::List { item, least, most, .. }, NodeValue::List(items))
                    if key.name == "services" =>
                {
                    checked.services = walk.list(items, node.at, item, *least, *most).0;
                }
                _ => match walk.value(node, &key.shape) {
                    Some(value) => drop(checked.top.insert(key.name.as_str().into(), value)),
                    None => checked.wrong.push(key.name.clone()),
                },
            }
        });
    } else {
        walk.wrong_kind(&document.root, "a mapping", "begin with `services:`");
    }
    Checked { errors: walk.errors, ..checked }
}

/// Compares a document with the shape of `backends:` alone; `None` = something in it is wrong.
pub fn check_backends(document: &Document) -> (Option<Value>, Vec<Diagnostic>) {
    let keys = shape::all_keys();
    let backends = keys.iter().find(|(path, key)| path == "services[]" && key.name == "backends");
    let (_, backends) = backends.expect("services have backends");
    let mut walk = Walk { path: String::new(), errors: Vec::new() };
    let value = walk.value(&document.root, &backends.shape);
    (value, walk.errors)
}

struct Walk {
    /// Of the value in hand.
    path: String,
    errors: Vec<Diagnostic>,
}

impl Walk {
    /// The value as serde reads it; `None` = wrong, and said so.
    fn value(&mut self, node: &Node, shape: &Shape) -> Option<Value> {
        if node.scalar() == Some(Scalar::Null) {
            self.error(
                node.at,
                format!("{} has no value", self.place()),
                "give it one or remove it",
            );
            return None;
        }
        match (&shape.kind, &node.value) {
            (Kind::Mapping(keys) | Kind::Short(keys), NodeValue::Mapping(entries)) => {
                self.closed_mapping(entries, node.at, keys, None)
            }
            (Kind::Short(keys), NodeValue::Scalar { .. }) => {
                let first = &keys[0];
                let value = self.value(node, &first.shape)?;
                Some(Value::Mapping([(first.name.as_str().into(), value)].into_iter().collect()))
            }
            (Kind::Tagged { tag, variants }, NodeValue::Mapping(entries)) => {
                self.tagged(entries, node.at, tag, variants)
            }
            (Kind::Mapping(_) | Kind::Short(_) | Kind::Tagged { .. }, _) => {
                self.wrong_kind(node, "a mapping", "write `key: value` lines, indented below it")
            }
            (Kind::List { item, or_item: true, .. }, NodeValue::Scalar { .. }) => {
                Some(Value::Sequence(vec![self.value(node, item)?]))
            }
            (Kind::List { item, least, most, .. }, NodeValue::List(items)) => {
                let (items, good) = self.list(items, node.at, item, *least, *most);
                let items: Option<Vec<Value>> = items.into_iter().collect();
                items.filter(|_| good).map(Value::Sequence)
            }
            (Kind::List { .. }, NodeValue::Scalar { text, .. }) => {
                let help = format!("write a list: [{}]", clipped(text));
                self.wrong_kind(node, "a list", &help)
            }
            (Kind::List { .. }, NodeValue::Mapping(_)) => {
                self.wrong_kind(node, "a list", "begin each item with `- `")
            }
            (kind, NodeValue::Scalar { text, .. }) => self.scalar(node, text, kind),
            (_, NodeValue::List(_) | NodeValue::Mapping(_)) => {
                self.wrong_kind(node, "a single value", "write it behind the `:`")
            }
        }
    }

    fn scalar(&mut self, node: &Node, text: &str, kind: &Kind) -> Option<Value> {
        match (kind, node.scalar()?) {
            (Kind::Boolean, Scalar::Boolean(value)) => Some(Value::Bool(value)),
            (Kind::Boolean, _) => self.wrong_kind(node, "true or false", "write true or false"),
            (Kind::Integer { least, most }, Scalar::Integer(number)) => {
                if (*least..=*most).contains(&number) {
                    return Some(Value::Number(number.into()));
                }
                let message = format!("{number} in {} is out of bounds", self.place());
                self.error(node.at, message, format!("write a number from {least} to {most}"));
                None
            }
            (Kind::Integer { least, most }, _) => {
                let help = format!("write a number from {least} to {most}, without quotes");
                self.wrong_kind(node, "a whole number", &help)
            }
            (Kind::Word(words), _) => {
                if words.iter().any(|word| word == text) {
                    return Some(Value::String(text.to_owned()));
                }
                let key = self.path.rsplit('.').next().unwrap_or_default();
                let help = words::help_for_word(key, text, words);
                let message = format!("{} is not a value of {}", quoted(text), self.place());
                self.error(node.at, message, help);
                None
            }
            (Kind::Text { format, or_integer }, scalar) => {
                if let Some(wrong) = value::refuse(format, text) {
                    let message = format!("{} in {} {}", quoted(text), self.place(), wrong.what);
                    self.error(node.at, message, wrong.help);
                    return None;
                }
                match scalar {
                    Scalar::Text(text) => Some(Value::String(text.to_owned())),
                    Scalar::Integer(_) if *or_integer => Some(Value::String(text.to_owned())),
                    _ => self.wrong_kind(node, "text", &format!("put it in quotes: \"{text}\"")),
                }
            }
            (Kind::Mapping(_) | Kind::Short(_) | Kind::Tagged { .. } | Kind::List { .. }, _) => {
                None
            }
        }
    }

    /// Items and whether there are enough, and not too many, of them.
    fn list(
        &mut self,
        items: &[Node],
        at: Position,
        item: &Shape,
        least: usize,
        most: usize,
    ) -> (Vec<Option<Value>>, bool) {
        let good = (least..=most).contains(&items.len());
        if items.len() < least {
            let message = format!("{} is empty", self.place());
            self.error(at, message, format!("at least {least} has to be there"));
        } else if items.len() > most {
            let message = format!("{} has {} items", self.place(), items.len());
            self.error(at, message, format!("at most {most} are possible"));
        }
        let length = self.path.len();
        let values = items
            .iter()
            .enumerate()
            .map(|(index, node)| {
                // Writing to a String cannot fail.
                let _ = write!(self.path, "[{index}]");
                let value = self.value(node, item);
                self.path.truncate(length);
                value
            })
            .collect();
        (values, good)
    }

    fn tagged(
        &mut self,
        entries: &[Entry],
        at: Position,
        key: &Key,
        variants: &[Variant],
    ) -> Option<Value> {
        let (tag, kind) = (key.name.as_str(), &key.shape.kind);
        let Some(entry) = entries.iter().find(|entry| entry.key == tag) else {
            let message = format!("{} lacks the key `{tag}`", self.place());
            let names: Vec<_> = variants.iter().map(|variant| variant.name.as_str()).collect();
            self.error(at, message, format!("add `{tag}:` with one of {}", names.join(", ")));
            // With the longest variant, what else is unknown is said in the same go.
            let most = variants.iter().max_by_key(|variant| variant.keys.len())?;
            self.closed_mapping(entries, at, &most.keys, None);
            return None;
        };
        let length = self.path.len();
        self.path += &format!(".{tag}");
        let name = match &entry.value.value {
            NodeValue::Scalar { text, .. } => self.scalar(&entry.value, text, kind),
            _ => self.wrong_kind(&entry.value, "a single value", "write it behind the `:`"),
        };
        self.path.truncate(length);
        let name = name?;
        let variant = variants.iter().find(|variant| name == variant.name.as_str())?;
        self.foreign_keys(entries, tag, variant, variants);
        let mut value = self.closed_mapping(entries, at, &variant.keys, Some((tag, variants)))?;
        value.as_mapping_mut()?.insert(tag.into(), name);
        Some(value)
    }

    /// Keys that are another variant's.
    fn foreign_keys(
        &mut self,
        entries: &[Entry],
        tag: &str,
        variant: &Variant,
        variants: &[Variant],
    ) {
        for entry in entries {
            let has = |variant: &Variant| variant.keys.iter().any(|key| key.name == entry.key);
            let Some(other) = variants.iter().find(|other| has(other)) else { continue };
            if !has(variant) {
                let (key, name) = (&entry.key, &variant.name);
                let message =
                    format!("`{key}` in {} has no effect with {tag}: {name}", self.place());
                let help = format!("remove it, or write `{tag}: {}`", other.name);
                self.error(entry.at, message, help);
            }
        }
    }

    fn closed_mapping(
        &mut self,
        entries: &[Entry],
        at: Position,
        keys: &[Key],
        tagged: Option<(&str, &[Variant])>,
    ) -> Option<Value> {
        let mut values = Mapping::new();
        let mut good = true;
        let complete = self.mapping(entries, at, keys, tagged, |walk, key, node| {
            match walk.value(node, &key.shape) {
                Some(value) => drop(values.insert(key.name.as_str().into(), value)),
                None => good = false,
            }
        });
        (good && complete).then_some(Value::Mapping(values))
    }

    /// Calls `each` for every known key with the path at its value; whether all required keys are there.
    fn mapping(
        &mut self,
        entries: &[Entry],
        at: Position,
        keys: &[Key],
        tagged: Option<(&str, &[Variant])>,
        mut each: impl FnMut(&mut Self, &Key, &Node),
    ) -> bool {
        let length = self.path.len();
        for (index, entry) in entries.iter().enumerate() {
            if self.errors.len() >= MAX_DIAGNOSTICS {
                return false;
            }
            // Not many are looked at: each is a known key for the first time, or one of the errors there is room for.
            if let Some(first) = entries[..index].iter().find(|earlier| earlier.key == entry.key) {
                let (key, Position { line, column }) = (quoted(&entry.key), first.at);
                let message = format!(
                    "key {key} is there twice in {}, first in line {line}, column {column}",
                    self.place()
                );
                self.error(entry.at, message, "remove one of the two");
                continue;
            }
            if let Some(key) = keys.iter().find(|key| key.name == entry.key) {
                if length > 0 {
                    self.path.push('.');
                }
                self.path.push_str(&key.name);
                let null = entry.value.scalar() == Some(Scalar::Null);
                match null {
                    // The place of a value that is not there can be the next line: the key's is better.
                    true => each(self, key, &Node { at: entry.at, ..entry.value.clone() }),
                    false => each(self, key, &entry.value),
                }
                self.path.truncate(length);
            } else if !tagged.is_some_and(|(tag, variants)| is_any_key(entry, tag, variants)) {
                self.unknown(entry, keys);
            }
        }
        let mut complete = true;
        let is_there = |key: &Key| entries.iter().any(|entry| entry.key == key.name);
        for key in keys.iter().filter(|key| key.required && !is_there(key)) {
            complete = false;
            let name = &key.name;
            let message = format!("{} lacks the key `{name}`", self.place());
            self.error(at, message, format!("add `{name}:` ({})", first_sentence(key)));
        }
        complete
    }

    fn unknown(&mut self, entry: &Entry, keys: &[Key]) {
        let here: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let help = words::help_for_key(&self.path, &entry.key, &here);
        let place = match self.path.is_empty() {
            true => "at the top level".to_owned(),
            false => format!("in {}", self.path),
        };
        self.error(entry.at, format!("unknown key {} {place}", quoted(&entry.key)), help);
    }

    fn wrong_kind(&mut self, node: &Node, wanted: &str, help: &str) -> Option<Value> {
        let found = match (&node.value, node.scalar()) {
            (NodeValue::List(_), _) => "a list".to_owned(),
            (NodeValue::Mapping(_), _) => "a mapping".to_owned(),
            (_, Some(Scalar::Integer(_) | Scalar::Float)) => "a number".to_owned(),
            (_, Some(Scalar::Boolean(value))) => format!("the boolean {value}"),
            (NodeValue::Scalar { text, .. }, _) => format!("the text {}", quoted(text)),
        };
        self.error(node.at, format!("{} is {found}, not {wanted}", self.place()), help);
        None
    }

    fn error(&mut self, at: Position, message: impl Into<String>, help: impl Into<String>) {
        if self.errors.len() < MAX_DIAGNOSTICS {
            self.errors.push(Diagnostic::at(at, self.path.clone(), message, help));
        }
    }

    fn place(&self) -> &str {
        if self.path.is_empty() { "the file" } else { &self.path }
    }
}

/// The tag itself, or a key that [`Walk::foreign_keys`] has spoken of.
fn is_any_key(entry: &Entry, tag: &str, variants: &[Variant]) -> bool {
    entry.key == tag
        || variants.iter().flat_map(|variant| &variant.keys).any(|key| key.name == entry.key)
}

fn first_sentence(key: &Key) -> &str {
    let documentation = key.shape.documentation.as_str();
    let end = documentation.find([':', ';', '.']).unwrap_or(documentation.len());
    documentation[..end].trim()
}

/// Text of the file in a message: short, and without anything that a terminal would obey.
fn quoted(text: &str) -> String {
    format!("`{}`", clipped(text))
}

fn clipped(text: &str) -> String {
    const LONGEST: usize = 60;
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let mut clipped: String = text.chars().take(LONGEST).map(escape).collect();
    if text.chars().nth(LONGEST).is_some() {
        clipped += "...";
    }
    clipped
}

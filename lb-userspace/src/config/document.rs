//! A YAML text as a light tree in which every key and value knows its line and column.
//!
//! The text is read once, by this parser: values and positions cannot disagree. Everything is bounded, because a file
//! may be hostile: size, depth, and the number of values (aliases count as what they stand for).

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::diagnostic::Diagnostic;

/// Largest file that is read, bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
/// Most values in a file, aliases expanded.
pub const MAX_VALUES: usize = 2_000_000;

/// A place in the text, both from 1, columns in characters; 0, 0 = the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line() as u32, column: marker.col() as u32 + 1 }
    }
}

/// A whole text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The outermost value.
    pub root: Node,
}

/// One value.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: NodeValue,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub enum NodeValue {
    /// Text; `plain` = not quoted, so it may be a number, boolean or null.
    Scalar {
        /// The text without quotes.
        text: String,
        /// Not quoted.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys in the order of the file; a key may be there twice.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// Its value.
    pub value: Node,
}

/// A scalar by the rules of YAML 1.2's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number that is not whole (or does not fit).
    Float,
    /// Anything else.
    Text(&'a str),
}

impl Document {
    /// Reads a text.
    pub fn read(text: &str) -> Result<Self, Diagnostic> {
        if text.len() > MAX_BYTES {
            return Err(Diagnostic::of_file(
                format!("{} bytes are too many", text.len()),
                format!("at most {MAX_BYTES} bytes (64 MiB)"),
            ));
        }
        // Saphyr does not skip a byte order mark in front of a comment.
        Builder::default().build(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// Where `path` is, such as `services[0].listen.port`: a scalar by itself, a list or mapping by its key. What is
    /// not written is placed at the nearest thing around it that is.
    pub fn locate(&self, path: &str) -> Position {
        self.find(path).0
    }

    /// Whether the file says anything at exactly this path.
    pub fn is_written(&self, path: &str) -> bool {
        self.find(path).1
    }

    fn find(&self, path: &str) -> (Position, bool) {
        let mut node = &self.root;
        let mut at = node.at;
        for step in steps(path) {
            let next = match (step, &node.value) {
                (Step::Key(key), NodeValue::Mapping(entries)) => {
                    entries.iter().find(|entry| entry.key == key).map(|e| (e.place(), &e.value))
                }
                (Step::Index(index), NodeValue::List(items)) => {
                    items.get(index).map(|item| (item.at, item))
                }
                _ => None,
            };
            match next {
                Some((place, inner)) => (at, node) = (place, inner),
                None => return (at, false),
            }
        }
        (at, true)
    }
}

impl Entry {
    /// A value alone is best shown itself; a long one, or none, by its key.
    fn place(&self) -> Position {
        match self.value.scalar() {
            None | Some(Scalar::Null) => self.at,
            Some(_) => self.value.at,
        }
    }
}

impl Node {
    /// What a scalar means; `None` for lists and mappings.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.value {
            NodeValue::Scalar { text, plain: true } => Some(resolve(text)),
            NodeValue::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            NodeValue::List(_) | NodeValue::Mapping(_) => None,
        }
    }
}

/// The lines of a text as YAML counts them: a carriage return alone ends one, too.
pub fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        lines.push(line);
        let after = |line_break| tail.strip_prefix(line_break);
        rest = after("\r\n").or_else(|| after("\n")).or_else(|| after("\r")).unwrap_or(tail);
    }
    lines
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// `services[0].listen` -> key, index, key.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| {
        match part.strip_suffix(']').map(str::parse) {
            Some(Ok(index)) => Step::Index(index),
            _ => Step::Key(part),
        }
    })
}

/// YAML 1.2.2, 10.3.2.
fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Boolean(true),
        "false" | "False" | "FALSE" => return Scalar::Boolean(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Scalar::Text(text);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return match i64::from_str_radix(digits, radix) {
                Ok(number) if !digits.starts_with(['+', '-']) => Scalar::Integer(number),
                _ => Scalar::Text(text),
            };
        }
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(Scalar::Float, Scalar::Integer);
    }
    match text.parse::<f64>() {
        Ok(_) => Scalar::Float,
        Err(_) => Scalar::Text(text),
    }
}

/// A list or mapping that is being read.
struct Open {
    at: Position,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Mapping(Vec<Entry>, Option<(String, Position)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    values: usize,
    documents: usize,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Document, Diagnostic> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax_error(&error))?;
            self.event(event, Position::from(&span.start))?;
        }
        match self.root {
            Some(root) => Ok(Document { root }),
            None => Err(Diagnostic::of_file(
                "the file is empty",
                "at least `services:` has to be there; see configs/minimal.yaml",
            )),
        }
    }

    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Diagnostic> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(refused(at, "a second YAML document", "write one document a file"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), at)?;
                let plain = style == ScalarStyle::Plain;
                let node = Node { at, value: NodeValue::Scalar { text: text.into_owned(), plain } };
                self.add(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), at)?;
                self.start(Open { at, anchor, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), at)?;
                self.start(Open { at, anchor, kind: OpenKind::Mapping(Vec::new(), None) })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, at),
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(open.at));
        }
        if let Some(Open { kind: OpenKind::Mapping(_, None), .. }) = self.open.last() {
            return Err(refused(open.at, "a key that is a list or mapping", "a key is one word"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.kind {
            OpenKind::List(items) => NodeValue::List(items),
            OpenKind::Mapping(entries, _) => NodeValue::Mapping(entries),
        };
        self.add(Node { at: open.at, value }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Diagnostic> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(refused(
                at,
                "an alias inside of what it stands for",
                "an alias can only stand for a value that ended before it",
            ));
        };
        let (values, depth) = measure(node);
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        if self.values + values > MAX_VALUES {
            return Err(too_many(at));
        }
        let node = node.clone();
        self.count(values, at)?;
        self.put(node)
    }

    /// A value that was read, and may be stood for later.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        self.count(1, node.at)?;
        if anchor != 0 {
            self.count(measure(&node).0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node)
    }

    fn put(&mut self, node: Node) -> Result<(), Diagnostic> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Mapping(entries, key)) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => match node.value {
                    NodeValue::Scalar { text, .. } => *key = Some((text, node.at)),
                    NodeValue::List(_) | NodeValue::Mapping(_) => {
                        return Err(refused(
                            node.at,
                            "a key that is a list or mapping",
                            "a key is one word",
                        ));
                    }
                },
            },
        }
        Ok(())
    }

    fn count(&mut self, values: usize, at: Position) -> Result<(), Diagnostic> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(too_many(at));
        }
        Ok(())
    }
}

/// Number of values and depth. Recursion is bounded by [`MAX_DEPTH`].
fn measure(node: &Node) -> (usize, usize) {
    let (values, depth) = match &node.value {
        NodeValue::Scalar { .. } => return (1, 0),
        NodeValue::List(items) => sum(items.iter()),
        NodeValue::Mapping(entries) => sum(entries.iter().map(|entry| &entry.value)),
    };
    (values + 1, depth + 1)
}

fn sum<'a>(nodes: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    nodes.map(measure).fold((0, 0), |(values, depth), (v, d)| (values + v, depth.max(d)))
}

fn refused(at: Position, what: &str, help: &str) -> Diagnostic {
    Diagnostic::at(at, "", format!("{what} is not accepted"), help)
}

fn too_many(at: Position) -> Diagnostic {
    refused(
        at,
        &format!("more than {MAX_VALUES} values (aliases expanded)"),
        "split the file, or use fewer aliases",
    )
}

fn too_deep(at: Position) -> Diagnostic {
    Diagnostic::at(
        at,
        "",
        "nested too deeply",
        format!("at most {MAX_DEPTH} levels of lists and mappings"),
    )
}

fn refuse_tag(tagged: bool, at: Position) -> Result<(), Diagnostic> {
    if tagged {
        return Err(refused(at, "a YAML tag (`!...`)", "put text that starts with `!` in quotes"));
    }
    Ok(())
}

fn syntax_error(error: &ScanError) -> Diagnostic {
    let info = error.info();
    if info.contains("recursion limit") {
        return too_deep(Position::from(error.marker()));
    }
    let help = if info.contains("tab") {
        "indent with blanks, not with tabs"
    } else if info.contains("mapping values are not allowed") {
        "look for a missing quote or a wrong indentation, here or in the line above"
    } else if info.contains("did not find expected") || info.contains("simple key") {
        "look for a missing `:`, bracket or quote, here or in the line above"
    } else {
        "compare with configs/every-option.yaml"
    };
    Diagnostic::at(Position::from(error.marker()), "", format!("not valid YAML: {info}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Diagnostic {
        match Document::read(text) {
            Ok(document) => panic!("{text:.200} was read as {document:?}"),
            Err(diagnostic) => diagnostic,
        }
    }

    #[test]
    fn positions_are_those_of_keys_and_items() {
        let document = Document::read("a: 1\nbb:\n  - x: [1, 22]\n  - é: {y: z}\n").unwrap();
        for (path, line, column, written) in [
            ("", 1, 1, true),
            ("a", 1, 4, true),
            ("bb", 2, 1, true),
            ("bb[0]", 3, 5, true),
            ("bb[0].x", 3, 5, true),
            ("bb[0].x[1]", 3, 12, true),
            ("bb[1].é.y", 4, 12, true),
            ("bb[1].é.other.deeper", 4, 5, false),
            ("bb[7]", 2, 1, false),
            ("nothing", 1, 1, false),
        ] {
            assert_eq!(document.locate(path), Position { line, column }, "{path}");
            assert_eq!(document.is_written(path), written, "{path}");
        }
    }

    #[test]
    fn all_line_breaks_of_yaml_count() {
        assert_eq!(lines("a\nb\r\nc\rd\r\n\r\n\n\r\re"), ["a", "b", "c", "d", "", "", "", "", "e"]);
        let document = Document::read("a: 1\rb: 2\r\nc: 3\nd: 4").unwrap();
        for (key, line) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            assert_eq!(document.locate(key), Position { line, column: 4 });
        }
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("no", Scalar::Text("no")),
            ("on", Scalar::Text("on")),
            ("true", Scalar::Boolean(true)),
            ("0x1f", Scalar::Integer(31)),
            ("0o17", Scalar::Integer(15)),
            ("-5", Scalar::Integer(-5)),
            ("+5", Scalar::Integer(5)),
            ("007", Scalar::Integer(7)),
            ("1.5", Scalar::Float),
            ("1e3", Scalar::Float),
            ("99999999999999999999", Scalar::Float),
            ("10.0.0.1", Scalar::Text("10.0.0.1")),
            ("10:30", Scalar::Text("10:30")),
            ("5s", Scalar::Text("5s")),
            ("0x-1", Scalar::Text("0x-1")),
            ("200-299", Scalar::Text("200-299")),
            ("::1", Scalar::Text("::1")),
        ] {
            assert_eq!(resolve(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_alias_stands_for_its_value_and_keeps_its_place() {
        let document = Document::read("a: &x {p: 1}\nb: *x\n").unwrap();
        assert_eq!(document.locate("b"), Position { line: 2, column: 1 });
        assert_eq!(document.locate("b.p"), Position { line: 1, column: 11 });
    }

    #[test]
    fn bombs_are_refused_by_name() {
        let deep = "[".repeat(100_000);
        assert!(failure(&deep).help.unwrap().contains("64 levels"));
        let deep = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>();
        assert!(failure(&deep).help.unwrap().contains("64 levels"));
        let mut laughs = "l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let inner = format!("*l{},", level - 1).repeat(10);
            laughs += &format!("l{level}: &l{level} [{}]\n", inner.trim_end_matches(','));
        }
        assert!(failure(&laughs).message.contains("more than 2000000 values"));
        let mut nested = "l0: &l0 [x]\n".to_owned();
        for level in 1..80 {
            nested += &format!("l{level}: &l{level} [*l{}]\n", level - 1);
        }
        assert!(failure(&nested).help.unwrap().contains("64 levels"));
        assert!(failure("a: &x [*x]").message.contains("inside of what it stands for"));
        let huge = " ".repeat(MAX_BYTES + 1);
        assert!(failure(&huge).help.unwrap().contains("64 MiB"));
    }

    #[test]
    fn what_is_not_plain_yaml_is_refused_by_name() {
        for (text, fragment) in [
            ("", "empty"),
            ("# only a comment\n", "empty"),
            ("a: 1\n---\nb: 2\n", "second YAML document"),
            ("a: !!str 5", "tag"),
            ("? [a, b]\n: 1", "a key that is a list"),
            ("a: [1, 2", "not valid YAML"),
            ("a:\n\t- b", "not valid YAML"),
            ("a: *nothing", "not valid YAML"),
        ] {
            let found = failure(text);
            assert!(found.message.contains(fragment), "{text:?}: {found:?}");
        }
    }
}

//! A YAML text as a light tree in which every key and value knows its line and column.
//!
//! The text is read once, by this parser: values and positions cannot disagree. Everything is bounded, because a file
//! may be hostile: size, depth, and the number of values (aliases count as what they stand for). Most texts are short, and
//! there are hundreds of thousands of them in a large file: up to 24 bytes stand in the tree itself.

mod build;

use compact_str::CompactString;
use saphyr_parser::Marker;

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
        text: CompactString,
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
    pub key: CompactString,
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
        build::document(text.strip_prefix('\u{feff}').unwrap_or(text))
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

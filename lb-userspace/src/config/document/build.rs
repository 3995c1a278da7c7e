//! The parser's events -> the tree, within the limits.

use std::collections::HashMap;

use compact_str::CompactString;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{Diagnostic, Document, Entry, MAX_DEPTH, MAX_VALUES, Node, NodeValue, Position};

/// The tree of a text.
pub fn document(text: &str) -> Result<Document, Diagnostic> {
    Builder::default().build(text)
}

/// A list or mapping that is being read.
struct Open {
    at: Position,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Mapping(Vec<Entry>, Option<(CompactString, Position)>),
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
                let node = Node { at, value: NodeValue::Scalar { text: text.into(), plain } };
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

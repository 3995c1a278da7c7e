//! `configs/every-option.yaml`: every key with its documentation, bounds, default and an example.

use serde_json::Value;

use super::shape::{self, Key, Kind, Variant};

const HEAD: &str = "\
# Every key of lb's configuration, with its default (if it has one) and an example.
#
# This file is generated from the types that read it, in lb-userspace/src/config/spec.rs; a test compares the two, and
# writes this file anew with `LB_BLESS=1 cargo test -p lb-userspace every_option`. Use it to look things up, and begin
# your own file with minimal.yaml. `lb check FILE` judges a file, `lb schema` prints a JSON Schema for editors.
";

/// Keys that this one file cannot have, as comments: there is no other backend to name, and an address says it all.
const COMMENTS: [&str; 2] = ["services[].backends[].srv", "services[].backends[].track"];

/// Longest line.
const WIDTH: usize = 120;

/// The text of `configs/every-option.yaml`.
pub fn every_option_yaml() -> String {
    let mut text = HEAD.to_owned();
    let Kind::Mapping(keys) = &shape::file().kind else { unreachable!("the file is a mapping") };
    for key in keys {
        text.push('\n');
        write_key(&mut text, key, 0, false);
    }
    text
}

/// A key with its comment, `indent` blanks from the left; as the first of a list's item, behind `- `.
fn write_key(text: &mut String, key: &Key, indent: usize, first_of_item: bool) {
    let at = if first_of_item { indent - 2 } else { indent };
    let lead = if first_of_item { "- " } else { "" };
    write_comment(text, &documentation(key), at);
    let head = format!("{}{lead}{}:", " ".repeat(at), key.name);
    match &key.shape.kind {
        Kind::Mapping(keys) | Kind::Short(keys) => {
            *text += &format!("{head}\n");
            keys.iter().for_each(|key| write_key(text, key, indent + 2, false));
        }
        Kind::Tagged { tag, variants } => {
            *text += &format!("{head}\n");
            let most = variants.iter().max_by_key(|variant| variant.keys.len());
            let keys = most.into_iter().flat_map(|variant| &variant.keys);
            std::iter::once(&**tag)
                .chain(keys)
                .for_each(|key| write_key(text, key, indent + 2, false));
            write_others(text, variants, most, indent + 2);
        }
        Kind::List { item, .. } if matches!(item.kind, Kind::Mapping(_)) => {
            let Kind::Mapping(keys) = &item.kind else { return };
            *text += &format!("{head}\n");
            for (index, key) in keys.iter().enumerate() {
                write_key(text, key, indent + 4, index == 0);
            }
        }
        _ => {
            let value = key.shape.example.as_ref().or(key.shape.default.as_ref());
            let value = value.unwrap_or_else(|| panic!("{} needs an example", key.name));
            // Each list indents by 4.
            let comment = COMMENTS.iter().any(|path| {
                path.ends_with(&format!("[].{}", key.name))
                    && path.matches("[]").count() * 4 == indent
            });
            let mark = if comment { "# " } else { "" };
            let head = format!("{}{lead}{mark}{}:", " ".repeat(at), key.name);
            *text += &format!("{head} {}\n", flow(value));
        }
    }
}

/// Keys that the variant shown does not have, as comments.
fn write_others(text: &mut String, variants: &[Variant], shown: Option<&Variant>, indent: usize) {
    let is_shown = |key: &Key| {
        shown.is_some_and(|shown| shown.keys.iter().any(|other| other.name == key.name))
    };
    let mut told: Vec<&str> = Vec::new();
    for variant in variants {
        for key in variant.keys.iter().filter(|key| !is_shown(key)) {
            if told.contains(&key.name.as_str()) {
                continue;
            }
            told.push(&key.name);
            let owners = variants.iter().filter(|v| v.keys.iter().any(|k| k.name == key.name));
            let owners: Vec<String> = owners.map(|owner| format!("`{}`", owner.name)).collect();
            let comment = format!("With {}: {}", owners.join(", "), documentation(key));
            write_comment(text, &comment, indent);
            let value = key.shape.example.as_ref().or(key.shape.default.as_ref());
            let value = value.unwrap_or_else(|| panic!("{} needs an example", key.name));
            *text += &format!("{}# {}: {}\n", " ".repeat(indent), key.name, flow(value));
        }
    }
}

/// The doc comment, then what the type says.
fn documentation(key: &Key) -> String {
    let mut facts = Vec::new();
    match &key.shape.kind {
        Kind::Word(words) if words.len() > 1 => facts.push(format!("one of {}", words.join(", "))),
        Kind::Integer { least, most } => facts.push(format!("{least} to {most}")),
        _ => {}
    }
    match &key.shape.default {
        _ if key.required => facts.push("required".into()),
        // Of a mapping each key says its own.
        Some(Value::Object(_)) | None => {}
        Some(default) => facts.push(format!("default {}", flow(default))),
    }
    match facts.is_empty() {
        true => key.shape.documentation.clone(),
        false => format!("{} ({})", key.shape.documentation, facts.join("; ")),
    }
}

fn write_comment(text: &mut String, comment: &str, indent: usize) {
    let lead = format!("{}#", " ".repeat(indent));
    let mut line = lead.clone();
    for word in comment.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            *text += &format!("{line}\n");
            line.clone_from(&lead);
        }
        line.push(' ');
        line += word;
    }
    *text += &format!("{line}\n");
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::String(text)
            if text.contains([':', ',', '[', ']', '#', '\r', '+', '*', '"', '{', '\n']) =>
        {
            format!("\"{}\"", text.escape_default())
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::config::{
        Source,
        document::{Document, Node, NodeValue},
        parse,
    };

    #[test]
    fn every_option_yaml_is_the_committed_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/every-option.yaml");
        let generated = every_option_yaml();
        if std::env::var_os("LB_BLESS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = committed.lines().zip(generated.lines()).position(|(old, new)| old != new);
        assert!(
            committed == generated,
            "configs/every-option.yaml differs from the types, first in line {}: write it anew with \
             `LB_BLESS=1 cargo test -p lb-userspace every_option`",
            differs.unwrap_or_else(|| committed.lines().count().min(generated.lines().count())) + 1
        );
    }

    #[test]
    fn every_option_yaml_is_valid_and_has_every_key() {
        let text = every_option_yaml();
        let source = Source { path: "every-option.yaml".into(), text: text.clone() };
        let parsed = parse(&source).unwrap_or_else(|errors| panic!("{errors}"));
        for warning in &parsed.warnings {
            // A service is tcp, udp or quic, its tunnel ipip or gue, and this one file has the keys of all.
            let known =
                ["services[0].timeouts.udp", "services[0].quic_lb", "source_pool", "outer_source"];
            assert!(known.contains(&warning.path.as_str()), "{warning:?}");
        }

        let mut written = BTreeSet::new();
        collect("", &Document::read(&text).unwrap().root, &mut written);
        for path in COMMENTS {
            let key = path.rsplit('.').next().unwrap();
            assert!(text.contains(&format!(" # {key}: ")), "{key} is missing");
            written.insert(path.to_owned());
        }
        let known: BTreeSet<String> =
            shape::all_keys().iter().map(|(path, key)| shape::join(path, &key.name)).collect();
        // Keys of other checks than the one that is shown.
        for path in known.iter().filter(|path| path.starts_with("services[].check.")) {
            let key = path.rsplit('.').next().unwrap_or_default();
            if text.contains(&format!("\n      # {key}: ")) {
                written.insert(path.clone());
            }
        }
        assert_eq!(written, known);
    }

    fn collect(path: &str, node: &Node, found: &mut BTreeSet<String>) {
        match &node.value {
            NodeValue::Scalar { .. } => {}
            NodeValue::List(items) => {
                items.iter().for_each(|item| collect(&format!("{path}[]"), item, found));
            }
            NodeValue::Mapping(entries) => {
                for entry in entries {
                    let path = shape::join(path, &entry.key);
                    collect(&path, &entry.value, found);
                    found.insert(path);
                }
            }
        }
    }
}

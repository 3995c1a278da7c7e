//! lb.yaml(5): the configuration file, from its schema, which is made from the documentation of its types.

use clap_mangen::roff::{Roff, bold, italic, roman};
use serde_json::Value;

/// What most files begin with.
const EXAMPLE: &str = include_str!("../../../../configs/minimal.yaml");

/// The page.
pub(super) fn page(schema: &Value) -> String {
    let mut roff = Roff::new();
    let source = format!("lb {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["LB.YAML", "5", "", source.as_str(), "File formats"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("lb.yaml - configuration of lb, a layer-4 load balancer")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A YAML file, by default /etc/lb/lb.yaml. lb applies it as a whole whenever it changes; a file with a mistake \
         changes nothing. `lb check` tells what is wrong with a file, each mistake with line, column and remedy; `lb \
         plan` tells what it would change; `lb schema` prints a JSON Schema for editors.",
    )]);
    roff.control("SH", ["KEYS"]);
    roff.text([roman("Keys of lists are written with [].")]);
    keys(&mut roff, "", schema);
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    for line in EXAMPLE.lines() {
        match line.is_empty() {
            true => roff.control("sp", []),
            false => roff.text([roman(line)]),
        };
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("lb"),
        roman("(1), "),
        bold("lb-check"),
        roman("(1), "),
        bold("lb-plan"),
        roman("(1)"),
    ]);
    super::dated(&roff.to_roff())
}

fn keys(roff: &mut Roff, prefix: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array();
    for (name, property) in properties {
        let path = format!("{prefix}{name}");
        let needed = required.is_some_and(|all| all.iter().any(|one| one == name.as_str()));
        roff.control("TP", []);
        roff.text([bold(path.clone()), roman("  "), italic(kind(property, needed))]);
        let mut text = String::new();
        if let Some(description) = property["description"].as_str() {
            text.push_str(&description.replace('\n', " "));
        }
        if let Some(default) = property.get("default").filter(|default| is_plain(default)) {
            text.push_str(&format!(" Default: {}.", shown(default)));
        }
        roff.text([roman(match text.trim() {
            "" => "See below.",
            text => text,
        })]);
        keys(roff, &format!("{path}."), property);
        keys(roff, &format!("{path}[]."), &property["items"]);
    }
}

/// What a value is: its type, choices or range.
fn kind(property: &Value, needed: bool) -> String {
    let mut kind = match property["oneOf"].as_array() {
        Some(choices) => {
            let names: Vec<&str> = choices.iter().filter_map(|c| c["const"].as_str()).collect();
            names.join(" | ")
        }
        None => match property["type"].as_str().unwrap_or_default() {
            "" if property["anyOf"][0]["type"] == "array" => "one or a list".to_owned(),
            "object" => "mapping".to_owned(),
            "array" => "list".to_owned(),
            other => other.to_owned(),
        },
    };
    if let (Some(least), Some(most)) = (property["minimum"].as_u64(), property["maximum"].as_u64())
    {
        kind.push_str(&format!(" {least}..{most}"));
    }
    if needed {
        kind.push_str(", required");
    }
    kind.trim_start_matches(", ").to_owned()
}

/// Not a mapping whose keys have defaults of their own, and not an empty list.
fn is_plain(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_schema_is_on_the_page() {
        fn count(schema: &Value) -> usize {
            let own = schema["properties"].as_object();
            let own: usize = own.map_or(0, |all| all.values().map(|one| 1 + count(one)).sum());
            own + schema.get("items").map_or(0, count)
        }
        let schema = crate::config::schema();
        let page = page(&schema);
        assert!(count(&schema) > 30);
        assert_eq!(page.matches("\n.TP\n").count(), count(&schema), "{page}");
        assert!(page.contains("services[].listen.port"), "{page}");
    }
}

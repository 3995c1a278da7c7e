//! The shape of the file: its keys with their types, bounds and documentation, taken from the JSON Schema of the types.

use std::sync::LazyLock;

use serde_json::Value;

use super::schema::schema;

/// A key, and what its value has to be.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: String,
    /// Whether it has to be there.
    pub required: bool,
    /// Its value.
    pub shape: Shape,
}

/// What a value has to be.
#[derive(Debug)]
pub struct Shape {
    /// The doc comment.
    pub documentation: String,
    /// What it is when it is not written, if that can be said in YAML.
    pub default: Option<Value>,
    /// An example.
    pub example: Option<Value>,
    /// Its kind.
    pub kind: Kind,
}

/// The kinds of values.
#[derive(Debug)]
pub enum Kind {
    /// A mapping with these keys and no others.
    Mapping(Vec<Key>),
    /// The same, or the value of its first key alone.
    Short(Vec<Key>),
    /// A mapping whose key `tag` says which other keys there are.
    Tagged {
        /// The key; a word.
        tag: Box<Key>,
        /// Its values.
        variants: Vec<Variant>,
    },
    /// A list.
    List {
        /// Each of its items.
        item: Box<Shape>,
        /// Least number of items.
        least: usize,
        /// Greatest number of items.
        most: usize,
        /// One item may stand for a list of it.
        or_item: bool,
    },
    /// One of these words.
    Word(Vec<String>),
    /// Text in a format of `value`.
    Text {
        /// The format.
        format: String,
        /// A number is taken for its text.
        or_integer: bool,
    },
    /// A whole number.
    Integer {
        /// Least.
        least: i64,
        /// Greatest.
        most: i64,
    },
    /// `true` or `false`.
    Boolean,
}

/// One value of a tag.
#[derive(Debug)]
pub struct Variant {
    /// The value.
    pub name: String,
    /// The other keys.
    pub keys: Vec<Key>,
}

/// The shape of the whole file.
pub fn file() -> &'static Shape {
    static FILE: LazyLock<Shape> = LazyLock::new(|| Shape::of(&schema()));
    &FILE
}

impl Shape {
    /// Reads a schema as schemars writes it. Panics on what our types do not use: the schema is made from types, so
    /// any test that calls this proves that it cannot happen.
    fn of(schema: &Value) -> Self {
        Self {
            documentation: text(schema, "description"),
            default: schema.get("default").cloned(),
            example: schema["examples"].get(0).cloned(),
            kind: Kind::of(schema),
        }
    }
}

impl Kind {
    fn of(schema: &Value) -> Self {
        if let Some(options) = schema["oneOf"].as_array() {
            return match options[0]["type"] == "object" {
                true => Self::tagged(options),
                false => Self::Word(options.iter().flat_map(words).collect()),
            };
        }
        if let Some(options) = schema["anyOf"].as_array() {
            if options[0]["type"] == "array" {
                return Self::list(&options[0], true);
            }
            return Self::Short(keys(&options[0], None));
        }
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            return Self::Word(words(schema));
        }
        match &schema["type"] {
            Value::String(name) => match name.as_str() {
                "object" => Self::Mapping(keys(schema, None)),
                "array" => Self::list(schema, false),
                "string" => Self::Text { format: text(schema, "format"), or_integer: false },
                "integer" => Self::Integer {
                    least: schema["minimum"].as_i64().expect("integers have a minimum"),
                    most: schema["maximum"].as_i64().expect("integers have a maximum"),
                },
                "boolean" => Self::Boolean,
                other => panic!("type {other} in {schema}"),
            },
            Value::Array(_) => Self::Text { format: text(schema, "format"), or_integer: true },
            other => panic!("type {other} in {schema}"),
        }
    }

    fn list(schema: &Value, or_item: bool) -> Self {
        Self::List {
            item: Box::new(Shape::of(&schema["items"])),
            least: schema["minItems"].as_u64().unwrap_or(0) as usize,
            most: schema["maxItems"].as_u64().unwrap_or(u64::from(u32::MAX)) as usize,
            or_item,
        }
    }

    fn tagged(options: &[Value]) -> Self {
        let tag = options[0]["properties"]
            .as_object()
            .and_then(|keys| keys.iter().find(|(_, value)| value.get("const").is_some()))
            .map(|(name, _)| name.clone())
            .expect("each variant names itself");
        let variants: Vec<Variant> = options
            .iter()
            .map(|option| Variant {
                name: text(&option["properties"][&tag], "const"),
                keys: keys(option, Some(&tag)),
            })
            .collect();
        let documentation = variants.iter().zip(options).map(|(variant, option)| {
            format!("`{}`: {}", variant.name, text(option, "description"))
        });
        let documentation = documentation.collect::<Vec<_>>().join(" ");
        let names = variants.iter().map(|variant| variant.name.clone()).collect();
        let most = variants.iter().max_by_key(|variant| variant.keys.len());
        let shape = Shape {
            documentation,
            default: None,
            example: most.map(|variant| variant.name.as_str().into()),
            kind: Self::Word(names),
        };
        let tag = Box::new(Key { name: tag, required: true, shape });
        Self::Tagged { tag, variants }
    }
}

fn keys(schema: &Value, except: Option<&str>) -> Vec<Key> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let keys = schema["properties"].as_object().into_iter().flatten();
    keys.filter(|(name, _)| Some(name.as_str()) != except)
        .map(|(name, schema)| Key {
            name: name.clone(),
            required: required.iter().any(|required| required == name),
            shape: Shape::of(schema),
        })
        .collect()
}

fn words(schema: &Value) -> Vec<String> {
    let list = schema["enum"].as_array().cloned().unwrap_or_else(|| vec![schema["const"].clone()]);
    list.iter().map(|word| word.as_str().expect("words are text").to_owned()).collect()
}

fn text(schema: &Value, key: &str) -> String {
    schema[key].as_str().unwrap_or_default().to_owned()
}

/// Every key of the file with the mapping it is in, as in `("services[].listen", key)`; the outermost first. Keys of
/// several variants of a tag come once for each.
pub fn all_keys() -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    collect("", file(), &mut found);
    found
}

fn collect<'a>(path: &str, shape: &'a Shape, found: &mut Vec<(String, &'a Key)>) {
    let mut add = |keys: &'a [Key]| {
        found.extend(keys.iter().map(|key| (path.to_owned(), key)));
        for key in keys {
            collect(&join(path, &key.name), &key.shape, found);
        }
    };
    match &shape.kind {
        Kind::Mapping(keys) | Kind::Short(keys) => add(keys),
        Kind::Tagged { tag, variants } => {
            add(std::slice::from_ref(tag));
            variants.iter().for_each(|variant| add(&variant.keys));
        }
        Kind::List { item, .. } => collect(&format!("{path}[]"), item, found),
        Kind::Word(_) | Kind::Text { .. } | Kind::Integer { .. } | Kind::Boolean => {}
    }
}

/// `a` and `b` -> `a.b`; `b` alone at the top.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        for (path, key) in all_keys() {
            let documentation = &key.shape.documentation;
            assert!(documentation.ends_with(['.', ')']), "{path}.{}: {documentation:?}", key.name);
        }
    }

    #[test]
    fn every_text_has_a_format_that_is_checked() {
        fn look(shape: &Shape, path: &str) {
            match &shape.kind {
                Kind::Text { format, .. } => {
                    let refused = crate::config::value::refuse(format, "\u{7} \n");
                    assert!(refused.is_some(), "{path}: nobody checks the format {format:?}");
                }
                Kind::List { item, .. } => look(item, path),
                _ => {}
            }
        }
        all_keys().iter().for_each(|(path, key)| look(&key.shape, &join(path, &key.name)));
    }

    #[test]
    fn every_mapping_is_closed_for_editors_too() {
        fn look(schema: &Value) {
            if schema.get("properties").is_some() {
                assert_eq!(schema["additionalProperties"], false, "{schema:#}");
            }
            match schema {
                Value::Object(map) => map.values().for_each(look),
                Value::Array(items) => items.iter().for_each(look),
                _ => {}
            }
        }
        look(&schema());
    }

    #[test]
    fn keys_are_in_the_order_of_the_types() {
        let names: Vec<_> = all_keys()
            .into_iter()
            .filter(|(path, _)| path == "services[]")
            .map(|(_, key)| key.name.clone())
            .collect();
        assert_eq!(&names[..3], ["name", "listen", "forward"]);
    }
}

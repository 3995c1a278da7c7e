//! JSON Schema from the types, for editors and for `shape`.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::spec;

/// The JSON Schema (2020-12) of the file, for editors and `lb schema`.
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<spec::File>().to_value();
    schema["title"] = "lb configuration".into();
    refuse_null(&mut schema);
    schema
}

/// A mapping that may be written as its first key's value alone.
pub fn or_first_key(schema: &mut schemars::Schema) {
    let mapping = schema.clone().to_value();
    let first = mapping["properties"].as_object().and_then(|keys| keys.values().next()).cloned();
    let first = first.expect("a mapping has keys");
    *schema = schemars::json_schema!({"anyOf": [mapping, first]});
}

/// An optional key is left out, not given without a value: that is more often an accident.
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("anyOf") {
                options.retain(|option| option["type"] != "null");
                if let [Value::Object(only)] = options.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            map.values_mut().for_each(refuse_null);
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_null),
        _ => {}
    }
}

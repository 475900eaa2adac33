//! The configuration's JSON Schema, generated from its types: what the validator walks, and what editors
//! complete and check by.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Document, delegated::Include, shorthand};

/// Patterns of values with their own syntax, so that an editor sees a missing unit.
const PATTERNS: &[(&str, &str)] = &[
    ("portolan:duration", r"^([0-9]+(ms|s|m|h|d))+$"),
    ("portolan:size", r"^[0-9]+([KMG]i?)?B$"),
    ("portolan:rate", r"^[0-9]+/[smh]$"),
    ("portolan:percent", r"^[0-9]+%$"),
    ("portolan:name", r"^[a-z0-9][a-z0-9_.-]*$"),
    ("portolan:bind", r"^(unix:.|.*:[0-9]+$)"),
    ("portolan:address", r"^(unix:.|.*:[0-9]+$)"),
    ("portolan:endpoint", r"^(unix:.|.*:[0-9]+$)"),
    ("portolan:in-flight-limit", r"^([0-9]+|adaptive)$"),
    ("portolan:host-port", r"^.+:[0-9]+$"),
    ("portolan:status", r"^[2-5][0-9]{2}$"),
    ("portolan:status-range", r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"),
];

/// The schema as editors get it: it takes what YAML reads as a number or a boolean where a text is wanted,
/// and references such as `${NAME}` anywhere.
pub fn generate() -> Value {
    let mut schema = strict();
    loosen(&mut schema);
    allow_short_forms(&mut schema);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    }
    schema
}

/// The schema as the validator walks it: every scalar is the text written.
pub fn strict() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let mut generator = SchemaGenerator::new(settings);
    let include = include(&mut generator);
    let mut schema = generator.into_root_schema_for::<Document>().to_value();
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.insert("include".into(), include);
        properties.insert("override".into(), overrides());
    }
    schema
}

/// What is taken from the tree before the document is made of it.
fn include(generator: &mut SchemaGenerator) -> Value {
    let mut include = generator.subschema_for::<Include>().to_value();
    include["description"] = json!(
        "Files that this one goes on in: paths or globs, relative to this file; a map delegates them to a tenant."
    );
    include
}

fn overrides() -> Value {
    json!({
        "description": "Values that replace others on purpose, by dotted path: { upstreams.api.endpoints: [...] }.",
        "type": "object",
    })
}

/// One value where a list may stand, and a value alone where a map has one obvious key for it.
fn allow_short_forms(schema: &mut Value) {
    allow_lone_items(schema);
    let Some(definitions) = schema["$defs"].as_object_mut() else { return };
    for (name, definition) in definitions {
        let Some(key) = shorthand::key(name) else { continue };
        let mut value = definition["properties"][key].clone();
        let description = definition["description"].take();
        if let Some(value) = value.as_object_mut() {
            value.insert("description".into(), json!(format!("The same as {{ {key}: … }}")));
        }
        if let Some(map) = definition.as_object_mut() {
            map.remove("description");
        }
        *definition = json!({ "description": description, "anyOf": [definition.clone(), value] });
    }
}

fn allow_lone_items(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(allow_lone_items),
        Value::Object(object) => {
            for (key, part) in object.iter_mut() {
                match part {
                    // Beside other kinds one value may mean something else.
                    Value::Array(kinds) if key == "anyOf" => kinds.iter_mut().for_each(|kind| {
                        if let Some(items) = kind.get_mut("items") {
                            allow_lone_items(items);
                        } else {
                            allow_lone_items(kind);
                        }
                    }),
                    part => allow_lone_items(part),
                }
            }
            allow_lone_item(object);
        }
        _ => {}
    }
}

fn allow_lone_item(list: &mut Map<String, Value>) {
    let kinds = kinds(list);
    if !kinds.iter().any(|kind| kind == "array") {
        return;
    }
    let Some(item) = list.get("items").cloned() else { return };
    let mut many = Map::new();
    for key in ["type", "items", "minItems", "maxItems", "uniqueItems"] {
        many.extend(list.remove(key).map(|value| (key.to_owned(), value)));
    }
    list.insert("anyOf".into(), json!([item, many]));
}

fn loosen(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(loosen),
        Value::Object(object) => {
            loosen_scalar(object);
            object.values_mut().for_each(loosen);
        }
        _ => {}
    }
}

fn loosen_scalar(schema: &mut Map<String, Value>) {
    let kinds = kinds(schema);
    match kinds.first().map(String::as_str) {
        Some("string") if schema.contains_key("const") || schema.contains_key("enum") => loosen_words(schema),
        Some("string") => loosen_text(schema, &kinds),
        Some("integer" | "boolean") => {
            widen(schema, &kinds, &["string"]);
            schema.insert("pattern".into(), REFERENCE.into());
        }
        _ => {}
    }
}

const REFERENCE: &str = r"\$\{";

fn kinds(schema: &Map<String, Value>) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn widen(schema: &mut Map<String, Value>, kinds: &[String], more: &[&str]) {
    let kinds = kinds.iter().map(String::as_str).chain(more.iter().copied());
    schema.insert("type".into(), kinds.collect());
}

/// `1.3` and `false` are words of the language that YAML reads as something else.
fn loosen_words(schema: &mut Map<String, Value>) {
    let words = match (schema.remove("const"), schema.remove("enum")) {
        (Some(word), _) => vec![word],
        (_, Some(Value::Array(words))) => words,
        _ => return,
    };
    let read =
        |word: &Value| serde_json::from_str::<Value>(word.as_str()?).ok().filter(|read| !read.is_null());
    let more: Vec<Value> = words.iter().filter_map(read).collect();
    if !more.is_empty() {
        schema.remove("type");
    }
    match (words.as_slice(), more.is_empty()) {
        ([_], true) => schema.insert("const".into(), words[0].clone()),
        _ => schema.insert("enum".into(), words.into_iter().chain(more).collect()),
    };
}

fn loosen_text(schema: &mut Map<String, Value>, kinds: &[String]) {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default().to_owned();
    match PATTERNS.iter().find(|(name, _)| *name == format) {
        Some((name, pattern)) => {
            // Units must be written, so a number is wrong; a status and a limit are numbers.
            if name.starts_with("portolan:status") || *name == "portolan:in-flight-limit" {
                widen(schema, kinds, &["integer"]);
            }
            let pattern =
                if *name == "portolan:name" { (*pattern).into() } else { format!("({pattern})|{REFERENCE}") };
            schema.insert("pattern".into(), pattern.into());
        }
        None if format.is_empty() => widen(schema, kinds, &["number", "boolean"]),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "schemas/portolan.schema.json";

    #[test]
    fn the_committed_schema_is_the_types() {
        let mut generated = serde_json::to_string_pretty(&generate()).unwrap();
        generated.push('\n');
        if std::env::var_os("PORTOLAN_UPDATE").is_some() {
            std::fs::create_dir_all("schemas").unwrap();
            std::fs::write(PATH, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(PATH).unwrap_or_default();
        assert!(committed == generated, "{PATH} is stale: run the tests with PORTOLAN_UPDATE=1");
    }

    #[test]
    fn definitions_have_names_of_their_own_and_keys_are_described() {
        let schema = strict();
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, definition) in definitions {
            let first = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let twice = first != name && definitions.contains_key(first);
            assert!(!twice, "{name}: give one of the two a name by schemars(rename)");
            assert_ne!(name, "Config");
            assert!(definition["description"].is_string(), "{name} has no description");
        }
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{key} has no description");
        }
    }
}

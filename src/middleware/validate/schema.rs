//! One JSON Schema: what it says of a body, and of parameters that come as text.

use std::collections::HashMap;

use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{json::Unambiguous, unfolded};
use crate::http::errors::{Place, Violation};

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    /// What its properties are, where they are something else than text.
    forms: HashMap<Box<str>, Form>,
}

/// What a parameter's text stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Form {
    number: bool,
    boolean: bool,
    list: bool,
}

/// What a client is told at most, of how many violations and in how many characters of each.
const MOST_VIOLATIONS: usize = 20;
const MOST_CHARACTERS: usize = 200;
/// How large a schema may be that refers to the same again and again: checking may take as long as if that were written
/// out, and who writes schemas need not be who pays for it.
const MOST_UNFOLDED: u64 = 100_000;
/// Of a larger body the first violation alone is told: they are all found before they are counted.
const MOST_LISTED: usize = 64 * 1024;

impl Schema {
    /// Reads a schema; what it refers to must stand in itself. Patterns are matched in linear time.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let written: Value =
            serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
        if unfolded::size(&written) > MOST_UNFOLDED {
            return Err(format!(
                "it is too large or too deep: more than {MOST_UNFOLDED} values, with all that it refers to written out"
            ));
        }
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(&written).map_err(|error| fault(&error))?;
        Ok(Self { validator, forms: forms(&written) })
    }

    /// What is wrong with a body.
    pub fn check_body(&self, body: &[u8]) -> Vec<Violation> {
        match serde_json::from_slice(body) {
            Ok(Unambiguous(json)) if body.len() > MOST_LISTED => self.check_first(Place::Body, &json),
            Ok(Unambiguous(json)) => self.check(Place::Body, &json),
            Err(error) => vec![Violation::new(Place::Body, "", &format!("it is no JSON: {error}"))],
        }
    }

    /// What is wrong with parameters: names and texts, percent-encoded.
    pub fn check_parameters<'t>(
        &self,
        place: Place,
        parameters: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Vec<Violation> {
        let mut all = Map::new();
        for (name, text) in parameters {
            let (name, text) = (decoded(name), decoded(text));
            let form = self.forms.get(&*name).copied().unwrap_or_default();
            put(&mut all, name, form.read(text), form.list);
        }
        self.check(place, &Value::Object(all))
    }

    fn check(&self, place: Place, value: &Value) -> Vec<Violation> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        self.validator
            .iter_errors(value)
            .take(MOST_VIOLATIONS)
            .map(|error| violation(place, &error))
            .collect()
    }

    fn check_first(&self, place: Place, value: &Value) -> Vec<Violation> {
        self.validator.validate(value).err().map(|error| violation(place, &error)).into_iter().collect()
    }
}

impl Form {
    fn of(schema: &Value) -> Self {
        let named = |kind: &str| match &schema["type"] {
            Value::String(one) => one == kind,
            Value::Array(several) => several.iter().any(|one| one == kind),
            _ => false,
        };
        let own = Self {
            number: named("integer") || named("number"),
            boolean: named("boolean"),
            list: named("array"),
        };
        match own.list {
            true => Self { list: true, ..Self::of(&schema["items"]) },
            false => own,
        }
    }

    /// The value that a text stands for; a text that stands for none of the kind is one.
    fn read(self, text: String) -> Value {
        match serde_json::from_str(&text) {
            Ok(Value::Number(number)) if self.number => Value::Number(number),
            Ok(Value::Bool(boolean)) if self.boolean => Value::Bool(boolean),
            _ => Value::String(text),
        }
    }
}

/// What is wrong with a schema.
fn fault(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    match error.kind() {
        ValidationErrorKind::Referencing(_) => {
            "it refers to what does not stand in it, and nothing is fetched".to_owned()
        }
        _ if place.is_empty() => error.to_string(),
        _ => format!("at {place}: {error}"),
    }
}

/// Values are left out: they may be the business of others than those who read the error.
fn violation(place: Place, error: &ValidationError<'_>) -> Violation {
    let (path, message) = (error.instance_path().to_string(), error.masked().to_string());
    Violation::new(place, shortened(&path), shortened(&message))
}

/// The forms of a schema's own properties: those that it refers to elsewhere are texts.
fn forms(schema: &Value) -> HashMap<Box<str>, Form> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let form = |(name, schema): (&String, &Value)| (name.as_str().into(), Form::of(schema));
    properties.map(form).filter(|(_, form)| *form != Form::default()).collect()
}

/// A parameter that comes again makes a list, whatever it is to be.
fn put(all: &mut Map<String, Value>, name: String, value: Value, list: bool) {
    match all.get_mut(&name) {
        None if list => drop(all.insert(name, Value::Array(vec![value]))),
        None => drop(all.insert(name, value)),
        Some(Value::Array(several)) => several.push(value),
        Some(one) => *one = Value::Array(vec![one.take(), value]),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(MOST_CHARACTERS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Schema {
        Schema::parse(text.as_bytes()).unwrap()
    }

    fn said(violations: &[Violation]) -> Vec<(&str, &str)> {
        violations.iter().map(|violation| (&*violation.path, &*violation.message)).collect()
    }

    #[test]
    fn every_violation_is_named_without_the_value() {
        let schema = schema(
            r#"{ "type": "object", "required": ["id"], "properties": { "items": { "items": { "type": "integer" } } } }"#,
        );
        assert_eq!(schema.check_body(br#"{ "id": 1, "items": [1] }"#), []);
        let wrong = schema.check_body(br#"{ "items": [1, "secret", 2, true] }"#);
        assert!(said(&wrong).iter().any(|(path, _)| *path == "/items/1"), "{wrong:?}");
        assert!(said(&wrong).iter().any(|(path, _)| *path == "/items/3"), "{wrong:?}");
        assert!(said(&wrong).iter().any(|(path, message)| path.is_empty() && message.contains("id")));
        assert!(!format!("{wrong:?}").contains("secret"), "{wrong:?}");
        let many = format!("{{ \"id\": 1, \"items\": [{}] }}", vec!["\"x\""; 1000].join(","));
        assert_eq!(schema.check_body(many.as_bytes()).len(), MOST_VIOLATIONS);
        assert!(said(&schema.check_body(b"{"))[0].1.starts_with("it is no JSON"));
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(schema.check_body(&deep).len(), 1);
    }

    #[test]
    fn texts_stand_for_what_the_schema_asks_for() {
        let schema = schema(
            r#"{
                "properties": {
                    "page": { "type": "integer", "minimum": 1 },
                    "all": { "type": "boolean" },
                    "ids": { "type": "array", "items": { "type": "number" }, "maxItems": 2 },
                    "name": { "type": "string", "maxLength": 3 }
                },
                "additionalProperties": false
            }"#,
        );
        let check = |parameters: &[(&str, &str)]| {
            let wrong = schema.check_parameters(Place::Query, parameters.iter().copied());
            wrong.into_iter().map(|violation| violation.path.into()).collect::<Vec<String>>()
        };
        assert!(check(&[("page", "2"), ("all", "true"), ("ids", "1.5"), ("name", "7")]).is_empty());
        assert!(check(&[("ids", "1"), ("ids", "2"), ("n%61me", "%C3%A4%C3%A4%C3%A4")]).is_empty());
        assert_eq!(check(&[("page", "0")]), ["/page"]);
        assert_eq!(check(&[("page", "2x")]), ["/page"]);
        assert_eq!(check(&[("name", "a"), ("name", "b")]), ["/name"]);
        assert_eq!(check(&[("ids", "1"), ("ids", "x"), ("ids", "3")]).len(), 2);
        assert_eq!(check(&[("other", "1")]), [""]);
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_wherever_it_stands() {
        let schema = schema(r#"{ "properties": { "role": { "const": "user" } } }"#);
        for twice in [
            r#"{ "role": "admin", "role": "user" }"#,
            r#"{ "role": "admin", "r\u006fle": "user" }"#,
            r#"[{ "a": [{ "b": 1, "c": 2, "b": 1 }] }]"#,
        ] {
            let wrong = schema.check_body(twice.as_bytes());
            assert!(said(&wrong)[0].1.contains("comes twice"), "{twice}: {wrong:?}");
        }
        assert_eq!(schema.check_body(br#"{ "role": "user", "a": [{ "b": 1 }, { "b": 1 }], "c": {} }"#), []);
    }

    #[test]
    fn numbers_and_texts_beyond_what_json_has_are_refused() {
        let any = schema("{}");
        for wrong in
            [&b"1e999"[..], b"-1e999", b"\"\xff\"", b"\"\\ud800\"", b"\xef\xbb\xbf{}", b"{} {}", b"NaN", b""]
        {
            assert_eq!(any.check_body(wrong).len(), 1, "{wrong:?}");
        }
        for right in [&b"123456789012345678901234567890"[..], b"-0.0", b"1e-999", b" null\n"] {
            assert_eq!(any.check_body(right), [], "{right:?}");
        }
        let small = schema(r#"{ "type": "integer", "maximum": 10 }"#);
        assert_eq!(small.check_body(b"123456789012345678901234567890").len(), 1);
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for text in [
            r##"{ "$ref": "#" }"##,
            r##"{ "allOf": [{ "$ref": "#" }] }"##,
            r##"{ "anyOf": [{ "$ref": "#" }, { "not": { "$ref": "#" } }] }"##,
            r##"{ "$dynamicRef": "#" }"##,
            r##"{ "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "allOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" }"##,
            r##"{ "if": { "$ref": "#" }, "then": { "$ref": "#" }, "unevaluatedProperties": { "$ref": "#" } }"##,
        ] {
            eprintln!("{text}");
            if let Ok(schema) = Schema::parse(text.as_bytes()) {
                schema.check_body(b"{\"a\": 1}");
            }
        }
    }

    /// A schema whose definitions each refer to the next one twice, named in this way.
    fn doubling(times: u32, refers: &str, named: &str) -> String {
        let name = |nth: u32| match named {
            "" => String::new(),
            named if named.ends_with(':') => format!("{named} \"d{nth}\", "),
            named => format!("{named}d{nth}\", "),
        };
        let one = |nth: u32| {
            let next = format!(r#"{{ "$ref": "{refers}d{}" }}"#, nth + 1);
            format!(r#""d{nth}": {{ {}"allOf": [{next}, {next}] }}"#, name(nth))
        };
        let all: Vec<String> = (0..times).map(one).collect();
        format!(
            r#"{{ "$ref": "{refers}d0", "$defs": {{ {}, "d{times}": {{ {}"type": "object" }} }} }}"#,
            all.join(", "),
            name(times)
        )
    }

    #[test]
    fn what_refers_to_the_same_a_few_times_is_taken() {
        for (refers, named) in [
            ("#/$defs/", ""),
            ("#", r#""$anchor":"#),
            ("https://a.example/", r#""$id": "https://a.example/"#),
        ] {
            let schema = schema(&doubling(4, refers, named));
            assert_eq!((schema.check_body(b"{}").len(), schema.check_body(b"1").is_empty()), (0, false));
        }
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for wrong in [
            "",
            "{",
            r#"{ "type": "strin" }"#,
            r#"{ "$ref": "https://a.example/b.json" }"#,
            r#"{ "pattern": "(" }"#,
            &doubling(40, "#/$defs/", ""),
            &doubling(100_000, "#/$defs/", ""),
            &doubling(40, "#", r#""$anchor":"#),
            &doubling(40, "https://a.example/", r#""$id": "https://a.example/"#),
        ] {
            assert!(Schema::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

//! The schema as the validator walks it: each of its nodes read off once, so that a large tree costs a look-up
//! for each key and no more.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use regex::Regex;
use serde_json::Value;

use super::{foreign, format, later, shorthand};

/// The schema's shapes. Shapes refer to each other by their places.
pub struct Shapes(Vec<Shape>);

/// The place of a shape.
#[derive(Clone, Copy)]
pub struct Place(usize);

/// What a value may be: each kind at most once, for that is what our types produce.
#[derive(Default)]
pub struct Shape {
    /// Whether its key may stand without a value.
    pub may_be_absent: bool,
    /// What people call the kinds, in the schema's order.
    pub kinds: Vec<&'static str>,
    pub scalar: Option<Scalar>,
    /// The items' shape.
    pub list: Option<Place>,
    pub map: Option<Map>,
}

/// A text, or what is read from one.
pub struct Scalar {
    pub later: &'static [&'static str],
    /// Words of other products for what this value says.
    pub foreign: &'static [foreign::Word],
    pub description: Option<Box<str>>,
    /// A value that would be right.
    pub example: Option<Box<str>>,
    pub kind: ScalarKind,
}

pub enum ScalarKind {
    Boolean,
    Integer {
        low: i128,
        high: i128,
    },
    /// One of these.
    Words(Vec<Box<str>>),
    Text {
        format: Box<str>,
        check: Option<format::Check>,
    },
}

/// A map: keys that are known, and keys that are chosen by people.
pub struct Map {
    pub later: &'static [&'static str],
    /// Words of other products for what this map says.
    pub foreign: &'static [foreign::Word],
    /// The key that a value alone stands for.
    pub shorthand: Option<&'static str>,
    /// Whether exactly one of the keys stands in it.
    pub is_choice: bool,
    pub keys: Keys,
    pub required: Vec<Box<str>>,
    pub patterns: Vec<(Regex, Place)>,
    pub names: Option<Scalar>,
    pub named: Option<Place>,
}

/// Keys in the schema's order.
#[derive(Default)]
pub struct Keys {
    list: Vec<Key>,
    places: HashMap<Box<str>, usize, RandomState>,
}

pub struct Key {
    pub name: Box<str>,
    pub shape: Place,
    pub description: Option<Box<str>>,
}

// === impl Shapes ===

impl Shapes {
    pub fn of(schema: &Value) -> Self {
        let mut reader = Reader { root: schema, shapes: Vec::new(), places: HashMap::new() };
        reader.place(schema, "");
        Self(reader.shapes)
    }

    /// The shape of a whole configuration.
    pub fn root(&self) -> &Shape {
        &self.0[0]
    }

    pub fn get(&self, place: Place) -> &Shape {
        &self.0[place.0]
    }

    /// The shape of a section of the configuration.
    pub fn section(&self, name: &str) -> Option<&Shape> {
        let key = self.root().map.as_ref()?.keys.find(name)?;
        Some(self.get(key.shape))
    }

    /// Whether the keys of a section are names that people choose.
    pub fn is_named(&self, section: &str) -> bool {
        let map = self.section(section).and_then(|section| section.map.as_ref());
        map.is_some_and(|map| map.names.is_some())
    }
}

// === impl Scalar ===

impl Scalar {
    /// Whether a text is a value of it. `None` where any text is.
    pub fn takes(&self, text: &str) -> Option<bool> {
        match &self.kind {
            ScalarKind::Boolean => Some(matches!(text, "true" | "false")),
            ScalarKind::Integer { low, high } => {
                Some(text.parse().is_ok_and(|number| (*low..=*high).contains(&number)))
            }
            ScalarKind::Words(words) => Some(words.iter().any(|word| **word == *text)),
            ScalarKind::Text { check: Some(check), .. } => Some(check(text).is_ok()),
            ScalarKind::Text { check: None, .. } => None,
        }
    }

    /// A value that would be right, as it is written.
    pub fn sample(&self) -> Option<&str> {
        match &self.kind {
            ScalarKind::Boolean => Some("true"),
            ScalarKind::Words(words) => words.first().map(|word| &**word),
            ScalarKind::Integer { .. } | ScalarKind::Text { .. } => self.example.as_deref(),
        }
    }
}

// === impl Map ===

impl Map {
    /// The place of the shape of a key's value; none where there is no such key.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.defined(key).or(self.named)
    }

    /// Whether a key is a name that people chose.
    pub fn is_name(&self, key: &str) -> bool {
        self.defined(key).is_none()
    }

    fn defined(&self, key: &str) -> Option<Place> {
        let known = self.keys.find(key).map(|known| known.shape);
        let pattern = || self.patterns.iter().find(|(pattern, _)| pattern.is_match(key));
        known.or_else(|| pattern().map(|(_, place)| *place))
    }
}

// === impl Keys ===

impl Keys {
    pub fn find(&self, name: &str) -> Option<&Key> {
        self.places.get(name).map(|place| &self.list[*place])
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().map(|key| &*key.name)
    }

    fn add(&mut self, key: Key) {
        self.places.insert(key.name.clone(), self.list.len());
        self.list.push(key);
    }
}

/// Reads the schema. `definition` is the one that a node stands in; the root is "".
struct Reader<'a> {
    root: &'a Value,
    shapes: Vec<Shape>,
    /// The shapes of the nodes that were met, by their addresses: types may contain themselves.
    places: HashMap<*const Value, Place>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn place(&mut self, schema: &'a Value, definition: &'a str) -> Place {
        let (schema, definition) = self.resolved(schema, definition);
        if let Some(place) = self.places.get(&std::ptr::from_ref(schema)) {
            return *place;
        }
        let place = Place(self.shapes.len());
        self.places.insert(schema, place);
        self.shapes.push(Shape::default());
        let mut shape = Shape { may_be_absent: is(schema, "null"), ..Shape::default() };
        self.alternatives(schema, definition, &mut shape);
        self.shapes[place.0] = shape;
        place
    }

    fn resolved(&self, mut schema: &'a Value, mut definition: &'a str) -> (&'a Value, &'a str) {
        while let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            (schema, definition) = (&self.root["$defs"][name], name);
        }
        (schema, definition)
    }

    /// Adds the kinds that a node allows: those of `anyOf`, or its own.
    fn alternatives(&mut self, schema: &'a Value, definition: &'a str, shape: &mut Shape) {
        let (schema, definition) = self.resolved(schema, definition);
        if schema["type"] == "null" {
            shape.may_be_absent = true;
        } else if let Some(schemas) = schema["anyOf"].as_array() {
            for schema in schemas {
                self.alternatives(schema, definition, shape);
            }
        } else {
            self.kinds(schema, definition, shape);
        }
    }

    fn kinds(&mut self, schema: &'a Value, definition: &'a str, shape: &mut Shape) {
        let choices = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        let (is_map, is_list) = (is(schema, "object") || any(choices, "object"), is(schema, "array"));
        let is_text = is(schema, "string") || any(choices, "string");
        if is_map && shape.map.is_none() {
            shape.map = Some(self.map(schema, choices, definition));
        }
        if is_list && shape.list.is_none() {
            shape.list = Some(self.place(&schema["items"], definition));
        }
        if is_text || is(schema, "integer") || is(schema, "boolean") {
            shape.scalar.get_or_insert_with(|| scalar(schema, choices, definition));
        }
        shape.kinds.push(match () {
            () if is_map => "a map",
            () if is_list => "a list",
            () if is(schema, "boolean") => "true or false",
            () if is(schema, "integer") => "a whole number",
            () => "a text",
        });
    }

    fn map(&mut self, schema: &'a Value, choices: &'a [Value], definition: &'a str) -> Map {
        let mut keys = Keys::default();
        let listed = std::iter::once(schema).chain(choices);
        for (name, part) in listed.filter_map(|schema| schema["properties"].as_object()).flatten() {
            let description = description(part);
            keys.add(Key { name: name.as_str().into(), shape: self.place(part, definition), description });
        }
        let patterns =
            schema["patternProperties"].as_object().into_iter().flatten().map(|(pattern, part)| {
                let pattern = Regex::new(pattern).expect("our types give the pattern");
                (pattern, self.place(part, definition))
            });
        let patterns = patterns.collect();
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names = schema.get("propertyNames").map(|names| {
            let (names, definition) = self.resolved(names, definition);
            scalar(names, &[], definition)
        });
        let named = schema.get("additionalProperties").filter(|part| part.is_object());
        Map {
            later: later::words(definition),
            foreign: foreign::words(definition),
            shorthand: shorthand::key(definition),
            is_choice: !choices.is_empty(),
            keys,
            required: required.map(Box::from).collect(),
            patterns,
            names,
            named: named.map(|part| self.place(part, definition)),
        }
    }
}

fn scalar(schema: &Value, choices: &[Value], definition: &str) -> Scalar {
    let format = schema["format"].as_str().unwrap_or_default();
    let words = words(schema, choices);
    let kind = if is(schema, "integer") {
        let (low, high) = bounds(schema);
        ScalarKind::Integer { low, high }
    } else if is(schema, "boolean") {
        ScalarKind::Boolean
    } else if words.is_empty() {
        ScalarKind::Text { format: format.into(), check: format::check_of(format) }
    } else {
        ScalarKind::Words(words)
    };
    Scalar {
        later: later::words(definition),
        foreign: foreign::values(definition),
        description: description(schema),
        example: schema["examples"][0].as_str().map(Box::from),
        kind,
    }
}

/// The words that a text may be, where it is one of some.
fn words(schema: &Value, choices: &[Value]) -> Vec<Box<str>> {
    let of = |schema: &Value| -> Vec<Box<str>> {
        let several = schema["enum"].as_array().into_iter().flatten();
        several.chain(schema.get("const")).filter_map(Value::as_str).map(Box::from).collect()
    };
    std::iter::once(schema).chain(choices).flat_map(of).collect()
}

/// What an integer may be: what the schema says, within what its type holds.
fn bounds(schema: &Value) -> (i128, i128) {
    let (low, high) = match schema["format"].as_str() {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint64") => (0, u64::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    let bound = |name: &str| schema[name].as_i64().map(i128::from);
    (bound("minimum").unwrap_or(low).max(low), bound("maximum").unwrap_or(high).min(high))
}

/// Whether a node's type is, or may be, the one named.
fn is(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(name) => name == kind,
        Value::Array(names) => names.iter().any(|name| name == kind),
        _ => false,
    }
}

fn any(choices: &[Value], kind: &str) -> bool {
    choices.iter().any(|choice| choice["type"] == kind)
}

fn description(schema: &Value) -> Option<Box<str>> {
    schema["description"].as_str().map(Box::from)
}

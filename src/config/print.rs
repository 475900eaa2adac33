//! The effective tree as YAML: what all files come to, secrets as their references.

use serde_yaml::{Mapping, Value};

use super::tree::{Kind, Node, Scalar, Style};

/// The tree as a person would write it in one file.
pub fn print(tree: &Node) -> String {
    serde_yaml::to_string(&value(tree)).expect("texts, lists and maps can always be written")
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar(scalar) => text(scalar),
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| (Value::from(&*key.text), value(node)));
            Value::Mapping(entries.collect::<Mapping>())
        }
    }
}

/// Numbers and booleans that look the same when written again stay unquoted.
fn text(scalar: &Scalar) -> Value {
    let shown = scalar.shown();
    let plain = scalar.style == Style::Plain && scalar.secret.is_none();
    match (shown, shown.parse::<i64>()) {
        ("true" | "false", _) if plain => Value::Bool(shown == "true"),
        (_, Ok(number)) if plain && number.to_string() == shown => number.into(),
        _ => shown.into(),
    }
}

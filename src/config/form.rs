//! The smallest right form of a value that has the wrong type, made of the value itself.

use super::{
    shape::{Map, Scalar, Shape, Shapes},
    tree::{Kind, Node},
};
use crate::diagnostic::Sources;

/// A longer entry is not shown whole.
const LONGEST: usize = 60;

/// Help that shows how to write the node where `shape` is wanted.
pub fn right_form(node: &Node, shape: &Shape, shapes: &Shapes, sources: &Sources) -> Option<String> {
    match (&node.kind, shape) {
        (Kind::Scalar(written), Shape { map: Some(map), .. }) => match map.names {
            Some(_) => Some("write a map from a name of your choice to its settings: NAME: { ... }".into()),
            None => in_map(&written.text, map, shapes),
        },
        (Kind::List(items), Shape { map: Some(Map { names: Some(_), .. }), .. }) => {
            let first = items.first().map(|item| sources.written(item.span));
            let entry = first.filter(|entry| entry.len() <= LONGEST && !entry.contains('\n'));
            Some(format!(
                "write a name before each entry instead of \"-\": NAME: {}",
                entry.unwrap_or("{ ... }")
            ))
        }
        (Kind::List(items), Shape { list: None, .. }) => match &items[..] {
            [one] => Some(format!("write {} without brackets", sources.written(one.span))),
            _ => None,
        },
        _ => None,
    }
}

/// What a word that is often written for true or false means.
pub fn boolean(text: &str) -> Option<&'static str> {
    match &*text.to_ascii_lowercase() {
        "yes" | "on" | "1" | "enabled" | "true" => Some("true"),
        "no" | "off" | "0" | "disabled" | "false" => Some("false"),
        _ => None,
    }
}

/// The value under the key that takes it, or else an example of the key that matters most.
fn in_map(text: &str, map: &Map, shapes: &Shapes) -> Option<String> {
    let values = || map.keys.names().filter_map(|key| Some((key, shapes.get(map.place_of(key)?))));
    let takes = |(_, shape): &(&str, &Shape)| {
        scalar(shape, shapes).and_then(|scalar| scalar.takes(text)) == Some(true)
    };
    if let Some((key, shape)) = values().find(takes) {
        return Some(format!("write {{ {key}: {} }}", listed(text, shape)));
    }
    let required = |key: &str| map.required.iter().any(|name| **name == *key);
    let first = values().find(|(key, _)| required(key)).or_else(|| values().next());
    let (key, shape) = first?;
    let sample = scalar(shape, shapes).and_then(Scalar::sample);
    Some(format!("write {{ {key}: {} }}", listed(sample.unwrap_or("..."), shape)))
}

/// What is read from a text: the value, or an item where a list is wanted.
fn scalar<'a>(shape: &'a Shape, shapes: &'a Shapes) -> Option<&'a Scalar> {
    let item = || shape.list.and_then(|item| shapes.get(item).scalar.as_ref());
    shape.scalar.as_ref().or_else(item)
}

fn listed(text: &str, shape: &Shape) -> String {
    match shape.scalar.is_none() && shape.list.is_some() {
        true => format!("[{text}]"),
        false => text.to_owned(),
    }
}

//! How large a schema is when everything that it refers to is written out in the place of the reference.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The number of its values, as far as that can be counted. What refers to itself is written out once; what
/// lies too deep is too much.
pub fn size(schema: &Value) -> u64 {
    let mut named = Named::default();
    named.collect(schema);
    Unfolding { root: schema, named, sizes: HashMap::new(), depth: 0 }.of(schema)
}

/// Parts of a schema that have names: by `$anchor` and its like, and by the last segment of their `$id`.
#[derive(Default)]
struct Named<'s> {
    anchors: HashMap<&'s str, &'s Value>,
    ids: HashMap<&'s str, &'s Value>,
}

struct Unfolding<'s> {
    root: &'s Value,
    named: Named<'s>,
    /// By where they lie in memory; `None` while a part is written out.
    sizes: HashMap<*const Value, Option<u64>>,
    depth: usize,
}

/// How deep values may lie in one another, written out.
const DEEPEST: usize = 500;

impl<'s> Named<'s> {
    fn collect(&mut self, value: &'s Value) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    match (key.as_str(), member) {
                        ("$anchor" | "$dynamicAnchor", Value::String(name)) => {
                            self.anchors.insert(name, value);
                        }
                        ("$id" | "id", Value::String(id)) => {
                            self.ids.insert(last_segment(id), value);
                            // Before draft 2019-09 anchors were ids.
                            id.strip_prefix('#').map(|name| self.anchors.insert(name, value));
                        }
                        _ => self.collect(member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            _ => {}
        }
    }
}

impl<'s> Unfolding<'s> {
    fn of(&mut self, value: &'s Value) -> u64 {
        let place: *const Value = value;
        if let Some(known) = self.sizes.get(&place) {
            return known.unwrap_or(0);
        }
        if self.depth == DEEPEST {
            return u64::MAX;
        }
        self.depth += 1;
        self.sizes.insert(place, None);
        let size = match value {
            Value::Object(members) => members
                .iter()
                .fold(1_u64, |size, (key, member)| size.saturating_add(self.member(key, member))),
            Value::Array(items) => items.iter().fold(1_u64, |size, item| size.saturating_add(self.of(item))),
            _ => 1,
        };
        self.sizes.insert(place, Some(size));
        self.depth -= 1;
        size
    }

    fn member(&mut self, key: &str, member: &'s Value) -> u64 {
        match (key, member) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                self.target(reference).map_or(1, |target| self.of(target))
            }
            // What is only defined counts where it is referred to.
            ("$defs" | "definitions", _) => 1,
            _ => self.of(member),
        }
    }

    fn target(&self, reference: &str) -> Option<&'s Value> {
        let (id, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let resource = match id {
            "" => self.root,
            id => self.named.ids.get(last_segment(id)).copied()?,
        };
        let fragment = percent_decode_str(fragment).decode_utf8_lossy();
        match fragment.is_empty() || fragment.starts_with('/') {
            true => resource.pointer(&fragment).or_else(|| self.root.pointer(&fragment)),
            false => self.named.anchors.get(&*fragment).copied(),
        }
    }
}

fn last_segment(id: &str) -> &str {
    let path = id.split('#').next().unwrap_or_default().trim_end_matches('/');
    path.rsplit('/').next().unwrap_or_default()
}

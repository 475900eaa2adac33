//! Short forms: one value where a list may stand, and a value alone where a map has one obvious key for it.
//! They are written out in the tree, so that everything behind this pass sees one form only.

use super::{
    form,
    shape::{Map, Shape, Shapes},
    tree::{Key, Kind, Node},
};

/// The schema's definition and the key that a value alone stands for.
const SHORTHANDS: &[(&str, &str)] = &[
    ("Admin", "bind"),
    ("BandwidthLimit", "rate"),
    ("BodyLimit", "size"),
    ("Buffer", "size"),
    ("CanonicalHost", "to"),
    ("Compress", "algorithms"),
    ("Concurrency", "max"),
    ("ContentTypes", "allow"),
    ("Cors", "origins"),
    ("Decompress", "algorithms"),
    ("EarlyHints", "links"),
    ("Hsts", "max_age"),
    ("HttpCheck", "path"),
    ("Listener", "bind"),
    ("ListenerRedirect", "scheme"),
    ("ListenerTls", "certificates"),
    ("Log", "level"),
    ("Maintenance", "active"),
    ("Methods", "allow"),
    ("Metrics", "path"),
    ("Mirror", "upstream"),
    ("Process", "threads"),
    ("Proxy", "upstream"),
    ("ProxyProtocol", "from"),
    ("RateLimit", "rate"),
    ("Redirect", "to"),
    ("Redis", "url"),
    ("RequestId", "header"),
    ("Sticky", "cookie"),
    ("Tracing", "otlp"),
    ("TrustedProxies", "from"),
    ("Upstream", "endpoints"),
];

/// The key of a definition's map that a value alone stands for.
pub fn key(definition: &str) -> Option<&'static str> {
    SHORTHANDS.iter().find(|(name, _)| *name == definition).map(|(_, key)| *key)
}

/// Writes the short forms in a tree out.
pub fn expand(tree: &mut Node, shapes: &Shapes) {
    node(tree, shapes.root(), shapes);
}

/// The same for one node of a section.
pub fn expand_section(tree: &mut Node, section: &str, shapes: &Shapes) {
    if let Some(shape) = shapes.section(section) {
        node(tree, shape, shapes);
    }
}

fn node(node: &mut Node, shape: &Shape, shapes: &Shapes) {
    if is_lone_item(node, shape) {
        wrap(node, |node| Kind::List(vec![node]));
    } else if let Some(key) = shorthand(node, shape, shapes) {
        wrap(node, |node| Kind::Map(vec![(Key { text: key.into(), span: node.span }, node)]));
    }
    match (&mut node.kind, shape) {
        (Kind::List(items), Shape { list: Some(item), .. }) => {
            items.iter_mut().for_each(|part| self::node(part, shapes.get(*item), shapes));
        }
        (Kind::Map(entries), Shape { map: Some(map), .. }) => {
            for (key, value) in entries {
                if let Some(part) = value_of(&key.text, map, shapes) {
                    self::node(value, part, shapes);
                }
            }
        }
        _ => {}
    }
}

/// Whether a list is wanted and nothing else can be meant by one value.
fn is_lone_item(node: &Node, shape: &Shape) -> bool {
    shape.list.is_some()
        && match node.kind {
            Kind::Scalar(_) => shape.scalar.is_none(),
            Kind::Map(_) => shape.map.is_none(),
            Kind::Null | Kind::List(_) => false,
        }
}

/// The key that the value alone stands for, where its map is wanted and the key takes such a value.
fn shorthand(node: &Node, shape: &Shape, shapes: &Shapes) -> Option<&'static str> {
    let map = shape.map.as_ref()?;
    let key = map.shorthand?;
    let value = value_of(key, map, shapes)?;
    let scalar = || value.scalar.as_ref().or_else(|| shapes.get(value.list?).scalar.as_ref());
    let fits = match &node.kind {
        Kind::Scalar(written) => {
            // Whoever switches something on has to see what there is to say.
            let is_switch = || form::boolean(&written.text).is_some();
            shape.scalar.is_none()
                && scalar().is_some_and(|scalar| scalar.takes(&written.text) == Some(true) || !is_switch())
        }
        Kind::List(_) => shape.list.is_none() && value.list.is_some(),
        Kind::Null | Kind::Map(_) => false,
    };
    fits.then_some(key)
}

fn value_of<'a>(key: &str, map: &'a Map, shapes: &'a Shapes) -> Option<&'a Shape> {
    map.place_of(key).map(|place| shapes.get(place))
}

fn wrap(node: &mut Node, kind: impl FnOnce(Node) -> Kind) {
    let inner = std::mem::replace(node, Node::null(node.span));
    node.kind = kind(inner);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{
            parse::{Budget, Syntax, parse},
            print, schema,
        },
        diagnostic::Diagnostics,
        value::FileId,
    };

    fn expanded(text: &str) -> String {
        let mut out = Diagnostics::default();
        let mut tree = parse(Syntax::Yaml, FileId(0), text, &mut Budget::default(), &mut out).unwrap();
        let shapes = Shapes::of(&schema::strict());
        expand(&mut tree, &shapes);
        let once = print(&tree);
        expand(&mut tree, &shapes);
        assert_eq!(print(&tree), once, "a second pass changes nothing");
        once
    }

    #[test]
    fn short_forms_are_written_out() {
        for (short, long) in [
            ("log: debug", "log:\n  level: debug\n"),
            ("listeners: { web: \":80\" }", "listeners:\n  web:\n    bind: :80\n"),
            ("upstreams: { a: \"b:1\" }", "upstreams:\n  a:\n    endpoints:\n    - b:1\n"),
            ("tests: {}", "tests:\n- {}\n"),
            ("access_log: false", "access_log: false\n"),
            ("hosts: { a: { middleware: x } }", "hosts:\n  a:\n    middleware:\n    - x\n"),
            ("log: [a]", "log:\n- a\n"),
        ] {
            assert_eq!(expanded(short), long, "{short}");
        }
    }

    #[test]
    fn every_shorthand_names_a_definition_and_its_key() {
        let schema = schema::strict();
        for (definition, key) in SHORTHANDS {
            let properties = &schema["$defs"][definition]["properties"];
            assert!(properties[key].is_object(), "{definition} has no {key}");
        }
    }
}

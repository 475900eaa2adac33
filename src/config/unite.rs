//! Several files become one tree: sections of names unite, all else stands once.

use std::collections::HashMap;

use super::{
    shape::Shapes,
    tree::{Key, Kind, Node},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::Span,
};

const REPLACE: &str = "to replace it on purpose, say so under `override`";

/// The tree of all parts. The shapes say which sections are maps of names.
pub fn unite(parts: Vec<Node>, shapes: &Shapes, diagnostics: &mut Diagnostics) -> Option<Node> {
    let span = parts.first()?.span;
    let mut united: Vec<(Key, Node)> = Vec::new();
    let mut sections: HashMap<Box<str>, usize> = HashMap::new();
    let mut names: HashMap<(usize, Box<str>), Span> = HashMap::new();
    for (key, node) in parts.into_iter().filter_map(entries).flatten() {
        let Some(at) = sections.get(&key.text).copied() else {
            remember(&mut names, united.len(), &node);
            sections.insert(key.text.clone(), united.len());
            united.push((key, node));
            continue;
        };
        let (first, into) = &mut united[at];
        match (&mut into.kind, node.kind) {
            (_, Kind::Null) => {}
            (into @ Kind::Null, kind) => {
                *into = kind;
                remember(&mut names, at, &united[at].1);
            }
            (Kind::Map(into), Kind::Map(more)) if shapes.is_named(&key.text) => {
                add(into, more, at, &key, &mut names, diagnostics);
            }
            (Kind::List(into), Kind::List(more)) if &*key.text == "tests" => into.extend(more),
            _ => diagnostics.push(
                Diagnostic::error(Code::DuplicateSection, key.span, format!("`{}` stands twice", key.text))
                    .reason("again here")
                    .label(first.span, "first here")
                    .help(REPLACE),
            ),
        }
    }
    Some(Node::map(span, united))
}

fn entries(part: Node) -> Option<Vec<(Key, Node)>> {
    match part.kind {
        Kind::Map(entries) => Some(entries),
        _ => None,
    }
}

fn remember(names: &mut HashMap<(usize, Box<str>), Span>, section: usize, node: &Node) {
    let keys = node.as_map().unwrap_or_default().iter().map(|(key, _)| key);
    names.extend(keys.map(|key| ((section, key.text.clone()), key.span)));
}

fn add(
    into: &mut Vec<(Key, Node)>,
    more: Vec<(Key, Node)>,
    section: usize,
    title: &Key,
    names: &mut HashMap<(usize, Box<str>), Span>,
    diagnostics: &mut Diagnostics,
) {
    for (key, node) in more {
        match names.get(&(section, key.text.clone())) {
            Some(first) => diagnostics.push(
                Diagnostic::error(
                    Code::DuplicateName,
                    key.span,
                    format!("`{}` stands twice under `{}`", key.text, title.text),
                )
                .reason("again here")
                .label(*first, "first here")
                .help(REPLACE),
            ),
            None => {
                names.insert((section, key.text.clone()), key.span);
                into.push((key, node));
            }
        }
    }
}

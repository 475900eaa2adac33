//! Walks the tree against the schema and reports every unknown key, missing key, wrong type and bad value.
//! A tree that passes can be decoded.

use std::collections::HashSet;

use super::{
    braces,
    foreign::{self, Meant},
    form,
    format::WITH_UNIT,
    include::Reading,
    shape::{Map, Scalar, ScalarKind, Shape, Shapes},
    tree::{self, Key, Kind, Node},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Sources, closest},
    value::Span,
};

/// Reports all that keeps the tree from being a document.
pub fn validate(tree: &Node, shapes: &Shapes, reading: &mut Reading<'_>) {
    let Reading { sources, diagnostics, unresolved, .. } = reading;
    let mut validator = Validator { shapes, sources, unresolved, diagnostics };
    validator.value(tree, shapes.root(), tree.span);
}

/// The same for one node of a section.
pub fn section(node: &Node, section: &str, shapes: &Shapes, reading: &mut Reading<'_>) {
    let Reading { sources, diagnostics, unresolved, .. } = reading;
    let mut validator = Validator { shapes, sources, unresolved, diagnostics };
    if let Some(shape) = shapes.section(section) {
        validator.value(node, shape, node.span);
    }
}

struct Validator<'a> {
    shapes: &'a Shapes,
    sources: &'a Sources,
    unresolved: &'a HashSet<Span>,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Validator<'a> {
    /// `at` is what people see as the value's beginning: its key, or itself.
    fn value(&mut self, node: &Node, shape: &'a Shape, at: Span) {
        if self.diagnostics.is_full() || (node.is_null() && shape.may_be_absent) {
            return;
        }
        match (&node.kind, shape) {
            // Nothing is an empty map or list where nothing else can be meant.
            (Kind::Null, Shape { map: Some(map), kinds, .. }) if kinds.len() == 1 => self.map(&[], map, at),
            (Kind::Null, Shape { list: Some(_), kinds, .. }) if kinds.len() == 1 => {}
            // What a wrong reference would have stood for is not known.
            (Kind::Scalar(_), Shape { scalar: Some(_), .. }) if self.unresolved.contains(&node.span) => {}
            (Kind::Scalar(written), Shape { scalar: Some(scalar), .. }) => {
                self.scalar(written, scalar, node.span)
            }
            (Kind::List(items), Shape { list: Some(part), .. }) => {
                let part = self.shapes.get(*part);
                items.iter().for_each(|item| self.value(item, part, item.span));
            }
            (Kind::Map(_), Shape { scalar: Some(_), map: Some(map), .. }) if self.is_unquoted(node, map) => {
                self.unquoted(node);
            }
            (Kind::Map(entries), Shape { map: Some(map), .. }) => self.map(entries, map, at),
            _ => self.wrong_type(node, shape, at),
        }
    }

    fn map(&mut self, entries: &[(Key, Node)], map: &'a Map, at: Span) {
        match map.is_choice {
            true => self.choice(entries, map, at),
            false => self.object(entries, map, at),
        }
    }

    fn object(&mut self, entries: &[(Key, Node)], map: &'a Map, at: Span) {
        for (key, value) in entries {
            match self.entry(key, map) {
                Some(part) => self.value(value, part, key.span),
                None => self.unknown(key, map),
            }
        }
        // What is missing may be said by a word that is yet to come.
        if !map.later.is_empty() && entries.iter().any(|(key, _)| map.later.contains(&&*key.text)) {
            return;
        }
        for missing in map.required.iter().filter(|name| !entries.iter().any(|(key, _)| key.text == **name)) {
            let message = format!("`{missing}` is missing");
            let description = map.keys.find(missing).and_then(|key| key.description.as_ref());
            let help = description.map(|description| format!("{missing}: {description}"));
            let diagnostic = Diagnostic::error(Code::MissingKey, at, message);
            self.diagnostics.push(diagnostic.reason(format!("has no `{missing}`")).maybe_help(help));
        }
    }

    /// The shape of a key's value; none where there is no such key.
    fn entry(&mut self, key: &Key, map: &'a Map) -> Option<&'a Shape> {
        let place = map.place_of(&key.text)?;
        if let Some(names) = map.names.as_ref().filter(|_| map.is_name(&key.text)) {
            self.text(&key.text, &key.text, names, key.span);
        }
        Some(self.shapes.get(place))
    }

    /// A map whose one key says which of several it is.
    fn choice(&mut self, entries: &[(Key, Node)], map: &'a Map, at: Span) {
        let mut chosen: Option<&Key> = None;
        for (key, value) in entries {
            let Some(known) = map.keys.find(&key.text) else {
                self.unknown(key, map);
                continue;
            };
            self.value(value, self.shapes.get(known.shape), key.span);
            if let Some(first) = chosen {
                let message = format!("`{}` and `{}` stand in one map", first.text, key.text);
                let diagnostic =
                    Diagnostic::error(Code::BadValue, key.span, message).label(first.span, "the other");
                let help = format!("one of {}, each in a map of its own", list(map.keys.names()));
                self.diagnostics.push(diagnostic.help(help));
            }
            chosen = chosen.or(Some(key));
        }
        if entries.is_empty() {
            let message = format!("one of {} is missing", list(map.keys.names()));
            self.diagnostics.push(Diagnostic::error(Code::MissingKey, at, message));
        }
    }

    fn unknown(&mut self, key: &Key, map: &Map) {
        if self.diagnostics.is_full() {
            return;
        }
        let word = &*key.text;
        self.diagnostics.push(if map.later.contains(&word) {
            Diagnostic::error(Code::NotSupportedYet, key.span, format!("`{word}` is not supported yet"))
        } else {
            let known = map.keys.names();
            let are_known = known.clone().next().is_some();
            let diagnostic = Diagnostic::error(Code::UnknownKey, key.span, format!("unknown key `{word}`"));
            let foreign = foreign::meant(map.foreign, word);
            let diagnostic = match (foreign, closest(word, known.clone()), are_known) {
                (Some(Meant::Key(near)), ..) | (None, Some(near), _) => {
                    diagnostic.reason(format!("did you mean `{near}`?"))
                }
                (Some(Meant::Elsewhere(_)), ..) | (None, None, true) => diagnostic.reason("unknown here"),
                (None, None, false) => diagnostic.reason("nothing may stand here"),
            };
            match foreign {
                Some(Meant::Elsewhere(help)) => diagnostic.help(help),
                _ => diagnostic.maybe_help(are_known.then(|| format!("the keys here are {}", list(known)))),
            }
        });
    }

    fn scalar(&mut self, written: &tree::Scalar, scalar: &Scalar, span: Span) {
        match scalar.kind {
            ScalarKind::Integer { low, high } => self.integer(written, low, high, span),
            ScalarKind::Boolean if matches!(&*written.text, "true" | "false") => {}
            ScalarKind::Boolean => {
                let message = format!("expected true or false, found `{}`", written.shown());
                let help = form::boolean(&written.text).map(|word| format!("write {word}"));
                self.diagnostics.push(Diagnostic::error(Code::WrongType, span, message).maybe_help(help));
            }
            ScalarKind::Words(_) | ScalarKind::Text { .. } => {
                self.text(&written.text, written.shown(), scalar, span)
            }
        }
    }

    fn text(&mut self, text: &str, shown: &str, scalar: &Scalar, span: Span) {
        let (name, check) = match &scalar.kind {
            ScalarKind::Words(words) => return self.word(text, shown, scalar, words, span),
            ScalarKind::Text { format, check: Some(check) } => (&**format, check),
            _ => return,
        };
        let Err(reason) = check(text) else { return };
        // The reason quotes the text, or parts of it.
        let reason =
            if text == shown { reason } else { format!("the value of {shown} is no {}", plain(name)) };
        let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let code = if bare && WITH_UNIT.contains(&name) { Code::MissingUnit } else { Code::BadValue };
        let diagnostic = Diagnostic::error(code, span, reason);
        self.diagnostics.push(diagnostic.maybe_help(scalar.description.as_deref()));
    }

    fn word(&mut self, text: &str, shown: &str, scalar: &Scalar, words: &[Box<str>], span: Span) {
        if words.iter().any(|word| **word == *text) {
            return;
        }
        let words = words.iter().map(|word| &**word);
        self.diagnostics.push(if scalar.later.contains(&text) {
            Diagnostic::error(Code::NotSupportedYet, span, format!("`{shown}` is not supported yet"))
        } else {
            let message = match words.len() {
                1 => format!("expected `{}`, found `{shown}`", list(words.clone())),
                _ => format!("`{shown}` is not one of {}", list(words.clone())),
            };
            let help = match foreign::meant(scalar.foreign, shown) {
                Some(Meant::Elsewhere(help)) => Some(help.to_owned()),
                Some(Meant::Key(near)) => Some(format!("did you mean `{near}`?")),
                None => closest(shown, words).map(|near| format!("did you mean `{near}`?")),
            };
            Diagnostic::error(Code::BadValue, span, message).maybe_help(help)
        });
    }

    fn integer(&mut self, written: &tree::Scalar, low: i128, high: i128, span: Span) {
        let shown = written.shown();
        let Ok(number) = written.text.parse::<i128>() else {
            let message = format!("expected a whole number, found `{shown}`");
            self.diagnostics.push(Diagnostic::error(Code::WrongType, span, message));
            return;
        };
        if !(low..=high).contains(&number) || (low == 0 && written.text.starts_with('-')) {
            let message = format!("{shown} is not from {low} to {high}");
            self.diagnostics.push(Diagnostic::error(Code::BadValue, span, message));
        }
    }

    fn wrong_type(&mut self, node: &Node, shape: &Shape, at: Span) {
        if shape.scalar.is_some() && braces::is_placeholder(node, self.sources) {
            return self.unquoted(node);
        }
        let found = match &node.kind {
            Kind::Scalar(scalar) => format!("the text `{}`", scalar.shown()),
            _ => node.what().to_owned(),
        };
        let message = format!("expected {}, found {found}", shape.kinds.join(" or "));
        let span = if node.is_null() { at } else { node.span };
        let help = form::right_form(node, shape, self.shapes, self.sources);
        self.diagnostics.push(Diagnostic::error(Code::WrongType, span, message).maybe_help(help));
    }

    /// Where a text may stand beside a map that has no such key, `{id}` was meant as a text.
    fn is_unquoted(&self, node: &Node, map: &Map) -> bool {
        let key = node.as_map().and_then(|entries| entries.first()).map(|(key, _)| &*key.text);
        let is_known = |key| !map.is_choice && map.keys.find(key).is_some();
        key.is_some_and(|key| !is_known(key)) && braces::is_placeholder(node, self.sources)
    }

    fn unquoted(&mut self, node: &Node) {
        self.diagnostics.push(braces::diagnostic(node.span, self.sources.written(node.span)));
    }
}

fn plain(format: &str) -> &str {
    format.strip_prefix("portolan:").unwrap_or(format)
}

fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

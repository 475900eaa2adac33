//! What is wrong in a tree shall not hide what is wrong with the meaning of the rest: of each definition what is
//! sound stays in the document, down to the single setting, and what it has lost by that is remembered.

use super::{
    Document, LeftOut,
    decode::decode,
    later,
    shape::{Map, Shape, Shapes},
    tree::{Key, Kind, Node},
};
use crate::{
    diagnostic::{Code, Diagnostics},
    value::Span,
};

/// What requests a route is for: without one of these it is another route.
const CONDITIONS: [&str; 7] = ["path", "methods", "headers", "query", "cookies", "client_ip", "priority"];
/// What has entries that stand for themselves: the others mean the same without one.
const INDEPENDENT: [&str; 2] = ["routes", "middleware"];

/// The document of what is sound in a tree; none where too much is wrong with it. `whole` says whether all
/// files are in it.
pub fn sound_part(tree: &Node, shapes: &Shapes, problems: &Diagnostics, whole: bool) -> Option<Document> {
    if problems.is_full() {
        return None;
    }
    let left_out = LeftOut::something(!whole);
    let mut sieve = Sieve { shapes, faults: Faults::of(problems), left_out, filled: false, in_route: false };
    let sections = tree.as_map()?.iter().filter_map(|(key, node)| sieve.section(key, node)).collect();
    let mut document: Document = decode(&Node::map(tree.span, sections)).ok()?;
    document.left_out = sieve.left_out;
    Some(document)
}

/// Lets through what has no problem in it.
struct Sieve<'a> {
    shapes: &'a Shapes,
    faults: Faults,
    left_out: LeftOut,
    /// Whether an empty list was put in anywhere.
    filled: bool,
    /// Whether it is a route that is looked at: no other has its chain.
    in_route: bool,
}

type Entry = (Key, Node);

/// What came through of a node.
struct Sifted {
    node: Option<Node>,
    /// Whether it is a list, or a map of names, that has fewer than were written.
    is_less: bool,
}

/// What a map has lost.
#[derive(Default)]
struct Losses {
    entries: Vec<Entry>,
    /// Whether a setting is not there, or not as it was written.
    setting: bool,
    /// Whether one of the names that people chose is not there.
    name: bool,
    path: bool,
}

// === impl Sieve ===

impl<'a> Sieve<'a> {
    fn section(&mut self, key: &Key, node: &Node) -> Option<Entry> {
        let shape = self.shapes.section(&key.text).filter(|_| !self.faults.condemn(key.span));
        let Some(shape) = shape else {
            // It may be the misspelt name of any section.
            let is_known = self.shapes.section(&key.text).is_some() || later::is_later("", &key.text);
            self.left_out.anything |= !is_known;
            return self.lose_section(key);
        };
        let named = shape.map.as_ref().filter(|map| map.names.is_some()).and_then(|map| map.named);
        let kind = match (&node.kind, named) {
            _ if !self.faults.within(key.span) && !self.faults.touch(node) => node.kind.clone(),
            _ if self.faults.condemn(node.span) => return self.lose_section(key),
            (Kind::Map(entries), Some(named)) => {
                let shape = self.shapes.get(named);
                Kind::Map(
                    entries.iter().filter_map(|entry| self.definition(&key.text, entry, shape)).collect(),
                )
            }
            (Kind::List(items), _) => Kind::List(self.list(items, shape)?.0),
            _ => {
                self.left_out.torn.insert(key.text.clone());
                match self.sift(Some(key), node, shape).node {
                    Some(node) => node.kind,
                    None => return self.lose_section(key),
                }
            }
        };
        Some((key.clone(), Node { span: node.span, kind }))
    }

    fn lose_section<T>(&mut self, key: &Key) -> Option<T> {
        self.left_out.middleware = true;
        self.left_out.sections.insert(key.text.clone());
        None
    }

    fn definition(&mut self, section: &str, (name, node): &Entry, shape: &'a Shape) -> Option<Entry> {
        if !self.faults.condemn(name.span) && !self.faults.touch(node) && !self.faults.within(name.span) {
            return Some((name.clone(), node.clone()));
        }
        self.left_out.middleware |= section == "middleware";
        self.left_out.torn.insert(section.into());
        (self.filled, self.in_route) = (false, section == "route_sets");
        let sifted = (!self.faults.condemn(name.span)).then(|| self.sift(Some(name), node, shape).node);
        if self.filled {
            // That a list is empty may be told of the whole.
            self.left_out.doubts.within.insert(name.span);
        }
        let sound = sifted.flatten();
        if sound.is_none() {
            self.left_out.names.insert((section.into(), name.text.clone()));
        }
        Some((name.clone(), sound?))
    }

    /// What of a node is sound. `at` is the key that it stands at.
    fn sift(&mut self, at: Option<&Key>, node: &Node, shape: &'a Shape) -> Sifted {
        let lacks_keys = at.is_some_and(|key| self.faults.at(key.span)) || self.faults.at(node.span);
        if !lacks_keys && !self.faults.touch(node) {
            return Sifted { node: Some(node.clone()), is_less: false };
        }
        let gone = Sifted { node: None, is_less: false };
        if self.faults.condemn(node.span) {
            return gone;
        }
        let (kind, is_less) = match &node.kind {
            Kind::Null if shape.map.is_some() => match self.map(at, node, &[], shape) {
                Some(sifted) => sifted,
                None => return gone,
            },
            Kind::Map(entries) => match self.map(at, node, entries, shape) {
                Some(sifted) => sifted,
                None => return gone,
            },
            Kind::List(items) => match self.list(items, shape) {
                Some((items, is_less)) if !items.is_empty() => (Kind::List(items), is_less),
                _ => return gone,
            },
            _ => return gone,
        };
        Sifted { node: Some(Node { span: node.span, kind }), is_less }
    }

    fn list(&mut self, items: &[Node], shape: &'a Shape) -> Option<(Vec<Node>, bool)> {
        let part = self.shapes.get(shape.list?);
        let mut is_less = false;
        let mut sound = Vec::with_capacity(items.len());
        for item in items {
            let sifted = self.sift(None, item, part);
            is_less |= sifted.node.is_none() || sifted.is_less;
            sound.extend(sifted.node);
        }
        Some((sound, is_less))
    }

    /// What of a map is sound; none where it cannot do without what is not.
    fn map(
        &mut self,
        at: Option<&Key>,
        node: &Node,
        entries: &[Entry],
        shape: &'a Shape,
    ) -> Option<(Kind, bool)> {
        let map = shape.map.as_ref()?;
        let mut losses = Losses::default();
        for entry in entries {
            self.entry(entry, map, &mut losses);
        }
        for required in &map.required {
            if losses.entries.iter().any(|(key, _)| key.text == *required) {
                continue;
            }
            // Of what there may be several, there may be none: that is told of, unless it is for want of this.
            let shape = map.keys.find(required).map(|key| self.shapes.get(key.shape))?;
            shape.list?;
            (self.filled, losses.setting) = (true, true);
            losses.path |= &**required == "path";
            let nothing = Node { span: node.span, kind: Kind::List(Vec::new()) };
            losses.entries.push((Key { text: required.clone(), span: node.span }, nothing));
        }
        if losses.setting {
            self.doubt(at, node, losses.path);
        }
        if map.is_choice && losses.entries.len() != 1 {
            return None;
        }
        Some((Kind::Map(losses.entries), losses.name))
    }

    fn entry(&mut self, (key, value): &Entry, map: &'a Map, losses: &mut Losses) {
        let known = map.keys.find(&key.text);
        let pattern = || map.patterns.iter().find(|(pattern, _)| pattern.is_match(&key.text));
        let shape = known
            .map(|known| known.shape)
            .or_else(|| pattern().map(|(_, place)| *place))
            .or(map.named)
            .filter(|_| !self.faults.condemn(key.span));
        let touched = self.faults.within(key.span) || self.faults.touch(value);
        let outside = self.in_route;
        self.in_route |= &*key.text == "routes";
        let sifted = match shape {
            Some(shape) => self.sift(Some(key), value, self.shapes.get(shape)),
            None => Sifted { node: None, is_less: false },
        };
        self.in_route = outside;
        let is_lost = sifted.node.is_none();
        if touched && &*key.text == "middleware" {
            self.tear(value);
        }
        match known {
            None if map.named.is_none() && map.patterns.is_empty() => losses.setting = true,
            None => losses.name |= is_lost || sifted.is_less,
            Some(_) => {
                let is_less = sifted.is_less && !INDEPENDENT.contains(&&*key.text);
                let is_another = touched && (map.is_choice || CONDITIONS.contains(&&*key.text));
                losses.setting |= is_lost || is_less || is_another;
                losses.path |= is_lost && &*key.text == "path";
            }
        }
        losses.entries.extend(sifted.node.map(|node| (key.clone(), node)));
    }

    /// Remembers that a chain has lost a part.
    fn tear(&mut self, chain: &Node) {
        let LeftOut { doubts, middleware, .. } = &mut self.left_out;
        match self.in_route {
            true => spans(chain, &mut |span| {
                doubts.chains.insert(span);
            }),
            false => *middleware = true,
        }
    }

    /// Remembers that a map has lost a setting.
    fn doubt(&mut self, at: Option<&Key>, node: &Node, path: bool) {
        let doubts = &mut self.left_out.doubts;
        let own = at.map(|key| key.span).into_iter().chain([node.span]);
        doubts.themselves.extend(own.clone());
        doubts.within.extend(own);
        spans(node, &mut |span| {
            doubts.within.insert(span);
            if path {
                doubts.pathless.insert(span);
            }
        });
    }
}

/// The places of all in a node but routes, which are something of their own.
fn spans(node: &Node, found: &mut impl FnMut(Span)) {
    match &node.kind {
        Kind::Null | Kind::Scalar(_) => {}
        Kind::List(items) => items.iter().for_each(|item| spans(item, found)),
        Kind::Map(entries) => {
            for (key, value) in entries.iter().filter(|(key, _)| &*key.text != "routes") {
                found(key.span);
                spans(value, found);
            }
        }
    }
    found(node.span);
}

/// Where the errors are, sorted.
struct Faults(Vec<(Span, Code)>);

// === impl Faults ===

impl Faults {
    fn of(problems: &Diagnostics) -> Self {
        let errors = problems.iter().filter(|problem| problem.is_error());
        let places = errors.filter_map(|problem| Some((problem.labels.first()?.span, problem.code)));
        let mut faults: Vec<(Span, Code)> = places.collect();
        faults.sort_unstable();
        Self(faults)
    }

    fn of_place(&self, span: Span) -> impl Iterator<Item = Code> {
        let first = self.0.partition_point(|(fault, _)| *fault < span);
        self.0[first..].iter().take_while(move |(fault, _)| *fault == span).map(|(_, code)| *code)
    }

    /// Whether anything is wrong that is told of at this very place.
    fn at(&self, span: Span) -> bool {
        self.of_place(span).next().is_some()
    }

    /// Whether what stands at this place is itself wrong, and not only for want of a key.
    fn condemn(&self, span: Span) -> bool {
        self.of_place(span).any(|code| code != Code::MissingKey)
    }

    fn within(&self, span: Span) -> bool {
        let first = self.0.partition_point(|(fault, _)| (fault.file, fault.start) < (span.file, span.start));
        let inside = |(fault, _): &&(Span, Code)| fault.file == span.file && fault.start <= span.end;
        self.0[first..].iter().take_while(inside).any(|(fault, _)| fault.end <= span.end)
    }

    /// Whether anything in the node is wrong. What came from an alias or an override stands elsewhere than
    /// the node, so each part of it is looked at.
    fn touch(&self, node: &Node) -> bool {
        self.within(node.span)
            || match &node.kind {
                Kind::Null | Kind::Scalar(_) => false,
                Kind::List(items) => items.iter().any(|item| self.touch(item)),
                Kind::Map(entries) => {
                    entries.iter().any(|(key, value)| self.within(key.span) || self.touch(value))
                }
            }
    }
}

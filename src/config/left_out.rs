//! What is wrong in a tree shall not hide what is wrong with the meaning of the rest: definitions with a
//! problem in them are left out of the document, and what could follow from that alone is not said.

use std::collections::{HashMap, HashSet};

use super::{
    Document,
    decode::decode,
    host::Route,
    later,
    shape::Shapes,
    tree::{Key, Kind, Node},
};
use crate::{
    diagnostic::Diagnostics,
    value::{Name, Named, Span},
};

/// What a document lacks of what was written.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Whether it may lack anything at all.
    something: bool,
    /// Whether nobody knows what: a file could not be read, or a section has no name that is known.
    anything: bool,
    sections: HashSet<Box<str>>,
    names: HashSet<(Box<str>, Box<str>)>,
    /// The routes of hosts that are left out for other reasons.
    pub routes: Vec<Named<Route>>,
    /// What of the tenants' own is left out.
    of_tenants: HashMap<Box<str>, LeftOut>,
}

/// The document of what is sound in a tree; none where too much is wrong with it. `whole` says whether all
/// files are in it.
pub fn sound_part(tree: &Node, shapes: &Shapes, problems: &Diagnostics, whole: bool) -> Option<Document> {
    if problems.is_full() {
        return None;
    }
    let left_out = LeftOut { something: true, anything: !whole, ..LeftOut::default() };
    let mut sieve = Sieve { shapes, faults: Faults::of(problems), left_out };
    let sections = tree.as_map()?.iter().filter_map(|(key, node)| sieve.section(key, node)).collect();
    let mut document: Document = decode(&Node::map(tree.span, sections)).ok()?;
    document.left_out = sieve.left_out;
    Some(document)
}

// === impl LeftOut ===

impl LeftOut {
    /// Everything, whatever that is.
    pub fn all() -> Self {
        Self { something: true, anything: true, ..Self::default() }
    }

    /// Adds what of a tenant's own is left out.
    pub fn of_tenant(&mut self, tenant: &Name, mut own: Self) {
        self.something |= own.something;
        self.routes.append(&mut own.routes);
        self.of_tenants.insert(tenant.as_str().into(), own);
    }

    pub fn is_empty(&self) -> bool {
        !self.something
    }

    /// Whether a definition of this name may have been left out.
    pub fn may_have(&self, section: &str, name: &Name) -> bool {
        match name.owned() {
            None => self.may_define(section, name.as_str()),
            Some((tenant, own)) => {
                self.of_tenants.get(tenant).is_some_and(|left_out| left_out.may_define(section, own))
            }
        }
    }

    fn may_define(&self, section: &str, name: &str) -> bool {
        self.anything
            || self.sections.contains(section)
            || self.names.contains(&(section.into(), name.into()))
    }

    /// Whether any definition of a section may have been left out.
    pub fn may_have_some(&self, section: &str) -> bool {
        self.anything || self.sections.contains(section) || self.names.iter().any(|(of, _)| **of == *section)
    }
}

/// Lets through what has no problem in it.
struct Sieve<'a> {
    shapes: &'a Shapes,
    faults: Faults,
    left_out: LeftOut,
}

type Entry = (Key, Node);

// === impl Sieve ===

impl Sieve<'_> {
    fn section(&mut self, key: &Key, node: &Node) -> Option<Entry> {
        if self.faults.within(key.span) || self.faults.at(node.span) {
            // It may be the misspelt name of any section.
            let is_known = self.shapes.section(&key.text).is_some() || later::is_later("", &key.text);
            self.left_out.anything |= !is_known;
            self.left_out.sections.insert(key.text.clone());
            return None;
        }
        let kind = match &node.kind {
            Kind::Map(entries) if self.shapes.is_named(&key.text) => {
                Kind::Map(entries.iter().filter_map(|entry| self.definition(&key.text, entry)).collect())
            }
            Kind::List(items) => {
                Kind::List(items.iter().filter(|item| !self.faults.touch(item)).cloned().collect())
            }
            _ if self.faults.touch(node) => {
                self.left_out.sections.insert(key.text.clone());
                return None;
            }
            kind => kind.clone(),
        };
        Some((key.clone(), Node { span: node.span, kind }))
    }

    fn definition(&mut self, section: &str, (name, node): &Entry) -> Option<Entry> {
        let sound = match (section, &node.kind) {
            _ if self.faults.within(name.span) || self.faults.at(node.span) => None,
            ("route_sets", Kind::Map(routes)) => Some(self.sound(routes)),
            ("hosts", Kind::Map(entries)) => self.host(entries),
            _ => (!self.faults.touch(node)).then(|| node.kind.clone()),
        };
        if sound.is_none() {
            self.left_out.names.insert((section.into(), name.text.clone()));
        }
        Some((name.clone(), Node { span: node.span, kind: sound? }))
    }

    /// A host without the routes that something is wrong with. Where it is wrong itself, its routes stay.
    fn host(&mut self, entries: &[Entry]) -> Option<Kind> {
        let is_routes = |(key, node): &Entry| &*key.text == "routes" && node.as_map().is_some();
        let own = entries.iter().filter(|entry| !is_routes(entry));
        let routes = entries.iter().filter(|entry| is_routes(entry)).map(|(key, node)| {
            let routes = self.sound(node.as_map().unwrap_or_default());
            (key.clone(), Node { span: node.span, kind: routes })
        });
        let routes: Vec<Entry> = routes.collect();
        let is_sound = own
            .clone()
            .all(|(key, node)| !self.faults.within(key.span) && !self.faults.touch(node))
            && !routes.iter().any(|(key, node)| self.faults.within(key.span) || self.faults.at(node.span));
        if is_sound {
            return Some(Kind::Map(own.cloned().chain(routes).collect()));
        }
        self.left_out.routes.extend(routes.iter().filter_map(|(_, routes)| decode(routes).ok()));
        None
    }

    /// The entries that nothing is wrong with.
    fn sound(&self, entries: &[Entry]) -> Kind {
        let is_sound = |(key, node): &&Entry| !self.faults.within(key.span) && !self.faults.touch(node);
        Kind::Map(entries.iter().filter(is_sound).cloned().collect())
    }
}

/// Where the errors are, sorted.
struct Faults(Vec<Span>);

// === impl Faults ===

impl Faults {
    fn of(problems: &Diagnostics) -> Self {
        let errors = problems.iter().filter(|problem| problem.is_error());
        let mut spans: Vec<Span> = errors.filter_map(|problem| Some(problem.labels.first()?.span)).collect();
        spans.sort_unstable();
        Self(spans)
    }

    /// Whether the node as a whole is wrong.
    fn at(&self, span: Span) -> bool {
        self.0.binary_search(&span).is_ok()
    }

    fn within(&self, span: Span) -> bool {
        let first = self.0.partition_point(|fault| (fault.file, fault.start) < (span.file, span.start));
        let inside = |fault: &&Span| fault.file == span.file && fault.start <= span.end;
        self.0[first..].iter().take_while(inside).any(|fault| fault.end <= span.end)
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

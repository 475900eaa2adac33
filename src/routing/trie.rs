//! The patterns of a host as a trie over segments. A walk visits each node at most once, so that what a
//! request can cost is bounded by the patterns configured, whatever its path.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    path::{Captured, Segment, range, segment_at},
    table::Candidate,
};

/// What the patterns with one beginning have after it. The routes of a place stand in their order.
#[derive(Debug, Default)]
pub struct Node {
    literals: Literals,
    capture: Option<Box<Node>>,
    ends: Box<[Candidate]>,
    rest: Box<[Candidate]>,
}

#[derive(Debug)]
enum Literals {
    Few(Box<[(Box<str>, Node)]>),
    Many(HashMap<Box<str>, Node, RandomState>),
}

/// From here on a hash is quicker than comparing.
const MANY: usize = 8;

impl Node {
    /// The trie of patterns that stand in their order, each with what is to be tried there.
    pub fn grow(patterns: Vec<(&[Segment], Candidate)>) -> Self {
        Self::grow_from(&mut patterns.into_iter().peekable(), 0)
    }

    /// Takes what has the same first `depth` segments as what comes next.
    fn grow_from<'a>(patterns: &mut Patterns<'a>, depth: usize) -> Self {
        let Some(beginning) = patterns.peek().map(|(segments, _)| &segments[..depth]) else {
            return Self::default();
        };
        let (mut ends, mut rest) = (Vec::new(), Vec::new());
        let (mut literals, mut capture) = (Vec::new(), None);
        while let Some((segments, _)) =
            patterns.peek().filter(|(segments, _)| segments.starts_with(beginning))
        {
            match segments.get(depth) {
                None => ends.extend(patterns.next().map(|(_, candidate)| candidate)),
                Some(Segment::Rest) => rest.extend(patterns.next().map(|(_, candidate)| candidate)),
                Some(Segment::Capture) => capture = Some(Box::new(Self::grow_from(patterns, depth + 1))),
                Some(Segment::Literal(text)) => {
                    let text = text.clone();
                    literals.push((text, Self::grow_from(patterns, depth + 1)));
                }
            }
        }
        Self { literals: Literals::new(literals), capture, ends: ends.into(), rest: rest.into() }
    }

    /// Shows each pattern that matches, most specific first, until `decide` decides.
    pub fn walk<'t, T>(
        &'t self,
        path: &str,
        decide: &mut impl FnMut(&'t [Candidate], &Captured) -> Option<T>,
    ) -> Option<T> {
        self.walk_from(path, 0, &mut Captured::new(), decide)
    }

    fn walk_from<'t, T>(
        &'t self,
        path: &str,
        at: usize,
        captured: &mut Captured,
        decide: &mut impl FnMut(&'t [Candidate], &Captured) -> Option<T>,
    ) -> Option<T> {
        let Some(segment) = segment_at(path, at) else {
            let ended = if self.ends.is_empty() { None } else { decide(&self.ends, captured) };
            return ended.or_else(|| self.walk_rest(path, at, captured, decide));
        };
        if let Some(node) = self.literals.find(&path[segment.clone()])
            && let Some(decision) = node.walk_from(path, segment.end, captured, decide)
        {
            return Some(decision);
        }
        if let Some(node) = &self.capture
            && !segment.is_empty()
        {
            captured.push(range(segment.clone()));
            let decision = node.walk_from(path, segment.end, captured, decide);
            captured.pop();
            if decision.is_some() {
                return decision;
            }
        }
        self.walk_rest(path, segment.start, captured, decide)
    }

    fn walk_rest<'t, T>(
        &'t self,
        path: &str,
        at: usize,
        captured: &mut Captured,
        decide: &mut impl FnMut(&'t [Candidate], &Captured) -> Option<T>,
    ) -> Option<T> {
        if self.rest.is_empty() {
            return None;
        }
        captured.push(range(at..path.len()));
        let decision = decide(&self.rest, captured);
        captured.pop();
        decision
    }
}

type Patterns<'a> = std::iter::Peekable<std::vec::IntoIter<(&'a [Segment], Candidate)>>;

impl Literals {
    fn new(children: Vec<(Box<str>, Node)>) -> Self {
        match children.len() {
            0..MANY => Self::Few(children.into()),
            _ => Self::Many(children.into_iter().collect()),
        }
    }

    fn find(&self, segment: &str) -> Option<&Node> {
        match self {
            Self::Few(children) => children.iter().find(|(text, _)| **text == *segment).map(|(_, node)| node),
            Self::Many(children) => children.get(segment),
        }
    }
}

impl Default for Literals {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

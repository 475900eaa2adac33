//! The table: hosts by name, and what each host tries in which order.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::{order::At, pattern::Pattern, regex::PathRegex, trie::Node};
use crate::{matcher::Conditions, value::Name};

/// All hosts of a listener. `R` is what a route means to whoever asks.
#[derive(Debug)]
pub struct Table<R> {
    pub(super) names: Names,
    pub(super) hosts: Box<[Host<R>]>,
}

/// A host with its routes, laid out for lookup.
#[derive(Debug)]
pub struct Host<R> {
    pub(super) name: Name,
    pub(super) routes: Box<[Route<R>]>,
    pub(super) order: Box<[At]>,
    pub(super) before: Box<[RegexCandidates]>,
    pub(super) patterns: Node,
    pub(super) after: Box<[RegexCandidates]>,
}

/// A route.
#[derive(Debug)]
pub struct Route<R> {
    pub name: Name,
    /// Any of them; their templates' captures are [`super::captures`].
    pub patterns: Arc<[Pattern]>,
    pub conditions: Arc<Conditions>,
    pub priority: i32,
    pub payload: Arc<R>,
}

/// One line of a host's routes in the order in which they are tried.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a, R> {
    pub pattern: &'a Pattern,
    pub route: &'a Route<R>,
}

/// Hosts by their names.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<Box<str>, usize, RandomState>,
    /// By what stands after "*.".
    under: HashMap<Box<str>, usize, RandomState>,
    /// The most labels that a key of `under` has.
    deepest: usize,
    any: Option<usize>,
}

/// A route where one of its patterns has matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub route: usize,
    /// For each of the route's captures its place among the pattern's.
    pub slots: SmallVec<[u8; 8]>,
}

/// The routes of one regular expression and priority, in their order.
#[derive(Debug)]
pub(super) struct RegexCandidates {
    pub regex: Arc<PathRegex>,
    pub candidates: Vec<Candidate>,
}

// === impl Table ===

impl<R> Table<R> {
    /// The host that a name belongs to, as [`crate::http::authority::Authority`] gives it: exact, then the
    /// longest suffix, then "*".
    pub fn host_named(&self, host: &str) -> Option<usize> {
        self.names.find(host)
    }

    /// A host by its place in the order in which they were given to the builder.
    pub fn host(&self, index: usize) -> &Host<R> {
        &self.hosts[index]
    }

    pub fn hosts(&self) -> &[Host<R>] {
        &self.hosts
    }
}

// === impl Host ===

impl<R> Host<R> {
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The routes as they were given to the builder.
    pub fn routes(&self) -> &[Route<R>] {
        &self.routes
    }

    /// Each pattern of each route, in the order in which they are tried.
    pub fn listed(&self) -> impl Iterator<Item = Listed<'_, R>> {
        self.order.iter().map(|at| {
            let route = &self.routes[at.route];
            Listed { pattern: &route.patterns[at.pattern], route }
        })
    }
}

impl<R> Clone for Route<R> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            patterns: self.patterns.clone(),
            conditions: self.conditions.clone(),
            priority: self.priority,
            payload: self.payload.clone(),
        }
    }
}

// === impl Names ===

impl Names {
    /// Enters a name; the host that already has it stays and is given back.
    pub fn insert(&mut self, pattern: &super::HostPattern, host: usize) -> Result<(), usize> {
        use super::HostPattern::{Any, Exact, Under};
        let taken = match pattern {
            Exact(name) => *self.exact.entry(name.clone()).or_insert(host),
            Under(suffix) => {
                self.deepest = self.deepest.max(suffix.split('.').count());
                *self.under.entry(suffix.clone()).or_insert(host)
            }
            Any => *self.any.get_or_insert(host),
        };
        if taken == host { Ok(()) } else { Err(taken) }
    }

    fn find(&self, host: &str) -> Option<usize> {
        self.exact.get(host).copied().or_else(|| self.find_under(host)).or(self.any)
    }

    fn find_under(&self, host: &str) -> Option<usize> {
        if self.under.is_empty() {
            return None;
        }
        let labels = host.split('.').count();
        let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        let too_deep = (labels - 1).saturating_sub(self.deepest);
        suffixes.skip(too_deep).find_map(|suffix| self.under.get(suffix).copied())
    }
}

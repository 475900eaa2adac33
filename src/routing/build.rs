//! Building a table, and the problems found on the way: they are values, for whoever knows where the
//! routes were written.

use super::{
    host::HostPattern,
    order::{At, PatternPlace, Placed, in_order},
    pattern::{Pattern, captures},
    problem::{self, Problem},
    table::{Candidate, Host, Names, RegexCandidates, Route, Table},
    trie::Node,
};
use crate::value::Name;

/// Takes hosts and makes a table of them.
#[derive(Debug)]
pub struct Builder<R> {
    names: Names,
    hosts: Vec<Host<R>>,
    problems: Vec<Problem>,
}

impl<R> Builder<R> {
    pub fn new() -> Self {
        Self { names: Names::default(), hosts: Vec::new(), problems: Vec::new() }
    }

    /// Adds a host and gives the index by which the table and the problems tell it.
    pub fn host(&mut self, name: Name, patterns: &[HostPattern], routes: Vec<Route<R>>) -> usize {
        let index = self.hosts.len();
        for (place, pattern) in patterns.iter().enumerate() {
            let repeated = patterns[..place].contains(pattern);
            if let Err(first) =
                self.names.insert(pattern, index).and(if repeated { Err(index) } else { Ok(()) })
            {
                self.problems.push(Problem::DuplicateHost { pattern: pattern.clone(), first, second: index });
            }
        }
        let ordered = in_order(&routes);
        self.problems.extend(problem::of_host(index, &routes, &ordered));
        let host = lay_out(name, &routes, &ordered);
        self.hosts.push(Host { routes: routes.into(), ..host });
        index
    }

    /// The table. Where there are problems it still works: of two that claim one place the first has it.
    pub fn build(self) -> (Table<R>, Vec<Problem>) {
        (Table { names: self.names, hosts: self.hosts.into() }, self.problems)
    }
}

impl<R> Default for Builder<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The host, still without its routes.
fn lay_out<R>(name: Name, routes: &[Route<R>], ordered: &[Placed<'_>]) -> Host<R> {
    let (mut before, mut patterns, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for same_pattern in ordered.chunk_by(|a, b| a.place.pattern == b.place.pattern) {
        let candidates = same_pattern.iter().map(|placed| candidate(routes, placed.at));
        match (same_pattern[0].place.pattern, same_pattern[0].at.pattern(routes)) {
            (PatternPlace::Path(segments), _) => {
                patterns.extend(candidates.map(|candidate| (segments, candidate)))
            }
            (PatternPlace::RegexBefore { .. }, Pattern::Regex(regex)) => {
                before.push(RegexCandidates { regex: regex.clone(), candidates: candidates.collect() });
            }
            (_, Pattern::Regex(regex)) => {
                after.push(RegexCandidates { regex: regex.clone(), candidates: candidates.collect() });
            }
            (_, Pattern::Path(_)) => unreachable!("a path pattern's place is a path's"),
        }
    }
    Host {
        name,
        routes: Box::default(),
        order: ordered.iter().map(|placed| placed.at).collect(),
        before: before.into(),
        patterns: Node::grow(patterns),
        after: after.into(),
    }
}

fn candidate<R>(routes: &[Route<R>], at: At) -> Candidate {
    let own = at.pattern(routes).captures();
    let slot = |name: &str| {
        let place = own.iter().position(|capture| **capture == *name);
        place
            .and_then(|place| u8::try_from(place).ok())
            .expect("each pattern captures what all of them capture")
    };
    let slots = captures(&routes[at.route].patterns).into_iter().map(slot).collect();
    Candidate { route: at.route, slots }
}

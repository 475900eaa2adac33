//! Looking a request up: which route, or why none.

use std::{fmt, sync::Arc};

use super::{
    path::Captured,
    table::{Candidate, Host, RegexCandidates, Table},
};
use crate::{
    matcher::{Facts, Verdict},
    value::Params,
};
use http::Method;

/// What a request was found to ask for. Hosts are told by their place in the order given to the builder.
#[derive(Debug)]
pub enum Found<'t, R> {
    Route {
        host: usize,
        route: &'t Arc<R>,
        params: Params,
    },
    /// The path is there, but not with this method: 405, or the answer to OPTIONS, which each host gives.
    Method {
        host: usize,
        allow: Allow,
    },
    NoRoute {
        host: usize,
    },
    NoHost,
}

/// The methods that a path answers to; OPTIONS always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow(Vec<Method>);

/// What the routes of one pattern made of a request.
enum Choice<'t> {
    Route(&'t Candidate),
    Method(Allow),
}

impl<R> Table<R> {
    /// Finds the route of a request: `host` as [`crate::http::authority::Authority`] gives it, `path`
    /// normalised. A host whose routes all fail does not fall through to a less specific host.
    pub fn find<'t>(&'t self, host: &str, path: &str, facts: &impl Facts) -> Found<'t, R> {
        match self.host_named(host) {
            Some(index) => self.find_in(index, path, facts),
            None => Found::NoHost,
        }
    }

    /// Finds the route in a host that is known already.
    pub fn find_in<'t>(&'t self, index: usize, path: &str, facts: &impl Facts) -> Found<'t, R> {
        let host = self.host(index);
        match host.find(path, facts) {
            Some((Choice::Route(candidate), params)) => {
                Found::Route { host: index, route: &host.routes[candidate.route].payload, params }
            }
            Some((Choice::Method(allow), _)) => Found::Method { host: index, allow },
            None => Found::NoRoute { host: index },
        }
    }
}

impl<R> Host<R> {
    fn find(&self, path: &str, facts: &impl Facts) -> Option<(Choice<'_>, Params)> {
        let regexes = |regexes| self.find_regex(regexes, path, facts);
        regexes(&self.before).or_else(|| self.find_pattern(path, facts)).or_else(|| regexes(&self.after))
    }

    fn find_pattern(&self, path: &str, facts: &impl Facts) -> Option<(Choice<'_>, Params)> {
        self.patterns.walk(path, &mut |candidates, captured| {
            let choice = self.choose(candidates, facts)?;
            let params = choice.params(|| captured.clone());
            Some((choice, params))
        })
    }

    /// Regular expressions are tried one by one: each starts with a check of its literal beginning, and a
    /// host has few of them.
    fn find_regex<'t>(
        &'t self,
        regexes: &'t [RegexCandidates],
        path: &str,
        facts: &impl Facts,
    ) -> Option<(Choice<'t>, Params)> {
        regexes.iter().filter(|entry| entry.regex.is_match(path)).find_map(|entry| {
            let choice = self.choose(&entry.candidates, facts)?;
            let params = choice.params(|| entry.regex.matches(path).unwrap_or_default());
            Some((choice, params))
        })
    }

    /// The first route of a pattern whose conditions hold. Where none does, the routes that fail by the
    /// method alone decide; where there are none of these either, the next pattern is tried.
    fn choose<'t>(&self, candidates: &'t [Candidate], facts: &impl Facts) -> Option<Choice<'t>> {
        let mut allow: Option<Allow> = None;
        for candidate in candidates {
            let conditions = &self.routes[candidate.route].conditions;
            match conditions.check(facts) {
                Verdict::Holds => return Some(Choice::Route(candidate)),
                Verdict::WrongMethod => allow.get_or_insert_default().extend(conditions.allowed(facts)),
                Verdict::Fails => {}
            }
        }
        allow.map(Choice::Method)
    }
}

impl Choice<'_> {
    fn params(&self, captured: impl FnOnce() -> Captured) -> Params {
        match self {
            Self::Route(candidate) if !candidate.slots.is_empty() => {
                let captured = captured();
                Params(candidate.slots.iter().map(|slot| captured[usize::from(*slot)].clone()).collect())
            }
            _ => Params::default(),
        }
    }
}

// === impl Allow ===

impl Allow {
    pub fn methods(&self) -> &[Method] {
        &self.0
    }

    fn extend(&mut self, methods: Vec<Method>) {
        for method in methods {
            if !self.0.contains(&method) {
                self.0.push(method);
            }
        }
        self.0.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    }
}

impl Default for Allow {
    fn default() -> Self {
        Self(vec![Method::OPTIONS])
    }
}

/// The value of the Allow field (RFC 9110 section 10.2.1).
impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, method) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

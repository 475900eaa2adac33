//! What is wrong with a host's routes taken together.

use super::{
    host::HostPattern,
    order::{At, PatternPlace, Placed},
    pattern::Pattern,
    table::Route,
};

/// A problem of hosts or routes, told by their places in what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Two hosts, or one twice, claim a name.
    DuplicateHost { pattern: HostPattern, first: usize, second: usize },
    /// A request may match both, and nothing says which goes first.
    Ambiguous { host: usize, a: At, b: At },
    /// One route has two patterns that are the same but for the names of their captures.
    Repeated { host: usize, first: At, second: At },
    /// All that the route could match is taken before.
    Shadowed { host: usize, route: usize, by: usize },
}

/// The problems of a host whose routes' patterns stand in their order.
pub(super) fn of_host<R>(host: usize, routes: &[Route<R>], ordered: &[Placed<'_>]) -> Vec<Problem> {
    let mut problems = ties(host, routes, ordered);
    problems.extend(regex_ties(host, routes, ordered));
    problems.extend(shadows(host, routes, ordered));
    problems
}

fn ties<R>(host: usize, routes: &[Route<R>], ordered: &[Placed<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for tied in ordered.chunk_by(|a, b| a.place == b.place) {
        for (place, second) in tied.iter().enumerate().skip(1) {
            let first = tied[..place].iter().find(|first| !exclude(routes, first.at, second.at));
            problems.extend(first.map(|first| match first.at.route == second.at.route {
                true => Problem::Repeated { host, first: first.at, second: second.at },
                false => Problem::Ambiguous { host, a: first.at, b: second.at },
            }));
        }
    }
    problems
}

/// Different regular expressions of one priority: that their texts have an order decides nothing.
fn regex_ties<R>(host: usize, routes: &[Route<R>], ordered: &[Placed<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for same_priority in
        ordered.chunk_by(|a, b| regex_priority(a).is_some() && regex_priority(a) == regex_priority(b))
    {
        for (place, second) in same_priority.iter().enumerate().skip(1) {
            let first = same_priority[..place].iter().find(|first| {
                let (a, b) = (first.at.pattern(routes), second.at.pattern(routes));
                first.at.route != second.at.route
                    && first.place.pattern != second.place.pattern
                    && !apart(a, b)
                    && !exclude(routes, first.at, second.at)
            });
            problems.extend(first.map(|first| Problem::Ambiguous { host, a: first.at, b: second.at }));
        }
    }
    problems
}

/// Routes each pattern of which is taken by a route that goes before and asks for no more.
fn shadows<R>(host: usize, routes: &[Route<R>], ordered: &[Placed<'_>]) -> Vec<Problem> {
    let mut taken: Vec<(usize, usize)> = vec![(0, 0); routes.len()];
    let catch_alls: Vec<&Placed<'_>> = ordered.iter().filter(|placed| takes_all(routes, placed)).collect();
    for same_pattern in ordered.chunk_by(|a, b| a.place.pattern == b.place.pattern) {
        for (place, late) in same_pattern.iter().enumerate() {
            let same = same_pattern[..place].iter().filter(|early| early.place < late.place);
            let wider = catch_alls.iter().copied().filter(|early| early.place.pattern < late.place.pattern);
            let covers = |early: &&Placed<'_>| {
                early.at.route != late.at.route
                    && early.at.conditions(routes).covers(late.at.conditions(routes))
            };
            if let Some(early) = same.chain(wider).find(covers) {
                let (count, by) = &mut taken[late.at.route];
                *count += 1;
                *by = early.at.route;
            }
        }
    }
    let shadowed = taken
        .into_iter()
        .enumerate()
        .filter(|(route, (count, _))| *count > 0 && *count == routes[*route].patterns.len());
    shadowed.map(|(route, (_, by))| Problem::Shadowed { host, route, by }).collect()
}

/// Whether every path matches.
fn takes_all<R>(routes: &[Route<R>], placed: &Placed<'_>) -> bool {
    placed.at.pattern(routes).takes_all()
}

fn apart(a: &Pattern, b: &Pattern) -> bool {
    matches!((a, b), (Pattern::Regex(a), Pattern::Regex(b)) if a.excludes(b))
}

fn regex_priority(placed: &Placed<'_>) -> Option<i32> {
    match placed.place.pattern {
        PatternPlace::RegexBefore { priority, .. } | PatternPlace::RegexAfter { priority, .. } => {
            Some(priority.0)
        }
        PatternPlace::Path(_) => None,
    }
}

/// Whether no request can meet the conditions of both.
fn exclude<R>(routes: &[Route<R>], a: At, b: At) -> bool {
    a.conditions(routes).excludes(b.conditions(routes))
}

//! Why other routes were not chosen: for people who ask, so it need not be quick.

use super::{
    path::{PathPattern, Segment},
    pattern::Pattern,
    table::{Listed, Table},
};
use crate::{matcher::Facts, value::Name};

/// A route that nearly matched, and the conditions that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    pub route: Name,
    pub pattern: String,
    pub failed: Vec<String>,
}

/// How many are told.
const FEW: usize = 5;

impl<R> Table<R> {
    /// The routes nearest to a request that they do not match: those whose path matches first, those with
    /// fewest conditions failing among them, then those whose paths have most in common with the request's.
    pub fn nearest(&self, host: &str, path: &str, facts: &impl Facts) -> Vec<NearMiss> {
        let Some(host) = self.host_named(host) else { return Vec::new() };
        let mut misses: Vec<(usize, usize, NearMiss)> = Vec::new();
        for listed in self.host(host).listed() {
            let (missing, difference) = compare(listed.pattern, path);
            let failed: Vec<String> =
                difference.into_iter().chain(listed.route.conditions.failed(facts)).collect();
            if !failed.is_empty() && missing < UNLIKE {
                misses.push((missing, failed.len(), near_miss(listed, failed)));
            }
        }
        misses.sort_by_key(|(missing, failed, _)| (*missing, *failed));
        misses.into_iter().map(|(_, _, miss)| miss).take(FEW).collect()
    }
}

/// The distance of paths that have nothing in common.
const UNLIKE: usize = usize::MAX;

fn near_miss<R>(listed: Listed<'_, R>, failed: Vec<String>) -> NearMiss {
    NearMiss { route: listed.route.name.clone(), pattern: listed.pattern.to_string(), failed }
}

/// How far a pattern is from a path, 0 where it matches, and in words why it does not.
fn compare(pattern: &Pattern, path: &str) -> (usize, Option<String>) {
    if pattern.matches(path).is_some() {
        return (0, None);
    }
    match pattern {
        Pattern::Regex(_) => (UNLIKE, None),
        Pattern::Path(pattern) => compare_segments(pattern, path),
    }
}

fn compare_segments(pattern: &PathPattern, path: &str) -> (usize, Option<String>) {
    let given: Vec<&str> = path[1..].split('/').collect();
    let wanted = pattern.segments();
    let fits = |(segment, given): &(&Segment, &&str)| match segment {
        Segment::Literal(text) => **text == ***given,
        Segment::Capture => !given.is_empty(),
        Segment::Rest => true,
    };
    let common = wanted.iter().zip(&given).take_while(fits).count();
    let literal = |segment: &Segment| matches!(segment, Segment::Literal(text) if !text.is_empty());
    if !wanted[..common].iter().any(literal) {
        return (UNLIKE, None);
    }
    let difference = match (wanted.get(common), given.get(common)) {
        (Some(Segment::Literal(text)), Some(given)) => format!("path has {given:?} where {text:?} is wanted"),
        (Some(_), Some(_)) => "path has an empty segment where a capture is".to_owned(),
        (Some(_), None) => "path ends too early".to_owned(),
        (None, _) => format!("path goes on with {:?}", format!("/{}", given[common..].join("/"))),
    };
    let missing = wanted.len().max(given.len()) - common;
    (missing, Some(difference))
}

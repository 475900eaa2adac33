//! From `retry` as written to a [`Policy`].

use std::{collections::HashMap, time};

use super::{
    After, Backoff, Hedge, Limit, Methods, Policy, When,
    config::{self, Condition, MethodWord, Retry},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::compile::{duration, refuse},
    value::{OneOrMany, Spanned, TextOr},
};

const MOST_RETRIES: u8 = 20;
const MOST_HEDGES: u8 = 3;

/// `None` where something in it is wrong: then an error was reported.
pub fn policy(written: &Retry, out: &mut Diagnostics) -> Option<Policy> {
    let usual = Policy::default();
    let retries = retries(written.retries, out);
    let when = written.when.as_ref().map_or(Some(usual.when), |when| self::when(when, written, out));
    let methods = written.methods.as_ref().map_or(Some(usual.methods), |methods| self::methods(methods, out));
    let per_try_timeout =
        written.per_try_timeout.map(|limit| duration(Some(limit), usual.max_retry_after, out));
    let backoff = backoff(written, out);
    let max_retry_after = duration(written.max_retry_after, usual.max_retry_after, out);
    let budget = Limit {
        percent: written.budget.map_or(usual.budget.percent, |percent| percent.0),
        floor: written.budget_floor.map_or(usual.budget.floor, |floor| *floor),
    };
    let hedge = written.hedge.as_ref().map(|hedge| self::hedge(hedge, budget, written, out));
    Some(Policy {
        retries: retries?,
        when: when?,
        methods: methods?,
        per_try_timeout: match per_try_timeout {
            Some(limit) => Some(limit?),
            None => None,
        },
        backoff: backoff?,
        max_retry_after: max_retry_after?,
        budget,
        hedge: match hedge {
            Some(hedge) => Some(hedge?),
            None => None,
        },
    })
}

fn retries(written: Option<Spanned<u8>>, out: &mut Diagnostics) -> Option<u8> {
    match written {
        None => Some(super::RETRIES),
        Some(written) if *written <= MOST_RETRIES => Some(*written),
        Some(written) => {
            let message = format!("retries must be from 0 to {MOST_RETRIES} (got {})", *written);
            refuse(out, Diagnostic::error(Code::BadValue, written.span, message))
        }
    }
}

fn when(written: &Spanned<Vec<Spanned<Condition>>>, retry: &Retry, out: &mut Diagnostics) -> Option<When> {
    if written.is_empty() {
        let message = "when names nothing that is tried again";
        let help = "retries: 0 turns retries off";
        return refuse(out, Diagnostic::error(Code::BadValue, written.span, message).help(help));
    }
    let mut statuses = Vec::new();
    let mut when = When { connect_failure: false, reset: false, timeout: false, statuses: Box::default() };
    for condition in &written.value {
        match &condition.value {
            Condition::ConnectFailure => when.connect_failure = true,
            Condition::Reset => when.reset = true,
            Condition::Timeout => when.timeout = true,
            Condition::Status(range) if *range.0.end() < 300 || *range.0.start() < 200 => {
                let message = "informational and successful responses are not tried again";
                refuse::<()>(out, Diagnostic::error(Code::BadValue, condition.span, message));
                return None;
            }
            Condition::Status(range) => statuses.push(range.0.clone()),
        }
    }
    when.statuses = statuses.into();
    if let (true, None) = (when.timeout, retry.per_try_timeout) {
        let message = "timeout has no effect without per_try_timeout";
        out.push(Diagnostic::warning(Code::NoEffect, written.span, message).help("per_try_timeout: 2s"));
    }
    Some(when)
}

fn methods(written: &OneOrMany<Spanned<MethodWord>>, out: &mut Diagnostics) -> Option<Methods> {
    let mut places = HashMap::new();
    let mut methods = Vec::new();
    let is_alone = written.0.len() == 1;
    for word in written.iter() {
        match &word.value {
            MethodWord::Idempotent if is_alone => return Some(Methods::Idempotent),
            MethodWord::Any if is_alone => return Some(Methods::Any),
            MethodWord::Idempotent | MethodWord::Any => {
                let message = "idempotent and any stand alone, or methods are listed";
                return refuse(out, Diagnostic::error(Code::BadValue, word.span, message));
            }
            MethodWord::Method(method) => {
                if let Some(first) = places.insert(method.0.clone(), word.span) {
                    let message = format!("{} stands twice", method.0);
                    let problem = Diagnostic::error(Code::DuplicateName, word.span, message);
                    return refuse(out, problem.label(first, "the first time"));
                }
                methods.push(method.0.clone());
            }
        }
    }
    Some(Methods::These(methods.into()))
}

fn backoff(written: &Retry, out: &mut Diagnostics) -> Option<Backoff> {
    let usual = Backoff::default();
    let first = duration(written.backoff, usual.first, out);
    let most = match (written.max_backoff, first) {
        (None, Some(first)) => Some(usual.most.max(first)),
        (most, _) => duration(most, usual.most, out),
    };
    let backoff = Backoff { first: first?, most: most? };
    match written.max_backoff {
        Some(most) if backoff.most < backoff.first => {
            let message = format!("max_backoff is shorter than backoff, which is {}", shown(backoff.first));
            refuse(out, Diagnostic::error(Code::BadValue, most.span, message))
        }
        _ => Some(backoff),
    }
}

fn hedge(
    written: &Spanned<config::Hedge>,
    budget: Limit,
    retry: &Retry,
    out: &mut Diagnostics,
) -> Option<Hedge> {
    let (after, max) = match &written.value {
        TextOr::Text(after) => (Spanned { value: *after, span: written.span }, None),
        TextOr::Map(map) => (map.after, map.max),
    };
    let after = after_of_hedge(after, retry, out);
    let max = match max {
        Some(max) if !(1..=MOST_HEDGES).contains(&*max) => {
            let message = format!("max must be from 1 to {MOST_HEDGES} (got {})", *max);
            refuse(out, Diagnostic::error(Code::BadValue, max.span, message))
        }
        max => Some(max.map_or(1, |max| *max)),
    };
    if budget == (Limit { percent: 0, floor: 0 }) {
        let message = "hedge has no effect: the budget allows no retries";
        let problem = Diagnostic::error(Code::NoEffect, written.span, message);
        return refuse(out, problem.help("remove budget: 0% or budget_floor: 0"));
    }
    Some(Hedge { after: after?, max: max? })
}

fn after_of_hedge(after: Spanned<After>, retry: &Retry, out: &mut Diagnostics) -> Option<After> {
    match (after.value, retry.per_try_timeout) {
        (After::Time(time::Duration::ZERO), _) => {
            let message = "the time before a hedge must be greater than zero";
            let problem = Diagnostic::error(Code::BadValue, after.span, message);
            refuse(out, problem.help("write 200ms or p95"))
        }
        (After::Time(time), Some(limit)) if limit.get() <= time => {
            let message = format!(
                "a hedge after {} has no effect: per_try_timeout ({}) ends the attempt before",
                shown(time),
                limit.value
            );
            refuse(out, Diagnostic::error(Code::NoEffect, after.span, message).compared())
        }
        _ => Some(after.value),
    }
}

fn shown(duration: time::Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnostic::Severity,
        value::{Method, Percent, Span},
    };

    fn at<T>(start: u32, value: T) -> Spanned<T> {
        Spanned::new(value, Span { start, end: start + 1, ..Span::default() })
    }

    fn text<T: std::str::FromStr>(text: &str) -> T {
        text.parse().unwrap_or_else(|_| panic!("{text:?} cannot be read"))
    }

    fn compile(written: &Retry) -> (Option<Policy>, Vec<(Severity, Code, u32)>) {
        let mut out = Diagnostics::default();
        let policy = policy(written, &mut out);
        (policy, out.iter().map(|d| (d.severity, d.code, d.labels[0].span.start)).collect())
    }

    fn error(written: Retry) -> (Code, u32) {
        match compile(&written) {
            (None, problems) if problems.len() == 1 => (problems[0].1, problems[0].2),
            (_, problems) => panic!("{problems:?}"),
        }
    }

    fn conditions(words: &[&str]) -> Option<Spanned<Vec<Spanned<Condition>>>> {
        Some(at(1, (10..).zip(words).map(|(place, word)| at(place, text(word))).collect()))
    }

    fn words(words: &[&str]) -> Option<Spanned<OneOrMany<Spanned<MethodWord>>>> {
        Some(at(1, OneOrMany((10..).zip(words).map(|(place, word)| at(place, text(word))).collect())))
    }

    #[test]
    fn what_is_written_holds() {
        let written = Retry {
            retries: Some(at(1, 5)),
            when: conditions(&["502-504", "connect_failure"]),
            methods: words(&["GET", "POST"]),
            budget: Some(at(1, Percent(50))),
            budget_floor: Some(at(1, 0)),
            per_try_timeout: Some(at(1, text("2s"))),
            backoff: Some(at(1, text("1s"))),
            ..Retry::default()
        };
        let (policy, problems) = compile(&written);
        let policy = policy.unwrap();
        assert_eq!(problems, []);
        assert!(policy.when.connect_failure && !policy.when.reset && policy.when.statuses[..] == [502..=504]);
        assert!(policy.methods.allow(&http::Method::POST) && !policy.methods.allow(&http::Method::PUT));
        assert_eq!(policy.budget, Limit { percent: 50, floor: 0 });
        assert_eq!(policy.per_try_timeout, Some(time::Duration::from_secs(2)));
        // The bound is no shorter than the wait that was asked for.
        assert_eq!(policy.backoff.most, time::Duration::from_secs(1));
    }

    #[test]
    fn what_cannot_hold_is_an_error_where_it_stands() {
        let retry = Retry::default;
        assert_eq!(error(Retry { retries: Some(at(3, 21)), ..retry() }), (Code::BadValue, 3));
        assert_eq!(error(Retry { when: conditions(&[]), ..retry() }), (Code::BadValue, 1));
        assert_eq!(error(Retry { when: conditions(&["503", "200-299"]), ..retry() }), (Code::BadValue, 11));
        assert_eq!(error(Retry { methods: words(&["GET", "any"]), ..retry() }), (Code::BadValue, 11));
        assert_eq!(error(Retry { methods: words(&["GET", "GET"]), ..retry() }), (Code::DuplicateName, 11));
        let shorter =
            Retry { backoff: Some(at(1, text("1s"))), max_backoff: Some(at(2, text("500ms"))), ..retry() };
        assert_eq!(error(shorter), (Code::BadValue, 2));
        assert!("timeouts".parse::<Condition>().is_err() && "9".parse::<Condition>().is_err());
        assert!(matches!("PUT".parse(), Ok(MethodWord::Method(Method(_)))));
    }

    #[test]
    fn a_timeout_that_never_ends_is_warned_of() {
        let (policy, problems) = compile(&Retry { when: conditions(&["timeout"]), ..Retry::default() });
        assert!(policy.is_some());
        assert_eq!(problems, [(Severity::Warning, Code::NoEffect, 1)]);
    }
}

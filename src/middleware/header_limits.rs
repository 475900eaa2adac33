//! Refuses requests whose head is larger than a place wants it.

use std::{num::NonZeroU32, sync::Arc};

use http::request;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::target,
    value::Size,
};

pub const ADDS_UP: bool = true;

/// Refuses requests whose head is larger, below what their listener takes: 431 for header fields (RFC 6585 section 5), 414
/// for path and query. Counted is what the client sent. Of several in a chain, each holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HeaderLimits")]
pub struct Config {
    /// The most that all header fields may take, as 8KiB: names, values, and 4 bytes for each line. Default: the
    /// listener's `header_size`.
    pub size: Option<Size>,
    /// The most lines of header fields. Default: the listener's `headers`.
    pub headers: Option<NonZeroU32>,
    /// The most that path and query may take, as 1KiB. Default: the listener's `uri`.
    pub uri: Option<Size>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    pub mode: Mode,
}

/// How large a head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSize {
    fields: usize,
    lines: usize,
    target: usize,
}

struct HeaderLimits {
    most: HeadSize,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.size.is_none() && config.headers.is_none() && config.uri.is_none() {
        let problem = Diagnostic::error(Code::NoEffect, cx.span, "this limits nothing");
        cx.diagnostics.push(problem.help("one of size, headers and uri says what"));
    }
    let bytes =
        |size: Option<Size>| size.map_or(usize::MAX, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
    let lines = config.headers.map_or(usize::MAX, |lines| usize::try_from(lines.get()).unwrap_or(usize::MAX));
    let most = HeadSize { fields: bytes(config.size), lines, target: bytes(config.uri) };
    chain.measure_heads();
    chain.guard(config.mode, Arc::new(HeaderLimits { most }));
}

impl HeadSize {
    pub fn of(head: &request::Parts) -> Self {
        let line =
            |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
        Self {
            fields: head.headers.iter().map(line).sum(),
            lines: head.headers.len(),
            target: target::of(head).len(),
        }
    }
}

impl OnRequest for HeaderLimits {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        // What is answered without a head that could be read has no size.
        let Some(size) = &exchange.head_size else { return Next::Continue };
        if size.target > self.most.target {
            return Refusal::new(Reason::UriTooLong).into();
        }
        if size.fields > self.most.fields || size.lines > self.most.lines {
            return Refusal::new(Reason::HeaderTooLarge).into();
        }
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(most: HeadSize) -> Option<Reason> {
        let mut exchange = Exchange::for_tests("GET", "/abc?d");
        exchange.head.headers.insert("a", "1234".parse().unwrap());
        exchange.head.headers.append("a", "5".parse().unwrap());
        exchange.head_size = Some(Box::new(HeadSize::of(&exchange.head)));
        match (HeaderLimits { most }).on_request(&mut exchange) {
            Next::Refuse(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    #[test]
    fn each_limit_holds_from_its_next_byte_on() {
        let most = HeadSize { fields: 15, lines: 2, target: 6 };
        assert_eq!(refused(most), None);
        assert_eq!(refused(HeadSize { fields: 14, ..most }), Some(Reason::HeaderTooLarge));
        assert_eq!(refused(HeadSize { lines: 1, ..most }), Some(Reason::HeaderTooLarge));
        assert_eq!(refused(HeadSize { target: 5, ..most }), Some(Reason::UriTooLong));
    }
}

//! Refuses request bodies by media type.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::media_type,
    value::Spanned,
};

pub const ADDS_UP: bool = false;

/// Refuses bodies of other media types with 415 (RFC 9110 section 15.5.16), saying in Accept, to POST in Accept-Post and
/// to PATCH in Accept-Patch, which are taken. A body without Content-Type is an application/octet-stream (RFC 9110
/// section 8.3); requests without a body go on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ContentTypes")]
pub struct Config {
    /// The media types that are let in: application/json, or image/* for all of a kind. Parameters do not count.
    pub allow: Spanned<Vec<Spanned<String>>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct ContentTypes {
    /// In lower case; "image/" for all of a kind.
    exact: Box<[Box<str>]>,
    kinds: Box<[Box<str>]>,
    accept: HeaderValue,
}

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// What a body without a type is.
const UNKNOWN: &str = "application/octet-stream";

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.allow.is_empty() {
        let problem = Diagnostic::error(Code::BadValue, config.allow.span, "no body is let in");
        cx.diagnostics.push(problem.help("body_limit: { size: 0B } refuses all bodies"));
    }
    let wrong: Vec<_> = config.allow.iter().filter(|written| !is_range(written)).collect();
    for written in &wrong {
        let message = format!("{:?} is no media type", written.value);
        let problem = Diagnostic::error(Code::BadValue, written.span, message);
        cx.diagnostics.push(problem.help("as application/json, or image/* for all of a kind"));
    }
    if wrong.is_empty() {
        let part = ContentTypes::new(config.allow.iter().map(|written| written.as_str()));
        chain.guard(config.mode, Arc::new(part));
    }
}

/// `type/subtype` or `type/*`, of the characters of tokens (RFC 9110 section 5.6.2).
fn is_range(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && (sub == "*" || is_token(sub)))
}

impl ContentTypes {
    fn new<'a>(allowed: impl Iterator<Item = &'a str>) -> Self {
        let all: Vec<String> = allowed.map(str::to_ascii_lowercase).collect();
        let (kinds, exact): (Vec<_>, Vec<_>) = all.iter().partition(|range| range.ends_with("/*"));
        Self {
            exact: exact.into_iter().map(|range| range.as_str().into()).collect(),
            kinds: kinds.into_iter().map(|range| range.trim_end_matches('*').into()).collect(),
            accept: HeaderValue::try_from(all.join(", ")).expect("tokens are visible ASCII"),
        }
    }

    fn takes(&self, essence: &str) -> bool {
        let begins =
            |kind: &str| essence.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
        self.exact.iter().any(|exact| essence.eq_ignore_ascii_case(exact))
            || self.kinds.iter().any(|kind| begins(kind))
    }

    fn refusal(&self, method: &Method) -> Refusal {
        let refusal = Refusal::new(Reason::UnsupportedMediaType).with(header::ACCEPT, self.accept.clone());
        match *method {
            Method::POST => refusal.with(ACCEPT_POST, self.accept.clone()),
            Method::PATCH => refusal.with(ACCEPT_PATCH, self.accept.clone()),
            _ => refusal,
        }
    }
}

impl OnRequest for ContentTypes {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let takes = || self.takes(media_type::said_by(&exchange.head.headers).unwrap_or(UNKNOWN));
        match !exchange.has_body || takes() {
            true => Next::Continue,
            false => self.refusal(&exchange.method).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowed: &[&str], sent: &[&str]) -> bool {
        let mut exchange = Exchange::for_tests("POST", "/");
        exchange.has_body = true;
        for value in sent {
            exchange.head.headers.append(header::CONTENT_TYPE, value.parse().unwrap());
        }
        let part = ContentTypes::new(allowed.iter().copied());
        matches!(part.on_request(&mut exchange), Next::Continue)
    }

    #[test]
    fn types_are_compared_without_case_and_parameters() {
        for sent in ["application/json", "Application/JSON; charset=utf-8", "application/json;x", "image/png"]
        {
            assert!(taken(&["application/JSON", "image/*"], &[sent]), "{sent}");
        }
        for sent in ["application/jsonp", "imagery/png", "image", "", "text/plain; a=application/json"] {
            assert!(!taken(&["application/json", "image/*"], &[sent]), "{sent}");
        }
    }

    #[test]
    fn a_body_of_no_type_is_unknown_and_one_of_two_is_nothing() {
        assert!(!taken(&["application/json"], &[]));
        assert!(taken(&[UNKNOWN], &[]));
        assert!(!taken(&["application/json"], &["application/json", "application/json"]));
        let part = ContentTypes::new(["a/b"].into_iter());
        assert!(matches!(part.on_request(&mut Exchange::for_tests("POST", "/")), Next::Continue), "no body");
    }

    #[test]
    fn ranges_are_told_from_other_words() {
        assert!(is_range("a/b+json") && is_range("a/*"));
        for wrong in ["", "a", "a/", "/b", "*/*", "*/b", "a/b c", "a/b;q=1", "a/b/c", "a/b*"] {
            assert!(!is_range(wrong), "{wrong:?}");
        }
    }
}

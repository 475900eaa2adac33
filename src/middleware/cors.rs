//! Lets scripts of other origins read responses, and answers what browsers ask before (Fetch standard, "CORS protocol").

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Next, OnRequest, OnResponse};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::{
        cors::{OriginPattern, preflight},
        vary,
    },
    value::{self, Duration, FieldName, Span, Spanned, TextOr},
};

pub const ADDS_UP: bool = false;

/// Lets scripts of other origins read responses (Fetch standard, "CORS protocol"). Preflights are answered here with
/// 204: the route is found by the method that they ask for. A response's own Access-Control fields are replaced. Where
/// the answer depends on the origin, every response says Vary: Origin; what is not allowed gets no fields, and goes on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cors")]
pub struct Config {
    /// Whose scripts may read: https://app.example.com, https://*.example.com (one label or more), "*" (all, without
    /// credentials), "null", or { regex: '...' }, which must match the whole origin.
    pub origins: Spanned<Vec<Spanned<Origin>>>,
    /// The methods beside GET, HEAD and POST, which need no leave; "*": what the route takes. Default: none.
    #[serde(default)]
    pub methods: Vec<Spanned<value::Method>>,
    /// The request fields that scripts may set; "*": those that they ask for. Default: none but what needs no leave.
    #[serde(default)]
    pub headers: Vec<Spanned<FieldName>>,
    /// The response fields that scripts may read; "*": all, without credentials. Default: none but what needs no leave.
    #[serde(default)]
    pub expose: Vec<Spanned<FieldName>>,
    /// Whether requests may carry cookies and client certificates. Default false.
    #[serde(default)]
    pub credentials: bool,
    /// For how long a browser need not ask again, in whole seconds. Default: as long as it likes, 5s mostly.
    #[serde(default)]
    pub max_age: Option<Spanned<Duration>>,
    /// Whether pages of public networks may ask a private one (Private Network Access). Default false.
    #[serde(default)]
    pub private_network: bool,
}

/// An origin, or a map that says which.
pub type Origin = TextOr<String, OriginMap>;

/// Origins told otherwise than by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OriginMap")]
pub enum OriginMap {
    /// A regular expression that matches the whole origin
    Regex(Spanned<String>),
}

/// What was found out about a request before its head went upstream.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who may read the response.
    reader: Option<HeaderValue>,
    /// The response is this part's own.
    is_answered: bool,
}

struct Cors {
    origins: Origins,
    methods: Leave,
    headers: Leave,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
    private_network: bool,
}

enum Origins {
    Any,
    These(Readers),
}

#[derive(Default)]
struct Readers {
    patterns: Vec<OriginPattern>,
    /// Each from the start of the origin to its end.
    regexes: Vec<Regex>,
}

/// What a preflight is given leave for.
enum Leave {
    None,
    These(HeaderValue),
    WhatIsAsked,
}

const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

const FIELDS: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

const TRUE: HeaderValue = HeaderValue::from_static("true");

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let part = Arc::new(Cors::compile(config, cx));
    chain.answer_preflights();
    chain.on_request(part.clone());
    chain.on_every_response(part);
}

impl OnRequest for Cors {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let asked = exchange.cors.insert(self.ask(&exchange.head.headers));
        let Some(method) = preflight(&exchange.method, &exchange.head.headers) else { return Next::Continue };
        asked.is_answered = true;
        Next::Answer(Box::new(self.answer(asked.reader.is_some(), &method, &exchange.head.headers)))
    }
}

impl OnResponse for Cors {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        // A request that was answered further out has its head still.
        let asked = exchange.cors.take().unwrap_or_else(|| self.ask(&exchange.head.headers));
        let headers = &mut head.headers;
        if !asked.is_answered {
            forget(headers);
        }
        // Fetch standard, "CORS protocol and HTTP caches": whoever asks or does not.
        if !matches!(self.origins, Origins::Any) {
            vary::add(headers, "Origin");
        }
        let Some(reader) = asked.reader else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, reader);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = self.expose.as_ref().filter(|_| !asked.is_answered) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Cors {
    fn ask(&self, headers: &HeaderMap) -> Asked {
        let reader = match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::These(these) => the_origin(headers).filter(|origin| these.hold(origin)).cloned(),
        };
        Asked { reader, is_answered: false }
    }

    /// The answer to a preflight, but for what every response gets. Browsers compare it with what they asked.
    fn answer(&self, allowed: bool, method: &Method, asked: &HeaderMap) -> http::Response<Bytes> {
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        if matches!(self.methods, Leave::WhatIsAsked) {
            vary::add(headers, "Access-Control-Request-Method");
        }
        if matches!(self.headers, Leave::WhatIsAsked) {
            vary::add(headers, "Access-Control-Request-Headers");
        }
        if self.private_network {
            vary::add(headers, "Access-Control-Request-Private-Network");
        }
        if !allowed {
            return answer;
        }
        let methods = self.methods.of(|| HeaderValue::from_str(method.as_str()).ok());
        let names = self.headers.of(|| list(asked, &header::ACCESS_CONTROL_REQUEST_HEADERS));
        let asks_privately = asked.get(&REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
        let fields = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, names),
            (header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone()),
            (ALLOW_PRIVATE_NETWORK, (self.private_network && asks_privately).then_some(TRUE)),
        ];
        headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        answer
    }
}

impl Readers {
    fn hold(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.hold_text(origin))
    }

    fn hold_text(&self, origin: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(origin))
            || self.regexes.iter().any(|regex| regex.is_match(origin))
    }
}

impl Leave {
    fn of(&self, asked: impl FnOnce() -> Option<HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::These(list) => Some(list.clone()),
            Self::WhatIsAsked => asked(),
        }
    }
}

/// Of several nobody can tell which is true.
fn the_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(header::ORIGIN).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// The names of fields in a list, of all lines (RFC 9110 section 5.3). Nothing but such names is said again.
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let is_list = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, \t".contains(b);
    let all = lines.join(&b", "[..]);
    (!lines.is_empty() && all.iter().all(is_list)).then(|| HeaderValue::from_bytes(&all).ok()).flatten()
}

fn forget(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with("access-control-")) {
        FIELDS.iter().for_each(|name| drop(headers.remove(name)));
    }
}

impl Cors {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Self {
        if config.credentials {
            refuse_star(&config.expose, "with credentials \"*\" is no wildcard", cx);
        }
        for method in &config.methods {
            // Fetch standard, "forbidden method".
            if matches!(method.0.as_str(), "CONNECT" | "TRACE" | "TRACK") {
                let message = format!("no script can send {}", method.0);
                cx.diagnostics.push(Diagnostic::error(Code::NoEffect, method.span, message));
            }
        }
        let methods: Vec<_> = config.methods.iter().map(|method| (method.0.as_str(), method.span)).collect();
        Self {
            origins: origins(config, cx),
            methods: leave(&methods, cx),
            headers: leave(&names(&config.headers), cx),
            expose: match leave(&names(&config.expose), cx) {
                Leave::None => None,
                Leave::These(list) => Some(list),
                Leave::WhatIsAsked => Some(HeaderValue::from_static("*")),
            },
            credentials: config.credentials,
            max_age: config.max_age.as_ref().map(|max_age| whole_seconds(max_age, cx)),
            private_network: config.private_network,
        }
    }
}

fn origins(config: &Config, cx: &mut Context<'_>) -> Origins {
    let written = &config.origins;
    if written.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, written.span, "no origin is allowed");
        cx.diagnostics.push(problem.help("\"*\" is every origin"));
    }
    let is_any = |origin: &&Spanned<Origin>| matches!(&origin.value, TextOr::Text(text) if text == "*");
    if let Some(any) = written.iter().find(is_any) {
        if config.credentials {
            refuse_credentials(any.span, "every origin", cx);
        }
        for other in written.iter().filter(|origin| !is_any(origin)) {
            let problem = Diagnostic::error(Code::NoEffect, other.span, "every origin is allowed already");
            cx.diagnostics.push(problem.label(any.span, "by this"));
        }
        return Origins::Any;
    }
    let mut readers = Readers::default();
    for origin in &written.value {
        let single = reader(origin, cx);
        if config.credentials && NOBODYS.iter().any(|origin| single.hold_text(origin)) {
            refuse_credentials(origin.span, "any page", cx);
        }
        readers.patterns.extend(single.patterns);
        readers.regexes.extend(single.regexes);
    }
    Origins::These(readers)
}

/// Origins that any page can have: what they are given, all are given.
const NOBODYS: [&str; 3] = ["null", "https://nobody.invalid", "http://nobody.invalid"];

fn refuse_credentials(span: Span, to: &str, cx: &mut Context<'_>) {
    let message = format!("this would give what is read with credentials to {to}");
    let problem = Diagnostic::error(Code::BadValue, span, message);
    cx.diagnostics.push(problem.help("name the origins, or leave credentials out"));
}

fn reader(origin: &Spanned<Origin>, cx: &mut Context<'_>) -> Readers {
    let mut readers = Readers::default();
    match &origin.value {
        TextOr::Text(text) => match OriginPattern::parse(text) {
            Ok(pattern) => readers.patterns.push(pattern),
            Err(error) => {
                let message = format!("{text:?} is no origin");
                let problem = Diagnostic::error(Code::BadValue, origin.span, message).reason(error.reason);
                let near = error.suggestion.map(|suggestion| format!("did you mean {suggestion}?"));
                cx.diagnostics.push(problem.maybe_help(near));
            }
        },
        TextOr::Map(OriginMap::Regex(regex)) => match whole(&regex.value) {
            Ok(compiled) => readers.regexes.push(compiled),
            Err(error) => {
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default();
                let problem = Diagnostic::error(Code::BadRegex, regex.span, "this is no regular expression");
                cx.diagnostics.push(problem.reason(last.strip_prefix("error: ").unwrap_or(last)));
            }
        },
    }
    readers
}

/// The expression by itself must be one, before it is held to the whole text.
fn whole(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")))
}

fn names(written: &[Spanned<FieldName>]) -> Vec<(&str, Span)> {
    written.iter().map(|name| (name.0.as_str(), name.span)).collect()
}

fn leave(words: &[(&str, Span)], cx: &mut Context<'_>) -> Leave {
    if words.is_empty() {
        return Leave::None;
    }
    if let Some((_, all)) = words.iter().find(|(word, _)| *word == "*") {
        for (word, span) in words.iter().filter(|(word, _)| *word != "*") {
            let problem = Diagnostic::error(Code::NoEffect, *span, format!("{word} is allowed already"));
            cx.diagnostics.push(problem.label(*all, "by this"));
        }
        return Leave::WhatIsAsked;
    }
    let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    Leave::These(HeaderValue::try_from(list).expect("methods and names of fields are visible ASCII"))
}

fn refuse_star(written: &[Spanned<FieldName>], message: &str, cx: &mut Context<'_>) {
    if let Some(star) = written.iter().find(|name| name.0.as_str() == "*") {
        let problem = Diagnostic::error(Code::BadValue, star.span, message);
        cx.diagnostics.push(problem.help("name the fields"));
    }
}

fn whole_seconds(max_age: &Spanned<Duration>, cx: &mut Context<'_>) -> HeaderValue {
    if max_age.0.subsec_nanos() != 0 {
        let message = "max_age counts whole seconds";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, max_age.span, message));
    }
    HeaderValue::from(max_age.0.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_asked_for_are_said_again_from_all_lines() {
        let asked = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(line));
            }
            list(&headers, &header::ACCESS_CONTROL_REQUEST_HEADERS)
        };
        assert_eq!(asked(&["x-a,x-b"]).unwrap(), "x-a,x-b");
        assert_eq!(asked(&["x-a", "x-b"]).unwrap(), "x-a, x-b");
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["x-a", "<script>"]), None);
    }
    use crate::diagnostic::Diagnostics;

    fn part(origins: &[&str], credentials: bool) -> Cors {
        let spanned = |text: &&str| Spanned::new(TextOr::Text((*text).to_owned()), Span::default());
        let config = Config {
            origins: Spanned::new(origins.iter().map(spanned).collect(), Span::default()),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials,
            max_age: None,
            private_network: false,
        };
        let mut diagnostics = Diagnostics::default();
        let part = Cors::compile(
            &config,
            &mut Context::for_tests(&crate::middleware::World::for_tests(), &mut diagnostics),
        );
        assert!(diagnostics.is_empty());
        part
    }

    /// Allow-Origin and Vary of a response whose upstream said something else.
    fn answered(part: &Cors, origins: &[&str]) -> (Option<String>, Option<String>) {
        let mut exchange = Exchange::for_tests("GET", "/");
        for origin in origins {
            exchange.head.headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        assert!(matches!(part.on_request(&mut exchange), Next::Continue));
        exchange.head.headers.clear();
        let mut head = http::Response::new(()).into_parts().0;
        head.headers
            .append(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://upstream"));
        head.headers.append(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        part.on_response(&mut exchange, &mut head);
        let text =
            |name| head.headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        assert!(head.headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().count() <= 1);
        (text(header::ACCESS_CONTROL_ALLOW_ORIGIN), text(header::VARY))
    }

    #[test]
    fn the_origin_is_said_again_and_the_rest_is_not() {
        let part = part(&["https://a.example", "https://*.b.example"], true);
        let origin = Some("Origin".to_owned());
        for (sent, reader) in [
            (&["https://a.example"][..], Some("https://a.example")),
            (&["https://x.b.example"], Some("https://x.b.example")),
            (&["https://c.example"], None),
            (&["null"], None),
            (&[], None),
            (&["https://a.example", "https://c.example"], None),
        ] {
            assert_eq!(answered(&part, sent), (reader.map(str::to_owned), origin.clone()), "{sent:?}");
        }
    }

    #[test]
    fn where_all_may_read_nothing_depends_on_who_asks() {
        for sent in [&["https://a.example"][..], &["null"], &[]] {
            assert_eq!(answered(&part(&["*"], false), sent), (Some("*".to_owned()), None));
        }
    }
}

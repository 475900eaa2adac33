//! Writes responses in a coding that the client takes.

mod encoder;

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header, response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, HeavyWork, Next, OnRequest, OnResponse, decompress::is_coded};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::{coding::Coding, hop_by_hop, list, vary},
    value::{Size, Spanned},
};

pub use encoder::Encoder;

pub const ADDS_UP: bool = false;

/// Writes responses in a coding that the client takes (RFC 9110 section 8.4), with Vary, and an ETag made weak. Left
/// as they are: bodies that have a coding, are part of one, or say no-transform (RFC 9111 section 5.2.2.6).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Compress")]
pub struct Config {
    /// The codings on offer; the order decides where a client takes several alike. Default [zstd, br, gzip].
    pub algorithms: Option<Spanned<Vec<Coding>>>,
    /// Bodies that are known to be smaller are left as they are. Default 1KiB.
    pub min_size: Size,
    /// Media types, as text/html or text/*. Default: text, JSON, JavaScript, XML, SVG, WebAssembly, fonts that are not
    /// compressed, and what ends in +json or +xml.
    pub types: Option<Spanned<Vec<Spanned<String>>>>,
    /// Whether server-sent events (text/event-stream) are compressed too. Default false.
    pub event_streams: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { algorithms: None, min_size: Size(1024), types: None, event_streams: false }
    }
}

struct Compress {
    codings: Box<[Coding]>,
    min_size: u64,
    types: Option<Box<[Box<str>]>>,
    event_streams: bool,
    heavy: HeavyWork,
}

/// What is worth it where the operator does not say.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/wasm",
    "application/manifest+json",
    "application/vnd.ms-fontobject",
    "application/x-ndjson",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
];

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if let Some(list) = config.algorithms.as_ref().filter(|list| list.is_empty()) {
        let problem = Diagnostic::error(Code::NoEffect, list.span, "no coding is on offer");
        cx.diagnostics.push(problem.reason("has nothing in it").help("leave it out for [zstd, br, gzip]"));
    }
    check_types(config, cx);
    let part = Arc::new(Compress::new(config, cx.world.heavy_work.clone()));
    chain.on_request(part.clone());
    chain.on_response(part);
}

/// What is no media type fits no response.
fn check_types(config: &Config, cx: &mut Context<'_>) {
    let Some(types) = &config.types else { return };
    if types.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, types.span, "no media type is compressed");
        cx.diagnostics
            .push(problem.reason("has nothing in it").help("leave it out for text, JSON and the like"));
    }
    let wrong = |kind: &&Spanned<String>| {
        !kind.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty())
    };
    for kind in types.iter().filter(wrong) {
        let problem =
            Diagnostic::error(Code::BadValue, kind.span, format!("{:?} is no media type", kind.value));
        cx.diagnostics.push(problem.help("as text/html, or text/* for all of its kind"));
    }
}

impl OnRequest for Compress {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        exchange.coding = Coding::wanted(&exchange.head.headers, &self.codings);
        let fields = &exchange.head.headers;
        if exchange.coding.is_some() && hop_by_hop::has_rare(fields, &header::IF_NONE_MATCH) {
            exchange.held_tags = Some(fields.get_all(header::IF_NONE_MATCH).iter().cloned().collect());
        }
        Next::Continue
    }
}

impl OnResponse for Compress {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        if head.status == StatusCode::NOT_MODIFIED {
            return self.revalidate(exchange, head);
        }
        if !self.fits(head) {
            return;
        }
        vary::add(&mut head.headers, "Accept-Encoding");
        let Some(coding) = exchange.coding else { return };
        // The head of a response to HEAD is that of the response to GET (RFC 9110 section 9.3.2).
        announce(coding, head);
        if exchange.method != Method::HEAD {
            exchange.encoder = Some(Box::new(Encoder::new(coding, self.heavy.clone())));
        }
    }
}

impl Compress {
    fn new(config: &Config, heavy: HeavyWork) -> Self {
        const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];
        let types = config.types.as_ref();
        Self {
            codings: config.algorithms.as_ref().map_or(&CODINGS[..], |list| list).into(),
            min_size: config.min_size.0,
            types: types.map(|types| types.iter().map(|kind| kind.to_ascii_lowercase().into()).collect()),
            event_streams: config.event_streams,
            heavy,
        }
    }

    /// Makes the validators of a 304 those of the 200 in its place (RFC 9110 section 15.4.5). Its head seldom has the media
    /// type: unless it says otherwise, and unless the client holds the body as it is, that 200 would be compressed.
    fn revalidate(&self, exchange: &Exchange, head: &mut response::Parts) {
        let other_type = head.headers.contains_key(header::CONTENT_TYPE) && !self.takes_type(head);
        if other_type || is_coded(&head.headers) || says_no_transform(head) {
            return;
        }
        vary::add(&mut head.headers, "Accept-Encoding");
        let is_held = |tag: &HeaderValue| {
            exchange.held_tags.iter().flatten().any(|held| names_tag(held.as_bytes(), tag.as_bytes()))
        };
        if exchange.coding.is_some() && !head.headers.get(header::ETAG).is_some_and(is_held) {
            weaken(head);
            // They are of the body as it is (RFC 9110 section 8.6).
            head.headers.remove(header::CONTENT_LENGTH);
            head.headers.remove(header::ACCEPT_RANGES);
        }
    }

    fn fits(&self, head: &response::Parts) -> bool {
        let has = |name| head.headers.contains_key(name);
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        !head.status.is_informational()
            && !bodiless
            && head.status != StatusCode::PARTIAL_CONTENT
            && !has(header::CONTENT_RANGE)
            && !is_coded(&head.headers)
            && !says_no_transform(head)
            && length(head).is_none_or(|length| length >= self.min_size)
            && self.takes_type(head)
    }

    fn takes_type(&self, head: &response::Parts) -> bool {
        let field = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(field) = field else { return false };
        let kind = field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind == "text/event-stream" {
            return self.event_streams;
        }
        let is = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == pattern,
        };
        match &self.types {
            Some(types) => types.iter().any(|pattern| is(pattern)),
            None => TYPES.into_iter().any(is) || kind.ends_with("+json") || kind.ends_with("+xml"),
        }
    }
}

fn says_no_transform(head: &response::Parts) -> bool {
    let mut words = list::texts(head.headers.get_all(header::CACHE_CONTROL));
    words.any(|word| word.eq_ignore_ascii_case("no-transform"))
}

fn length(head: &response::Parts) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn announce(coding: Coding, head: &mut response::Parts) {
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    // What they say of the body is not so any more; digests of both kinds are over the coded form (RFC 9530).
    for name in ["content-length", "accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"]
    {
        head.headers.remove(name);
    }
    weaken(head);
}

/// Makes the ETag a weak one (RFC 9110 section 8.8.1): the coded bodies of one tag may differ.
fn weaken(head: &mut response::Parts) {
    let tag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if let Some(tag) = tag.filter(|tag| !tag.starts_with("W/")) {
        let weak =
            HeaderValue::try_from(format!("W/{tag}")).expect("the tag is a field value, and W/ is ASCII");
        head.headers.insert(header::ETAG, weak);
    }
}

/// Whether an If-None-Match names exactly this tag: a weak one is another.
fn names_tag(list: &[u8], tag: &[u8]) -> bool {
    let mut rest = list;
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        let from = if rest[..start].ends_with(b"W/") { start - 2 } else { start };
        let Some(length) = rest[start + 1..].iter().position(|byte| *byte == b'"') else { return false };
        let end = start + length + 2;
        if &rest[from..end] == tag {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tags_as_they_are() {
        for (list, tag, named) in [
            (r#""a""#, r#""a""#, true),
            (r#""x", "a""#, r#""a""#, true),
            (r#""x,\"a""#, r#""a""#, false),
            (r#"W/"a""#, r#""a""#, false),
            (r#"W/"a","a""#, r#""a""#, true),
            (r#"W/"a""#, r#"W/"a""#, true),
            (r#""a"#, r#""a""#, false),
            ("*", r#""a""#, false),
            ("", r#""a""#, false),
        ] {
            assert_eq!(names_tag(list.as_bytes(), tag.as_bytes()), named, "{list} {tag}");
        }
    }

    fn compressed(accept: &str, fields: &[(&str, &str)]) -> (Option<String>, response::Parts) {
        let part = Compress::new(&Config::default(), HeavyWork::default());
        let mut exchange = Exchange::for_tests("GET", "/");
        exchange.head.headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        assert!(matches!(part.on_request(&mut exchange), Next::Continue));
        let mut head = http::Response::new(()).into_parts().0;
        for (name, value) in fields {
            head.headers.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        part.on_response(&mut exchange, &mut head);
        assert_eq!(
            exchange.encoder.is_some(),
            head.headers.contains_key(header::CONTENT_ENCODING) && !is_given(fields)
        );
        let coding = head.headers.get(header::CONTENT_ENCODING);
        (coding.map(|coding| coding.to_str().unwrap().to_owned()), head)
    }

    fn is_given(fields: &[(&str, &str)]) -> bool {
        fields.iter().any(|(name, _)| *name == "content-encoding")
    }

    #[test]
    fn text_is_compressed_and_the_head_says_so() {
        let fields =
            [("content-type", "text/html; charset=utf-8"), ("content-length", "2000"), ("etag", "\"a\"")];
        let (coding, head) = compressed("gzip, br", &fields);
        assert_eq!(coding.as_deref(), Some("br"));
        assert_eq!(
            (&head.headers["vary"], &head.headers["etag"]),
            (&"Accept-Encoding".parse().unwrap(), &"W/\"a\"".parse().unwrap())
        );
        assert!(!head.headers.contains_key("content-length"));
        let (none, head) = compressed("identity", &fields);
        assert_eq!((none, &head.headers["vary"]), (None, &"Accept-Encoding".parse().unwrap()));
        assert_eq!(head.headers["content-length"], "2000");
    }

    #[test]
    fn several_lines_are_one_list() {
        let part = Compress::new(&Config::default(), HeavyWork::default());
        for (name, second) in
            [(header::CONTENT_ENCODING, &b"gzip"[..]), (header::CACHE_CONTROL, b"x=\xe9, no-transform")]
        {
            let mut head = http::Response::new(()).into_parts().0;
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            head.headers.append(&name, HeaderValue::from_static("Identity"));
            assert!(part.fits(&head), "{name}");
            head.headers.append(&name, HeaderValue::from_bytes(second).unwrap());
            assert!(!part.fits(&head), "{name}");
        }
    }

    #[test]
    fn what_would_gain_nothing_or_must_not_change_is_left() {
        for fields in [
            &[("content-type", "image/png")][..],
            &[("content-type", "text/plain"), ("content-length", "1023")],
            &[("content-type", "text/plain"), ("content-encoding", "gzip")],
            &[("content-type", "text/plain"), ("content-encoding", "gzip, identity")],
            &[("content-type", "text/plain"), ("cache-control", "public, no-transform")],
            &[("content-type", "text/plain"), ("content-range", "bytes 0-4/9")],
            &[("content-type", "text/event-stream")],
            &[],
        ] {
            let (coding, head) = compressed("zstd", fields);
            assert!(coding.is_none() || is_given(fields), "{fields:?}");
            assert!(!head.headers.contains_key(header::VARY), "{fields:?}");
        }
        assert_eq!(
            compressed("zstd", &[("content-type", "application/problem+json")]).0.as_deref(),
            Some("zstd")
        );
    }
}

//! Takes the coding off request bodies.

mod decoder;

use std::{num::NonZeroU32, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal, Windows};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::coding::Coding,
    value::{Size, Spanned},
};

pub use decoder::Decoder;

pub const ADDS_UP: bool = false;
/// Its name where its decisions are counted that are made while the body comes.
pub const KIND: &str = "decompress";

/// Takes the coding off request bodies (RFC 9110 section 8.4) before they go upstream, piece by piece. A coding that is not
/// listed, or more than one, is refused with 415 and Accept-Encoding; what is not in its coding with 400; what grows
/// past `max_size` or `max_ratio` with 413; what comes while bodies that are being decoded may take 1 GiB together (16 MiB
/// each of br, 8 of zstd, 1 of gzip) with 503. `body_limit` counts bodies as they came, `validate` sees them decoded.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Decompress")]
pub struct Config {
    /// The codings that are taken. Default [zstd, br, gzip].
    pub algorithms: Spanned<Vec<Coding>>,
    /// The most that a body may have decoded, as 10MB. Default 10MB.
    pub max_size: Size,
    /// How many times its size a body may have decoded, from 1 MiB on: what is decoded to less is never refused for it.
    /// Default 100.
    pub max_ratio: NonZeroU32,
    /// enforce, or observe: bodies of other codings go on as they are, those past a limit decoded, and the access log
    /// says what would have been refused.
    pub mode: Mode,
}

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];
const MAX_RATIO: NonZeroU32 = NonZeroU32::new(100).expect("100 is not zero");

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithms: Spanned::new(CODINGS.to_vec(), Default::default()),
            max_size: Size(10_000_000),
            max_ratio: MAX_RATIO,
            mode: Mode::Enforce,
        }
    }
}

/// What decoded bodies are held to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub size: u64,
    pub ratio: u64,
    pub mode: Mode,
}

struct Decompress {
    codings: Box<[Coding]>,
    accept: HeaderValue,
    bounds: Bounds,
    windows: Windows,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.algorithms.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, config.algorithms.span, "no coding is taken");
        cx.diagnostics.push(problem.help("leave it out for [zstd, br, gzip]"));
    }
    chain.guard(config.mode, Arc::new(Decompress::new(config, cx.world.windows.clone())));
}

impl Decompress {
    fn new(config: &Config, windows: Windows) -> Self {
        let accept = config.algorithms.iter().map(|coding| coding.name()).collect::<Vec<_>>().join(", ");
        Self {
            codings: config.algorithms.as_slice().into(),
            accept: HeaderValue::try_from(accept).expect("names of codings are visible ASCII"),
            bounds: Bounds {
                size: config.max_size.0,
                ratio: config.max_ratio.get().into(),
                mode: config.mode,
            },
            windows,
        }
    }
}

impl OnRequest for Decompress {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        if !exchange.has_body {
            return Next::Continue;
        }
        match coding(&exchange.head.headers) {
            Some(Said::None) => Next::Continue,
            Some(Said::One(coding)) if self.codings.contains(&coding) => {
                let window = match self.windows.take(window(coding)) {
                    Ok(window) => window,
                    Err(refusal) => return Next::Refuse(refusal),
                };
                exchange.decoder = Some(Box::new(Decoder::new(coding, self.bounds, window)));
                // What they say of the body is not so any more; digests are over the coded form (RFC 9530).
                for name in [
                    "content-encoding",
                    "content-length",
                    "content-md5",
                    "content-digest",
                    "repr-digest",
                    "digest",
                ] {
                    exchange.head.headers.remove(name);
                }
                Next::Continue
            }
            _ => Refusal::new(Reason::UnsupportedCoding)
                .with(header::ACCEPT_ENCODING, self.accept.clone())
                .into(),
        }
    }
}

/// How many MiB decoding may take: the largest window that the coding has here, or less than one.
fn window(coding: Coding) -> u32 {
    match coding {
        Coding::Zstd => 8,
        Coding::Br => 16,
        Coding::Gzip => 1,
    }
}

/// What a message says of its body's coding.
enum Said {
    None,
    One(Coding),
}

/// `None`: a coding that nobody here knows, or several.
fn coding(headers: &HeaderMap) -> Option<Said> {
    let mut said = Said::None;
    for line in headers.get_all(header::CONTENT_ENCODING) {
        let words = line.to_str().ok()?.split(',').map(str::trim);
        for word in words.filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case("identity")) {
            match said {
                Said::None => said = Said::One(Coding::named(word)?),
                Said::One(_) => return None,
            }
        }
    }
    Some(said)
}

/// Whether the body of a message is in a coding that nobody took off.
pub fn is_coded(headers: &HeaderMap) -> bool {
    !matches!(coding(headers), Some(Said::None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(encoding: &[&str]) -> (Option<Reason>, Exchange) {
        let mut exchange = Exchange::for_tests("POST", "/");
        exchange.has_body = true;
        exchange.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        for value in encoding {
            exchange.head.headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        let part = Decompress::new(&Config::default(), Windows::default());
        let reason = match part.on_request(&mut exchange) {
            Next::Refuse(refusal) => {
                assert_eq!(refusal.fields[header::ACCEPT_ENCODING], "zstd, br, gzip");
                Some(refusal.reason)
            }
            _ => None,
        };
        (reason, exchange)
    }

    #[test]
    fn known_codings_are_taken_off_and_the_head_says_so() {
        for encoding in ["gzip", "X-GZIP", "br", "identity, zstd,"] {
            let (refused, exchange) = asked(&[encoding]);
            assert!(refused.is_none() && exchange.decoder.is_some(), "{encoding}");
            assert!(exchange.head.headers.is_empty(), "{encoding}");
        }
        for encoding in [&[][..], &["identity"]] {
            let (refused, exchange) = asked(encoding);
            assert!(refused.is_none() && exchange.decoder.is_none());
            assert_eq!(exchange.head.headers[header::CONTENT_LENGTH], "7");
        }
    }

    #[test]
    fn others_and_several_are_refused() {
        for encoding in [&["deflate"][..], &["gzip, gzip"], &["gzip", "br"], &["gzip, aws-chunked"]] {
            assert_eq!(asked(encoding).0, Some(Reason::UnsupportedCoding), "{encoding:?}");
        }
    }
}

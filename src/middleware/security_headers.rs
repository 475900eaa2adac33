//! Tells browsers what a page may do and who may hold it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header, response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, OnResponse};
use crate::{
    diagnostic::{Code, Diagnostic, closest},
    value::{Duration, Spanned},
};

pub const ADDS_UP: bool = false;

/// Tells browsers what a page may do and who may hold it, on every response, errors included. A field that a response
/// has already is kept: who made the response knows it best. `response_headers: { set }` is what replaces it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SecurityHeaders")]
pub struct Config {
    /// Strict-Transport-Security, on what came by https alone (RFC 6797 section 7.2). Default: none.
    pub hsts: Option<Spanned<Hsts>>,
    /// Content-Security-Policy. It may be written over several lines. Default: none.
    pub csp: Option<Spanned<String>>,
    /// Content-Security-Policy-Report-Only: a policy that browsers report by and do not enforce. Default: none.
    pub csp_report_only: Option<Spanned<String>>,
    /// X-Frame-Options. Default SAMEORIGIN.
    pub frame: Frame,
    /// X-Content-Type-Options: nosniff. Default true.
    pub content_type_options: Option<bool>,
    /// Referrer-Policy. Default strict-origin-when-cross-origin.
    pub referrer_policy: ReferrerPolicy,
    /// Permissions-Policy, as "camera=(), geolocation=(self)". Default: none.
    pub permissions_policy: Option<Spanned<String>>,
    /// Cross-Origin-Opener-Policy. Default: none.
    pub cross_origin_opener_policy: Option<OpenerPolicy>,
    /// Cross-Origin-Embedder-Policy. Default: none.
    pub cross_origin_embedder_policy: Option<EmbedderPolicy>,
    /// Cross-Origin-Resource-Policy. Default: none.
    pub cross_origin_resource_policy: Option<ResourcePolicy>,
}

/// For how long browsers come back by https alone (RFC 6797).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Hsts")]
pub struct Hsts {
    /// For how long, in whole seconds, as 365d. 0s makes browsers forget it.
    pub max_age: Spanned<Duration>,
    /// Whether it holds for all names under the host's too. Default false.
    #[serde(default)]
    pub subdomains: bool,
    /// Whether browsers may ship with it, which asks for subdomains and at least 365d. Default false.
    #[serde(default)]
    pub preload: Option<Spanned<bool>>,
}

/// Gives an enum whose variants are the words of a field.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// Whose pages may show these in a frame.
    #[derive(Default)]
    Frame {
        /// Nobody's
        Deny = "DENY",
        /// Those of the same origin
        #[default]
        SameOrigin = "SAMEORIGIN",
        /// Nothing is said
        Off = "off",
    }
}

words! {
    /// What other pages are told of where a visitor came from; off: nothing is said.
    #[derive(Default)]
    ReferrerPolicy {
        NoReferrer = "no-referrer",
        NoReferrerWhenDowngrade = "no-referrer-when-downgrade",
        Origin = "origin",
        OriginWhenCrossOrigin = "origin-when-cross-origin",
        SameOrigin = "same-origin",
        StrictOrigin = "strict-origin",
        #[default]
        StrictOriginWhenCrossOrigin = "strict-origin-when-cross-origin",
        UnsafeUrl = "unsafe-url",
        Off = "off",
    }
}

words! {
    /// Which pages share a browsing context group with those that they open.
    OpenerPolicy {
        UnsafeNone = "unsafe-none",
        SameOrigin = "same-origin",
        SameOriginAllowPopups = "same-origin-allow-popups",
        NoopenerAllowPopups = "noopener-allow-popups",
    }
}

words! {
    /// Whether a page holds only what agrees to that.
    EmbedderPolicy {
        UnsafeNone = "unsafe-none",
        RequireCorp = "require-corp",
        Credentialless = "credentialless",
    }
}

words! {
    /// Whose pages may hold these.
    ResourcePolicy {
        SameSite = "same-site",
        SameOrigin = "same-origin",
        CrossOrigin = "cross-origin",
    }
}

/// The directives that there are (CSP Level 3 and what extends it); browsers pass over others.
const DIRECTIVES: [&str; 27] = [
    "base-uri",
    "block-all-mixed-content",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "prefetch-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
];

/// What the preload lists of browsers ask for.
const PRELOADED: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);

struct SecurityHeaders {
    fields: Box<[(HeaderName, HeaderValue)]>,
    hsts: Option<HeaderValue>,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let hsts = config.hsts.as_ref().map(|hsts| compile_hsts(hsts, cx));
    chain.on_every_response(Arc::new(SecurityHeaders { fields: fields(config, cx), hsts }));
}

impl OnResponse for SecurityHeaders {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        for (name, value) in &self.fields {
            keep_or_set(head, name, value);
        }
        match &self.hsts {
            Some(hsts) if exchange.scheme == "https" => {
                keep_or_set(head, &header::STRICT_TRANSPORT_SECURITY, hsts);
            }
            // RFC 6797 section 7.2: it must not go out in the clear, whoever wrote it.
            Some(_) => drop(head.headers.remove(header::STRICT_TRANSPORT_SECURITY)),
            None => {}
        }
    }
}

fn keep_or_set(head: &mut response::Parts, name: &HeaderName, value: &HeaderValue) {
    if !head.headers.contains_key(name) {
        head.headers.insert(name, value.clone());
    }
}

fn fields(config: &Config, cx: &mut Context<'_>) -> Box<[(HeaderName, HeaderValue)]> {
    let csp = |name, written: &Option<Spanned<String>>, cx: &mut Context<'_>| {
        Some((name, policy(written.as_ref()?, check_directives, cx)?))
    };
    let permissions = |written: &Option<Spanned<String>>, cx: &mut Context<'_>| {
        Some((
            HeaderName::from_static("permissions-policy"),
            policy(written.as_ref()?, check_permissions, cx)?,
        ))
    };
    let word = |name, word: Option<&'static str>| Some((name, HeaderValue::from_static(word?)));
    let said = |word| Some(word).filter(|word| *word != "off");
    let cross_origin = |what, policy| word(HeaderName::from_static(what), policy);
    let nosniff = config.content_type_options.unwrap_or(true).then_some("nosniff");
    [
        csp(header::CONTENT_SECURITY_POLICY, &config.csp, cx),
        csp(header::CONTENT_SECURITY_POLICY_REPORT_ONLY, &config.csp_report_only, cx),
        permissions(&config.permissions_policy, cx),
        word(header::X_FRAME_OPTIONS, said(config.frame.word())),
        word(header::X_CONTENT_TYPE_OPTIONS, nosniff),
        word(header::REFERRER_POLICY, said(config.referrer_policy.word())),
        cross_origin("cross-origin-opener-policy", config.cross_origin_opener_policy.map(OpenerPolicy::word)),
        cross_origin(
            "cross-origin-embedder-policy",
            config.cross_origin_embedder_policy.map(EmbedderPolicy::word),
        ),
        cross_origin(
            "cross-origin-resource-policy",
            config.cross_origin_resource_policy.map(ResourcePolicy::word),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// RFC 6797 section 6.1.
fn compile_hsts(hsts: &Hsts, cx: &mut Context<'_>) -> HeaderValue {
    let max_age = hsts.max_age.0;
    if max_age.subsec_nanos() != 0 {
        let message = "max_age counts whole seconds";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, hsts.max_age.span, message));
    }
    let preload = hsts.preload.as_ref().filter(|preload| preload.value);
    if let Some(preload) = preload.filter(|_| !hsts.subdomains || max_age < PRELOADED) {
        let message = "browsers preload only what holds for all subdomains and for a year";
        let problem = Diagnostic::error(Code::NoEffect, preload.span, message);
        cx.diagnostics.push(problem.help("hsts: { max_age: 365d, subdomains: true, preload: true }"));
    }
    let subdomains = if hsts.subdomains { "; includeSubDomains" } else { "" };
    let preload = if preload.is_some() { "; preload" } else { "" };
    let value = format!("max-age={}{subdomains}{preload}", max_age.as_secs());
    HeaderValue::try_from(value).expect("digits and words of ours")
}

/// A policy on one line.
fn policy(
    written: &Spanned<String>,
    check: fn(&str, &Spanned<String>, &mut Context<'_>),
    cx: &mut Context<'_>,
) -> Option<HeaderValue> {
    let line = written.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, written.span, "the policy says nothing");
        cx.diagnostics.push(problem.help("leave it out"));
        return None;
    }
    check(&line, written, cx);
    let value = HeaderValue::from_str(&line).ok().filter(|_| line.is_ascii());
    if value.is_none() {
        let message = "a policy is written in ASCII, without control characters";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message));
    }
    value
}

/// Browsers pass over a directive that they do not know: a slip would lift what it was to forbid.
fn check_directives(line: &str, written: &Spanned<String>, cx: &mut Context<'_>) {
    for directive in line.split([';', ',']).filter_map(|directive| directive.split_whitespace().next()) {
        if !DIRECTIVES.iter().any(|known| known.eq_ignore_ascii_case(directive)) {
            let message = format!("{directive} is no directive that browsers know");
            let near = closest(directive, DIRECTIVES).map(|near| format!("did you mean {near}?"));
            let problem = Diagnostic::warning(Code::BadValue, written.span, message);
            cx.diagnostics.push(problem.maybe_help(near));
        }
    }
}

/// A dictionary of features (RFC 9651 section 3.2): browsers pass over the whole of what is none.
fn check_permissions(line: &str, written: &Spanned<String>, cx: &mut Context<'_>) {
    let is_feature = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let allows = |list: &str| {
        matches!(list, "*" | "self") || (list.starts_with('(') && list.trim_end().ends_with(')'))
    };
    let sound = |member: &str| {
        member.trim().split_once('=').is_some_and(|(name, list)| is_feature(name) && allows(list))
    };
    if let Some(member) = line.split(',').find(|member| !sound(member)) {
        let message = format!("{:?} is no feature with those who have it", member.trim());
        let problem = Diagnostic::error(Code::BadValue, written.span, message);
        cx.diagnostics.push(problem.help("camera=(), geolocation=(self \"https://maps.example\")"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diagnostic::Diagnostics, middleware::World};

    fn part(config: &Config) -> SecurityHeaders {
        let mut diagnostics = Diagnostics::default();
        let world = World::for_tests();
        let mut cx = Context::for_tests(&world, &mut diagnostics);
        let hsts = config.hsts.as_ref().map(|hsts| compile_hsts(hsts, &mut cx));
        let part = SecurityHeaders { fields: fields(config, &mut cx), hsts };
        assert!(diagnostics.is_empty());
        part
    }

    fn written(text: &str) -> Option<Spanned<String>> {
        Some(Spanned::new(text.to_owned(), Default::default()))
    }

    fn answered(config: &Config, scheme: &'static str, given: &[(&'static str, &str)]) -> response::Parts {
        let mut exchange = Exchange::for_tests("GET", "/");
        exchange.scheme = scheme;
        let mut head = http::Response::new(()).into_parts().0;
        for (name, value) in given {
            head.headers.insert(*name, value.parse().unwrap());
        }
        part(config).on_response(&mut exchange, &mut head);
        head
    }

    #[test]
    fn little_is_said_unless_asked_for() {
        let head = answered(&Config::default(), "https", &[]);
        let said: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            said,
            [
                ("x-frame-options", "SAMEORIGIN"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "strict-origin-when-cross-origin"),
            ]
        );
        let off = Config {
            frame: Frame::Off,
            content_type_options: Some(false),
            referrer_policy: ReferrerPolicy::Off,
            ..Config::default()
        };
        assert!(answered(&off, "https", &[]).headers.is_empty());
    }

    #[test]
    fn what_a_response_says_already_is_kept() {
        let config = Config { csp: written("default-src\n  'self'"), ..Config::default() };
        assert_eq!(answered(&config, "http", &[]).headers["content-security-policy"], "default-src 'self'");
        let given = [("content-security-policy", "default-src 'none'"), ("x-frame-options", "DENY")];
        let head = answered(&config, "http", &given);
        assert_eq!(head.headers["content-security-policy"], "default-src 'none'");
        assert_eq!(head.headers["x-frame-options"], "DENY");
        assert_eq!(head.headers.get_all("x-frame-options").iter().count(), 1);
    }

    #[test]
    fn hsts_goes_out_encrypted_only() {
        let max_age = Spanned::new("365d".parse().unwrap(), Default::default());
        let preload = Some(Spanned::new(true, Default::default()));
        let hsts = Spanned::new(Hsts { max_age, subdomains: true, preload }, Default::default());
        let config = Config { hsts: Some(hsts), ..Config::default() };
        let field = "strict-transport-security";
        assert_eq!(
            answered(&config, "https", &[]).headers[field],
            "max-age=31536000; includeSubDomains; preload"
        );
        assert_eq!(answered(&config, "https", &[(field, "max-age=1")]).headers[field], "max-age=1");
        assert!(!answered(&config, "http", &[(field, "max-age=1")]).headers.contains_key(field));
    }
}

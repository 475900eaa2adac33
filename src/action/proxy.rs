//! Sends the request to an upstream.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    mirror::{self, Mirror},
    rewrite::RegexRewrite,
    split::config::{Entry, SplitBy},
    target,
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    http::{authority::Authority, path},
    upstream::{Priority, Upstream},
    value::{Name, OneOrMany, Span, Spanned, Template, TextOr, Variables},
};

/// Sends the request to an upstream, or to one of several. Exactly one of `upstream` and `split` stands in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Proxy")]
pub struct Config {
    /// The upstream's name.
    #[serde(default)]
    pub upstream: Option<Spanned<Name>>,
    /// Upstreams that share the requests, each with a weight or conditions: [{ upstream: app, weight: 95 }, { upstream: next,
    /// weight: 5 }]. The first entry whose conditions a request meets gets it; otherwise the weights decide.
    #[serde(default)]
    pub split: Option<Box<Spanned<Vec<Spanned<Entry>>>>>,
    /// What keeps a user on one side of the split: client_ip, "header:NAME", "cookie:NAME", "query:NAME", or
    /// { cookie: NAME, ttl: 30d }, which Portolan sets. Default: each request is drawn at random.
    #[serde(default)]
    pub split_by: Option<Box<Spanned<SplitBy>>>,
    /// The path sent: a template such as "/v2/{id}", { strip_prefix: /api }, or { regex: '^/users/(?<id>[0-9]+)$', to:
    /// "/u/{id}" }. Default: as it came.
    #[serde(default)]
    pub rewrite: Option<Box<Spanned<Rewrite>>>,
    /// The Host sent: original (default), upstream (the endpoint's own), or a text.
    #[serde(default)]
    pub host_header: Option<Spanned<String>>,
    /// Which requests leave the upstream's queue first, where its `queue_order` is priority. Default normal.
    #[serde(default)]
    pub priority: Option<Spanned<Priority>>,
    /// Sends copies of requests to another upstream, or to several.
    #[serde(default)]
    pub mirror: Option<Box<Spanned<OneOrMany<Spanned<mirror::Config>>>>>,
}

/// How the path is rewritten.
pub type Rewrite = TextOr<String, RewriteMap>;

/// A path rewritten otherwise than by one template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Rewrite")]
pub struct RewriteMap {
    /// Whole segments from the path's start: "/api" makes "/x" of "/api/x".
    pub strip_prefix: Option<Spanned<String>>,
    /// A regular expression over the normalised path. A path that it matches becomes `to`, another stays as it is.
    pub regex: Option<Spanned<String>>,
    /// The whole path of a match: a template of the expression's named groups and of all that templates may name.
    pub to: Option<Spanned<String>>,
}

/// The action, ready to run.
#[derive(Debug)]
pub struct Proxy {
    pub upstream: Arc<Upstream>,
    pub rewrite: PathRewrite,
    pub host_header: HostHeader,
    pub timeouts: Timeouts,
    /// Where copies of requests go.
    pub mirrors: Box<[Mirror]>,
    pub priority: Priority,
}

/// What the path sent upstream is made of.
#[derive(Debug)]
pub enum PathRewrite {
    /// As it was routed.
    Keep,
    Template(Template),
    /// These whole segments are taken off the path's start: "/api".
    StripPrefix(Box<str>),
    /// What matches becomes another path.
    Regex(RegexRewrite),
}

/// The Host sent upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The request's.
    Original,
    /// The endpoint's own.
    Upstream,
    Fixed(HeaderValue),
}

/// Timeouts of the proxied request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head to the response's end, where that has a bound.
    pub total: Option<Duration>,
    pub first_byte: Duration,
    pub body_idle: Duration,
    /// How long nothing may pass through a tunnel, in either way.
    pub tunnel_idle: Duration,
}

/// Compiles the action for a path with these captures. `None` where an error was reported.
pub fn compile(
    config: &Config,
    captures: &[&str],
    (upstream, mirrors): (Arc<Upstream>, Box<[Mirror]>),
    timeouts: Timeouts,
    diagnostics: &mut Diagnostics,
) -> Option<Proxy> {
    let rewrite = match &config.rewrite {
        None => Some(PathRewrite::Keep),
        Some(written) => rewrite(written, captures, diagnostics),
    };
    let host_header = match &config.host_header {
        None => Some(HostHeader::Original),
        Some(written) => host_header(written, diagnostics),
    };
    let priority = written_priority(config, &upstream, diagnostics);
    Some(Proxy {
        priority: priority?,
        upstream,
        rewrite: rewrite?,
        host_header: host_header?,
        timeouts,
        mirrors,
    })
}

impl Proxy {
    /// Whether another does the same with every request. Rewrites are not compared: two that are the same are two.
    pub fn does_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.upstream, &other.upstream)
            && matches!((&self.rewrite, &other.rewrite), (PathRewrite::Keep, PathRewrite::Keep))
            && (&self.host_header, self.timeouts) == (&other.host_header, other.timeouts)
            && self.priority == other.priority
            && self.mirrors.len() == other.mirrors.len()
            && self.mirrors.iter().zip(&other.mirrors).all(|(own, others)| own.does_the_same(others))
    }

    /// Whether what is sent upstream may differ from what was routed.
    pub fn rewrites(&self) -> bool {
        !matches!(self.rewrite, PathRewrite::Keep)
    }

    /// The path and query sent upstream, for a request routed by this path. `None` where a rewrite would make a path of
    /// it that leads elsewhere than it says.
    pub fn target(&self, path: &str, query: Option<&str>, variables: &impl Variables) -> Option<String> {
        let mut out = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
        let says_query = match &self.rewrite {
            PathRewrite::Keep => {
                out.push_str(path);
                false
            }
            PathRewrite::StripPrefix(prefix) => {
                out.push_str(strip(path, prefix));
                false
            }
            PathRewrite::Template(template) => {
                template.render(variables, &mut out);
                target::settle(&mut out)?;
                template.has_query()
            }
            PathRewrite::Regex(rewrite) => match rewrite.render(path, variables, &mut out) {
                false => {
                    out.push_str(path);
                    false
                }
                true => {
                    target::settle(&mut out)?;
                    rewrite.has_query()
                }
            },
        };
        if let Some(query) = query.filter(|_| !says_query) {
            out.push('?');
            out.push_str(query);
        }
        Some(out)
    }
}

/// The path without the prefix's whole segments; a path without the prefix stays as it is.
fn strip<'p>(path: &'p str, prefix: &str) -> &'p str {
    match path.strip_prefix(prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn rewrite(
    written: &Spanned<Rewrite>,
    captures: &[&str],
    diagnostics: &mut Diagnostics,
) -> Option<PathRewrite> {
    match &written.value {
        TextOr::Map(RewriteMap { strip_prefix: Some(prefix), regex: None, to: None }) => {
            strip_prefix(prefix, diagnostics)
        }
        TextOr::Map(RewriteMap { strip_prefix: None, regex: Some(regex), to: Some(to) }) => {
            RegexRewrite::compile(regex, to, captures, diagnostics).map(PathRewrite::Regex)
        }
        TextOr::Map(_) => {
            let message = "a path is rewritten by strip_prefix alone, or by regex and to together";
            diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message));
            None
        }
        TextOr::Text(text) => {
            path_template(text, written.span, captures, diagnostics).map(PathRewrite::Template)
        }
    }
}

/// A template of the path sent upstream.
pub(super) fn path_template(
    text: &str,
    span: Span,
    captures: &[&str],
    diagnostics: &mut Diagnostics,
) -> Option<Template> {
    if !starts_at_root(text) {
        let problem = Diagnostic::error(Code::BadTemplate, span, "the path sent upstream starts with \"/\"");
        diagnostics.push(problem.help(format!("did you mean {:?}?", format!("/{text}"))));
        return None;
    }
    if target::has_dots(text.split('?').next().unwrap_or_default()) {
        let problem = Diagnostic::error(
            Code::BadTemplate,
            span,
            "the path sent upstream has no \".\" and \"..\" in it",
        );
        diagnostics.push(problem.help("write the path that it leads to"));
        return None;
    }
    template(text, span, captures, diagnostics)
}

fn starts_at_root(template: &str) -> bool {
    template.starts_with('/') || template.starts_with("{request.path}")
}

fn strip_prefix(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<PathRewrite> {
    let prefix = written.value.strip_suffix('/').unwrap_or(&written.value);
    let reason = match path::normalise(prefix, path::EncodedSlash::Keep) {
        _ if prefix.is_empty() => "it takes nothing off".to_owned(),
        Err(error) => error.to_string(),
        Ok(normal) if normal != prefix => {
            format!("no path has it: paths are normalised, {normal:?} is meant?")
        }
        Ok(_) => return Some(PathRewrite::StripPrefix(prefix.into())),
    };
    let message = format!("{:?} is no prefix of a path", written.value);
    diagnostics.push(Diagnostic::error(Code::BadPattern, written.span, message).reason(reason));
    None
}

fn written_priority(config: &Config, upstream: &Upstream, diagnostics: &mut Diagnostics) -> Option<Priority> {
    let Some(written) = config.priority else { return Some(Priority::Normal) };
    if upstream.has_priorities() {
        return Some(written.value);
    }
    let message =
        format!("priority has no effect: upstream {} does not queue requests by priority", upstream.name);
    let problem = Diagnostic::error(Code::NoEffect, written.span, message);
    let help = "write in the upstream: limits: { in_flight: 1000, queue: 100, queue_order: priority }";
    let problem = match &config.upstream {
        Some(name) => problem.label(name.span, "this upstream"),
        None => problem,
    };
    diagnostics.push(problem.help(help));
    None
}

fn host_header(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<HostHeader> {
    match written.as_str() {
        "original" => return Some(HostHeader::Original),
        "upstream" => return Some(HostHeader::Upstream),
        _ => {}
    }
    let valid = Authority::parse(written).ok().and_then(|_| HeaderValue::from_str(written).ok());
    if valid.is_none() {
        let message = format!("{:?} is no host", written.value);
        let help =
            "original sends the request's, upstream the endpoint's own, \"api.internal:8080\" that text";
        diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message).help(help));
    }
    valid.map(HostHeader::Fixed)
}

pub(super) fn template(
    text: &str,
    span: Span,
    captures: &[&str],
    diagnostics: &mut Diagnostics,
) -> Option<Template> {
    match Template::parse(text, captures) {
        Ok(template) => Some(template),
        Err(error) => {
            diagnostics.push(Diagnostic::bad_template(span, &error));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::target::testing::{Fixed, spanned},
        upstream::{self, Registry},
        value::Clock,
    };

    fn config(rewrite: Option<Rewrite>, host_header: Option<&str>) -> Config {
        Config {
            upstream: Some(spanned("u".parse().unwrap())),
            split: None,
            split_by: None,
            rewrite: rewrite.map(|rewrite| Box::new(spanned(rewrite))),
            host_header: host_header.map(|text| spanned(text.to_owned())),
            mirror: None,
            priority: None,
        }
    }

    fn compiled(config: &Config) -> Result<Proxy, Diagnostics> {
        let address = upstream::Denied::default().admit("127.0.0.1:1".parse().unwrap()).unwrap();
        let endpoints = vec![upstream::EndpointSettings::new(address, 1)];
        let long = Duration::from_secs(60);
        let settings = upstream::Settings {
            proxy_protocol: None,
            name: "u".parse().unwrap(),
            endpoints,
            sources: Vec::new(),
            resolvers: Arc::default(),
            denied: upstream::Denied::default(),
            balance: upstream::Balance::RoundRobin,
            protocol: Default::default(),
            tls: None,
            health: None,
            timeouts: upstream::Timeouts { connect: long, first_byte: long, body_idle: long },
            pool: upstream::Pool::of_idle(long),
            in_flight: None,
            response_limits: Default::default(),
            zone: None,
            resilience: Default::default(),
            retry: Default::default(),
            sticky: None,
        };
        let upstream = Upstream::build(settings, &Registry::new(Clock::manual(), None, Arc::default()));
        let timeouts = Timeouts { total: None, first_byte: long, body_idle: long, tunnel_idle: long };
        let mut diagnostics = Diagnostics::default();
        let proxy = compile(config, &["id", "rest"], (upstream, Box::default()), timeouts, &mut diagnostics);
        proxy.ok_or(diagnostics)
    }

    #[track_caller]
    fn sent(rewrite: Option<Rewrite>, path: &str, query: Option<&str>) -> String {
        let proxy = compiled(&config(rewrite, None)).unwrap();
        proxy.target(path, query, &Fixed { path, query, captures: &["7", "a%2Fb/c"] }).expect("a path")
    }

    fn text(text: &str) -> Option<Rewrite> {
        Some(TextOr::Text(text.into()))
    }

    fn strip(prefix: &str) -> Option<Rewrite> {
        Some(TextOr::Map(RewriteMap { strip_prefix: Some(spanned(prefix.into())), ..RewriteMap::default() }))
    }

    fn regex(regex: &str, to: &str) -> Option<Rewrite> {
        let part = |text: &str| Some(spanned(text.to_owned()));
        Some(TextOr::Map(RewriteMap { regex: part(regex), to: part(to), strip_prefix: None }))
    }

    #[test]
    fn what_the_expression_matches_becomes_another_path() {
        let users = || regex("^/users/(?<user>[0-9]+)(?<rest>/.*)?$", "/u/{user}{rest}");
        assert_eq!(sent(users(), "/users/12", Some("x=1")), "/u/12?x=1");
        assert_eq!(sent(users(), "/users/12/a%2Fb", None), "/u/12/a%2Fb");
        assert_eq!(sent(users(), "/users/me", Some("x=1")), "/users/me?x=1", "no match: as it came");
        let mixed = regex("(?<last>[^/]+)$", "/{id}/{last}?from={request.path}");
        assert_eq!(sent(mixed, "/a/ü", Some("x=1")), "/7/%C3%BC?from=/a/%C3%BC");
        assert_eq!(sent(regex("^/(?<id>.*)$", "/own/{id}"), "/a", None), "/own/a", "the nearer name holds");
    }

    #[test]
    fn the_path_is_kept_rewritten_or_shortened() {
        assert_eq!(sent(None, "/a/b", Some("x=1")), "/a/b?x=1");
        assert_eq!(sent(None, "/a", Some("")), "/a?");
        assert_eq!(sent(text("/v2/{id}/{rest}"), "/a", Some("x=1")), "/v2/7/a%2Fb/c?x=1");
        assert_eq!(sent(text("/v2?id={id}"), "/a", Some("x=1")), "/v2?id=7");
        assert_eq!(sent(text("/v2?{request.query}&y"), "/a", Some("x=1")), "/v2?x=1&y");
        assert_eq!(sent(text("{request.path}/"), "/a", None), "/a/");
    }

    #[test]
    fn no_rewrite_leads_out_of_where_it_leads() {
        let under = || regex("^/files(?<rest>.*)$", "/public/{rest}");
        let target = |rewrite, path: &str| {
            let proxy = compiled(&config(rewrite, None)).unwrap();
            proxy.target(path, None, &Fixed { path, query: None, captures: &["..", "."] })
        };
        for path in ["/files..", "/files../x", "/files."] {
            assert_eq!(target(under(), path), None, "{path}");
        }
        for template in ["/a/{id}/b", "/a/{rest}", "/a/{id}?x", "/a/.{rest}"] {
            assert_eq!(target(text(template), "/a"), None, "{template}");
        }
        assert_eq!(target(regex("^/(?<cut>..)", "/{cut}"), "/a%2Fb"), None, "half of an escape");
        assert_eq!(target(under(), "/files/x").as_deref(), Some("/public/x"));
        assert_eq!(
            target(regex("^(?<all>.*)$", "/{all}"), "/evil.example/a").as_deref(),
            Some("/evil.example/a")
        );
        assert_eq!(target(text("/a..{id}/x?y=../{id}"), "/a").as_deref(), Some("/a..../x?y=../.."));
    }

    #[test]
    fn whole_segments_are_stripped() {
        for (path, sent_path) in
            [("/api", "/"), ("/api/", "/"), ("/api/x", "/x"), ("/apis", "/apis"), ("/", "/")]
        {
            assert_eq!(sent(strip("/api"), path, None), sent_path, "{path}");
            assert_eq!(sent(strip("/api/"), path, None), sent_path, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_escaped() {
        assert_eq!(sent(text("/ü x#y"), "/a", None), "/%C3%BC%20x%23y");
    }

    #[test]
    fn wrong_rewrites_and_hosts_are_refused() {
        let half =
            Some(TextOr::Map(RewriteMap { to: Some(spanned("/x".to_owned())), ..RewriteMap::default() }));
        for wrong in [
            text("v2"),
            text("{rest}"),
            text("/{no}"),
            text("/a/../b"),
            text("{request.path}/.?x"),
            strip(""),
            strip("/"),
            strip("api"),
            strip("/a//b"),
            regex("(", "/x"),
            regex("(?<a>x{1000}){1000}", "/x"),
            regex("^/(?<a>.*)$", "{a}"),
            regex("^/(.*)$", "/{b}"),
            half,
        ] {
            assert!(compiled(&config(wrong.clone(), None)).is_err(), "{wrong:?}");
        }
        for wrong in ["", "a b", "http://x", "x/"] {
            assert!(compiled(&config(None, Some(wrong))).is_err(), "{wrong:?}");
        }
        for (right, is) in [
            ("original", HostHeader::Original),
            ("upstream", HostHeader::Upstream),
            ("api.test:80", HostHeader::Fixed(HeaderValue::from_static("api.test:80"))),
        ] {
            assert_eq!(compiled(&config(None, Some(right))).unwrap().host_header, is);
        }
    }
}

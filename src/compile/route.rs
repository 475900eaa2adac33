//! A route by itself: pattern, conditions, action. What surrounds it (chain, errors, log) differs by where
//! it is used and is added there.

use std::{sync::Arc, time::Duration};

use super::{
    access_log::{self, OwnLog},
    answers::{self, OwnErrors},
    chains,
    context::Context,
    split,
    upstreams::{BODY_IDLE, FIRST_BYTE, Upstreams, timeout},
};
use crate::{
    action::{
        forward, mirror,
        proxy::{self, Proxy},
        redirect, respond,
    },
    config::{document, host},
    diagnostic::{Code, Diagnostic},
    matcher::{Conditions, Source},
    routing::{Pattern, captures},
    snapshot::Action,
    upstream::Denied,
    value::{Entry, Name, Span, Spanned, TextOr},
};

/// A silence that outlives it is of two ends that have forgotten each other.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// What nobody can say where it is not known what a path captures.
pub(super) const OF_CAPTURES: &[Code] = &[Code::BadTemplate];

pub(super) struct Draft<'a> {
    pub name: &'a Spanned<Name>,
    pub config: &'a host::Route,
    pub patterns: Arc<[Pattern]>,
    /// Where each pattern is written.
    pub places: Vec<Span>,
    pub captures: Arc<[Box<str>]>,
    pub conditions: Arc<Conditions>,
    pub action: Action,
    pub errors: Option<OwnErrors>,
    pub access_log: OwnLog,
}

pub(super) fn draft<'a>(
    cx: &Context<'a>,
    upstreams: &Upstreams,
    denied: &Denied,
    (site, entry): (&str, &'a Entry<Name, host::Route>),
) -> Draft<'a> {
    let (name, config) = (&entry.name, &entry.value);
    let (patterns, places) = patterns(cx, name, config);
    let captured = captures(&patterns);
    chains::check_kinds(cx, &config.without);
    let action = || action(cx, upstreams, denied, (site, name, config), &patterns);
    let action = match patterns.len() == config.path.0.len() {
        true => action(),
        false => cx.report.muted(OF_CAPTURES, action),
    };
    Draft {
        name,
        config,
        captures: cx.alike.captures.share(captured.into_iter().map(Box::from).collect(), <[_]>::eq),
        patterns: patterns.into(),
        places,
        conditions: cx.alike.conditions.share(Arc::new(conditions(cx, config)), Conditions::eq),
        // Where there is none an error was reported: then this is never served.
        action: action.unwrap_or(Action::Unmatched),
        errors: answers::errors(cx, config.errors.as_ref()),
        access_log: access_log::access_log(cx, config.access_log.as_deref()),
    }
}

fn patterns(cx: &Context<'_>, name: &Spanned<Name>, config: &host::Route) -> (Vec<Pattern>, Vec<Span>) {
    if config.path.0.is_empty() {
        let message = format!("route {name} has no path");
        cx.report.push(Diagnostic::error(Code::MissingKey, name.span, message).help("\"/**\" is every path"));
    }
    let count = config.path.0.len();
    let (mut patterns, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for path in config.path.iter() {
        if let Some(pattern) = pattern(cx, path) {
            patterns.push(pattern);
            places.push(path.span);
        }
    }
    (patterns, places)
}

fn pattern(cx: &Context<'_>, written: &Spanned<host::RoutePath>) -> Option<Pattern> {
    match &written.value {
        TextOr::Text(text) => Pattern::path(text)
            .inspect_err(|reason| {
                let message = format!("{text:?} is no path pattern");
                cx.report.error(Code::BadPattern, written.span, message, reason);
            })
            .ok(),
        TextOr::Map(map) => {
            Pattern::regex(&map.regex).inspect_err(|reason| cx.bad_regex(map.regex.span, reason)).ok()
        }
    }
}

fn conditions(cx: &Context<'_>, config: &host::Route) -> Conditions {
    let source = Source {
        methods: &config.methods,
        headers: &config.headers,
        query: &config.query,
        cookies: &config.cookies,
        client_ip: &config.client_ip.0,
        to_proxy: config.forward.is_some(),
    };
    Conditions::compile(source).unwrap_or_else(|problems| {
        for problem in problems {
            cx.bad_regex(problem.span, &problem.value);
        }
        Conditions::default()
    })
}

fn action(
    cx: &Context<'_>,
    upstreams: &Upstreams,
    denied: &Denied,
    (site, name, config): (&str, &Spanned<Name>, &host::Route),
    patterns: &[Pattern],
) -> Option<Action> {
    let captures = &captures(patterns);
    let is_one = exactly_one(cx, name, config);
    refuse_timeouts(cx, config);
    let site = || format!("{site}.{name}");
    let proxy = config.proxy.as_ref().map(|written| proxy(cx, upstreams, (written, config), &site, captures));
    let redirect = config.redirect.as_deref().map(|written| {
        let made = cx.report.collect(|diagnostics| redirect::compile(written, captures, diagnostics));
        made.map(|redirect| Action::Redirect(Arc::new(redirect)))
    });
    let forward = config.forward.as_deref().map(|written| forward(cx, denied, written, config, patterns));
    let respond = config.respond.as_deref().map(|written| {
        let read = |file: &_| cx.read(file);
        let made = cx.report.collect(|diagnostics| respond::compile(written, read, diagnostics));
        made.map(|respond| Action::Respond(Arc::new(respond)))
    });
    is_one.then(|| proxy.or(redirect).or(forward).or(respond)).flatten().flatten()
}

fn exactly_one(cx: &Context<'_>, name: &Spanned<Name>, config: &host::Route) -> bool {
    let places: Vec<(&str, Span)> = [
        config.proxy.as_ref().map(|action| ("proxy", action.span)),
        config.redirect.as_ref().map(|action| ("redirect", action.span)),
        config.forward.as_ref().map(|action| ("forward", action.span)),
        config.respond.as_ref().map(|action| ("respond", action.span)),
    ]
    .into_iter()
    .flatten()
    .collect();
    match &*places {
        [_] => true,
        [] => {
            let message = format!("route {name} does nothing");
            let help = "one of proxy, redirect, forward and respond says what it does";
            cx.report.push(Diagnostic::error(Code::NoAction, name.span, message).help(help));
            false
        }
        [(first, first_span), others @ ..] => {
            let message = format!("route {name} does several things");
            let mut problem = Diagnostic::error(Code::SeveralActions, *first_span, message).reason(*first);
            for (action, span) in others {
                problem = problem.label(*span, format!("and {action}"));
            }
            cx.report
                .push(problem.help("a route has one action: two routes with conditions tell them apart"));
            false
        }
    }
}

fn proxy(
    cx: &Context<'_>,
    upstreams: &Upstreams,
    (written, config): (&Spanned<proxy::Config>, &host::Route),
    site: &dyn Fn() -> String,
    captures: &[&str],
) -> Option<Action> {
    if let (Some(by), None) = (&written.split_by, &written.split) {
        let problem = Diagnostic::error(Code::NoEffect, by.span, "split_by has no effect without split");
        cx.report
            .push(problem.help("add split: [{ upstream: app, weight: 95 }, { upstream: next, weight: 5 }]"));
    }
    let to = |upstream: &Spanned<Name>| proxy_to(cx, upstreams, (written, config), upstream, captures);
    match (&written.upstream, &written.split) {
        (Some(upstream), None) => {
            let proxy = to(upstream)?;
            Some(Action::Proxy(cx.alike.proxies.share(proxy, Proxy::does_the_same)))
        }
        (None, Some(entries)) => split::split(cx, (written, entries), &site(), to),
        (Some(upstream), Some(entries)) => {
            let message = "proxy has upstream and split: it must have one of them";
            let problem = Diagnostic::error(Code::BadValue, entries.span, message);
            let problem = problem.label(upstream.span, "upstream is written here");
            cx.report.push(problem.help("make the upstream an entry of split"));
            None
        }
        (None, None) => {
            let problem = Diagnostic::error(Code::MissingKey, written.span, "proxy has no upstream");
            cx.report.push(problem.help("add upstream: NAME, or split with several"));
            None
        }
    }
}

/// What is done with requests that go to one upstream.
fn proxy_to(
    cx: &Context<'_>,
    upstreams: &Upstreams,
    (written, config): (&proxy::Config, &host::Route),
    upstream: &Spanned<Name>,
    captures: &[&str],
) -> Option<Arc<Proxy>> {
    let upstream = upstreams.find(cx, upstream)?;
    // The other defaults are the upstream's where it says nothing else.
    let defaults = &cx.document.defaults.timeouts;
    let own = config.timeouts();
    let total = own.total.or(defaults.total);
    let tunnel_idle = own.tunnel_idle.or(defaults.tunnel_idle);
    let timeouts = proxy::Timeouts {
        total: timeout(cx, total),
        first_byte: timeout(cx, own.first_byte).unwrap_or(upstream.timeouts.first_byte),
        body_idle: timeout(cx, own.body_idle).unwrap_or(upstream.timeouts.body_idle),
        tunnel_idle: timeout(cx, tunnel_idle).unwrap_or(TUNNEL_IDLE),
    };
    let mirrors = match written.mirror.as_deref() {
        None => Box::default(),
        Some(written) => {
            let (find, registry) = (|name: &_| upstreams.find(cx, name), &cx.registries.upstreams);
            cx.report.collect(|diagnostics| mirror::compile(written, find, registry, diagnostics))?
        }
    };
    let to = (upstream, mirrors);
    let made = cx.report.collect(|diagnostics| proxy::compile(written, captures, to, timeouts, diagnostics));
    made.map(Arc::new)
}

fn forward(
    cx: &Context<'_>,
    denied: &Denied,
    written: &forward::Config,
    config: &host::Route,
    patterns: &[Pattern],
) -> Option<Action> {
    let (own, defaults) = (config.timeouts(), &cx.document.defaults.timeouts);
    cx.asks_resolvers();
    let resolver = cx.registries.upstreams.resolver(&cx.resolvers());
    let timeouts = forward::Timeouts {
        total: timeout(cx, own.total.or(defaults.total)),
        first_byte: timeout(cx, own.first_byte.or(defaults.first_byte)).unwrap_or(FIRST_BYTE),
        body_idle: timeout(cx, own.body_idle.or(defaults.body_idle)).unwrap_or(BODY_IDLE),
    };
    let takes_all_paths = patterns.iter().any(Pattern::takes_all);
    let compile = |diagnostics: &mut _| {
        forward::compile(written, denied, resolver, timeouts, takes_all_paths, diagnostics)
    };
    cx.report.collect(compile).map(|forward| Action::Forward(Arc::new(forward)))
}

fn refuse_timeouts(cx: &Context<'_>, config: &host::Route) {
    let document::Timeouts { total, first_byte, body_idle, tunnel_idle } = &config.timeouts();
    let (refused, message) = match (&config.proxy, &config.forward) {
        (Some(_), _) => return,
        (None, Some(_)) => (&[tunnel_idle][..], "how long a tunnel may be silent is said by idle of forward"),
        (None, None) => (
            &[total, first_byte, body_idle, tunnel_idle][..],
            "there is no upstream to wait for: only requests that are sent on have timeouts",
        ),
    };
    for timeout in refused.iter().copied().flatten() {
        cx.report.push(Diagnostic::error(Code::NoEffect, timeout.span, message));
    }
}

//! Listeners: addresses, protocols, TLS, and the tables of their hosts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::StatusCode;

use super::{
    access_log,
    certificates::Certificates,
    chains::Scope,
    context::Context,
    handshake, hosts, spans,
    tables::{Outer, Tables},
    upstreams::Upstreams,
};
use crate::{
    action::redirect,
    config::{
        self,
        listener::{ForwardedHeader, Protocol, Scheme},
    },
    diagnostic::{Code, Diagnostic},
    http::{
        errors::Errors,
        external::Expose,
        forwarded::{Field, Trust},
    },
    snapshot::{Action, Exposed, Listener, Redirecting, settings},
    value::{Bind, Entry, Name, Span, Spanned, Template},
};

pub(super) struct Draft<'a> {
    entry: &'a Entry<Name, config::listener::Listener>,
    exposed: Exposed,
}

/// Looks at the listeners by themselves and beside each other.
pub(super) fn draft<'a>(cx: &Context<'a>) -> Vec<Draft<'a>> {
    let drafts: Vec<Draft<'a>> =
        cx.document.listeners.iter().map(|entry| Draft { entry, exposed: exposed(&entry.value) }).collect();
    for draft in &drafts {
        check_bind(cx, draft);
        check_protocols(cx, draft);
        check_timeouts(cx, draft);
        check_proxy_protocol(cx, draft);
    }
    report_conflicts(cx, &drafts);
    if drafts.is_empty() && cx.document.hosts.is_empty() {
        let help = "listeners: { web: { bind: \":80\" } }";
        cx.idle(Diagnostic::nowhere(Code::ListenerUnreachable, "there is no listener").help(help));
    }
    drafts
}

/// Puts the listeners together with their hosts.
pub(super) fn finish<'a>(
    cx: &'a Context<'a>,
    drafts: Vec<Draft<'a>>,
    hosts: &'a [hosts::Draft<'a>],
    certificates: &Certificates,
    upstreams: &'a Upstreams,
    errors: &Arc<Errors>,
) -> BTreeMap<Name, Arc<Listener>> {
    let tables = Tables::new(cx, hosts, upstreams);
    let default_log = access_log::access_log(cx, cx.document.access_log.as_ref())
        .unwrap_or_else(|| Some(access_log::default(cx)));
    let tracer = spans::compile(cx);
    let finish = |(place, draft): (usize, &Draft<'a>)| {
        let (name, config) = (&draft.entry.name.value, &draft.entry.value);
        let outer = Outer {
            name,
            place,
            scope: Scope::new("listener", Some(name), None, &config.middleware, &[]),
            access_log: access_log::access_log(cx, config.access_log.as_ref()),
            default_log: default_log.clone(),
        };
        let own: Vec<usize> =
            (0..hosts.len()).filter(|host| hosts[*host].listeners.contains(&place)).collect();
        warn_of_emptiness(cx, draft, &own);
        let tls = config.tls.as_ref().and_then(|tls| {
            let hosts = own.iter().map(|host| &hosts[*host]);
            handshake::compile(cx, certificates, tls, config, hosts)
        });
        let redirect = config.redirect.as_ref().and_then(|written| redirect(cx, written, draft, &drafts));
        let redirect = redirect.map(|(scheme, redirect)| (scheme, Action::Redirect(Arc::new(redirect))));
        let built = tables.table(own, &outer);
        let listener = Listener {
            name: name.clone(),
            place,
            binds: config.bind.iter().map(|bind| bind.value.clone()).collect(),
            settings: settings::settings(name, config, tls, cx.registries.metrics.listener(name)),
            exposed: draft.exposed,
            expose: config.expose.as_ref().map_or(Expose::default(), told),
            encoded_slash: cx.document.defaults.paths.encoded_slash.unwrap_or_default(),
            unusual_names: config.unusual_header_names,
            trusted_proxies: config.trusted_proxies.as_ref().and_then(|proxies| trusted(cx, draft, proxies)),
            tracer: tracer.clone(),
            redirect: redirect.map(|(scheme, action)| Redirecting {
                scheme,
                route: tables.of_listener(&outer, action, errors.clone()),
            }),
            table: built.table,
            hosts: built.hosts,
            unmatched: tables.of_listener(&outer, Action::Unmatched, errors.clone()),
        };
        (name.clone(), Arc::new(listener))
    };
    let finished = drafts.iter().enumerate().map(finish).collect();
    tables.finish();
    finished
}

impl Draft<'_> {
    /// Whether all that comes in is redirected, so that no host is reached. Where a trusted proxy may say that a request has
    /// come by the right scheme already, hosts are reached by those.
    pub fn redirects_all(&self) -> bool {
        self.redirects() && self.entry.value.trusted_proxies.is_none()
    }

    fn redirects(&self) -> bool {
        self.entry.value.redirect.is_some()
    }
}

fn exposed(config: &config::listener::Listener) -> Exposed {
    let written = config.expose.as_ref();
    let scheme = if config.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let bound = config.bind.iter().find_map(|bind| port(&bind.value)).filter(|port| *port != 0);
    Exposed {
        scheme: written.and_then(|expose| expose.scheme).unwrap_or(scheme),
        port: written.and_then(|expose| expose.port).or(bound),
    }
}

fn told(expose: &config::listener::Expose) -> Expose {
    Expose { is_https: expose.scheme.map(|scheme| scheme == Scheme::Https), port: expose.port }
}

/// The port of an address; a unix socket has none.
pub(super) fn port(bind: &Bind) -> Option<u16> {
    bind.socket_addr().map(|addr| addr.port())
}

fn check_bind(cx: &Context<'_>, draft: &Draft<'_>) {
    let Entry { name, value } = draft.entry;
    if value.bind.0.is_empty() {
        let message = format!("listener {name} listens nowhere");
        let help = "bind: \":80\" is port 80 of every address";
        cx.report.push(Diagnostic::error(Code::MissingKey, name.span, message).help(help));
    }
}

/// What is spoken must be what the transport carries.
fn check_protocols(cx: &Context<'_>, draft: &Draft<'_>) {
    let config = &draft.entry.value;
    let spoken = settings::protocols(config);
    if let Some(http2) = config.http2.as_ref().filter(|_| !spoken.h2) {
        let message = "HTTP/2 is not among this listener's protocols";
        cx.report.push(Diagnostic::error(Code::NoEffect, http2.span, message));
    }
    if let Some(quic) = &config.quic {
        check_quic(cx, quic, spoken);
    }
    let Some(listed) = &config.protocols else { return };
    if listed.is_empty() {
        cx.report.push(Diagnostic::error(
            Code::BadValue,
            listed.span,
            "a listener speaks at least one protocol",
        ));
    }
    for (place, protocol) in listed.iter().enumerate() {
        if listed[..place].contains(protocol) {
            cx.report.push(Diagnostic::error(
                Code::DuplicateName,
                protocol.span,
                "this protocol stands twice",
            ));
        }
        let problem = match (protocol.value, &config.tls) {
            (Protocol::H2, None) => {
                let message = "HTTP/2 is agreed upon in the TLS handshake, but there is no tls";
                Diagnostic::error(Code::NoEffect, protocol.span, message)
                    .label(draft.entry.name.span, "in this listener")
                    .help("h2c is HTTP/2 in cleartext")
            }
            (Protocol::H2c, Some(tls)) => {
                let message = "h2c is HTTP/2 in cleartext, and tls encrypts";
                Diagnostic::error(Code::NoEffect, protocol.span, message)
                    .label(tls.span, "encryption is asked for here")
                    .help("h2 is HTTP/2 over TLS")
            }
            (Protocol::H3, None) => {
                let message = "HTTP/3 is always encrypted, but there is no tls";
                Diagnostic::error(Code::NoEffect, protocol.span, message)
                    .label(draft.entry.name.span, "in this listener")
                    .help("tls: { certificates: [NAME] } names what it is encrypted with")
            }
            (Protocol::H3, Some(_)) => match config.bind.iter().find(|bind| port(bind).is_none()) {
                None => continue,
                Some(bind) => {
                    let message = "HTTP/3 is spoken over UDP, which a unix socket does not carry";
                    Diagnostic::error(Code::NoEffect, bind.span, message)
                        .label(protocol.span, "asked for here")
                        .help("a listener of its own for the unix socket")
                }
            },
            _ => continue,
        };
        cx.report.push(problem);
    }
}

fn check_proxy_protocol(cx: &Context<'_>, draft: &Draft<'_>) {
    let Some(written) = draft.entry.value.proxy_protocol.as_ref() else { return };
    if written.from.is_empty() {
        let message = "nobody's PROXY header is read: the list is empty";
        cx.report.push(Diagnostic::error(Code::NoEffect, written.from.span, message));
    }
    let spoken = draft.entry.value.protocols.iter().flat_map(|protocols| protocols.value.iter());
    if let Some(h3) = spoken.into_iter().find(|protocol| protocol.value == Protocol::H3) {
        let message = "HTTP/3 has no PROXY protocol: its clients would pass by it";
        let problem = Diagnostic::error(Code::NoEffect, h3.span, message);
        cx.report.push(problem.help("a listener of its own for HTTP/3"));
    }
}

/// What of QUIC's settings could not take effect.
fn check_quic(cx: &Context<'_>, quic: &Spanned<config::listener::Quic>, spoken: settings::Protocols) {
    if !spoken.h3 {
        let message = "HTTP/3 is not among this listener's protocols";
        let help = "protocols: [h1, h2, h3]";
        cx.report.push(Diagnostic::error(Code::NoEffect, quic.span, message).help(help));
    }
    let config::listener::Quic { stream_window, connection_window, idle_timeout, keep_alive, .. } =
        &quic.value;
    for window in
        [stream_window, connection_window].into_iter().flatten().filter(|window| window.value.0 == 0)
    {
        let message = "nothing could be sent with a window of 0";
        cx.report.push(Diagnostic::error(Code::BadValue, window.span, message));
    }
    if let (Some(stream), Some(connection)) = (stream_window, connection_window)
        && stream.value.0 > connection.value.0
    {
        let message =
            "one request's window is larger than that of the connection, which holds for it as well";
        let problem = Diagnostic::error(Code::BadValue, stream.span, message);
        cx.report.push(problem.label(connection.span, "the connection's"));
    }
    for time in [idle_timeout, keep_alive].into_iter().flatten().filter(|time| time.value.get().is_zero()) {
        let message = "a time of zero would end everything before it begins";
        cx.report.push(Diagnostic::error(Code::BadValue, time.span, message));
    }
    if let Some(keep_alive) = keep_alive.as_ref().filter(|time| time.value.get() >= quic.idle_timeout()) {
        let message = "the client counts as gone before it is asked whether it is there";
        let help =
            format!("keep_alive is shorter than idle_timeout, which is {}s", quic.idle_timeout().as_secs());
        cx.report.push(Diagnostic::error(Code::BadValue, keep_alive.span, message).help(help).compared());
    }
}

fn check_timeouts(cx: &Context<'_>, draft: &Draft<'_>) {
    let config::listener::Timeouts { handshake, header, body_idle, idle, write_idle } =
        &draft.entry.value.timeouts;
    let all = [
        ("handshake", handshake),
        ("header", header),
        ("body_idle", body_idle),
        ("idle", idle),
        ("write_idle", write_idle),
    ];
    for (key, _) in
        all.into_iter().filter(|(_, timeout)| timeout.is_some_and(|timeout| timeout.get().is_zero()))
    {
        let name = &draft.entry.name;
        let message =
            format!("timeouts.{key} of listener {name} is zero: everything would end before it begins");
        cx.report.push(Diagnostic::error(Code::BadValue, name.span, message));
    }
}

fn report_conflicts(cx: &Context<'_>, drafts: &[Draft<'_>]) {
    let binds: Vec<(&Spanned<Bind>, &Spanned<Name>, settings::Protocols)> = drafts
        .iter()
        .flat_map(|Draft { entry, .. }| {
            let spoken = settings::protocols(&entry.value);
            entry.value.bind.iter().map(move |bind| (bind, &entry.name, spoken))
        })
        .collect();
    for (place, (bind, name, spoken)) in binds.iter().enumerate() {
        let admin = cx.document.admin.as_ref().filter(|_| spoken.over_streams());
        if let Some(admin) = admin.filter(|admin| overlap(&admin.bind, bind)) {
            let message = format!("listener {name} and the administration listen on one address");
            let problem = Diagnostic::error(Code::ListenerConflict, bind.span, message);
            cx.report.push(problem.label(admin.bind.span, "the administration"));
        }
        // TCP and UDP have ports of their own.
        let meets = |other: &settings::Protocols| {
            spoken.over_streams() && other.over_streams() || spoken.h3 && other.h3
        };
        let first = binds[..place].iter().find(|(first, _, other)| overlap(first, bind) && meets(other));
        let Some((first, other, _)) = first else { continue };
        let message = match name.value == other.value {
            true => format!("listener {name} listens on {bind} twice"),
            false => format!("listeners {other} and {name} listen on one address"),
        };
        let problem = Diagnostic::error(Code::ListenerConflict, bind.span, message);
        cx.report.push(problem.reason("the second").label(first.span, "the first"));
    }
}

/// Whether a client could mean either. An address of a machine's own goes before every address, as the
/// system has it, so these do not overlap.
fn overlap(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Unix(a), Bind::Unix(b)) => a == b,
        (Bind::Any(a), Bind::Any(b)) => a == b && *a != 0,
        (Bind::Any(port), Bind::Tcp(addr)) | (Bind::Tcp(addr), Bind::Any(port)) => {
            addr.port() == *port && *port != 0 && addr.ip().is_unspecified()
        }
        (Bind::Tcp(a), Bind::Tcp(b)) => canonical(a) == canonical(b) && a.port() != 0,
        _ => false,
    }
}

fn canonical(addr: &SocketAddr) -> (IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

fn warn_of_emptiness(cx: &Context<'_>, draft: &Draft<'_>, hosts: &[usize]) {
    if hosts.is_empty() && !draft.redirects() && !cx.report.has(Code::UnknownName) {
        let name = &draft.entry.name;
        let message = format!("no host is on listener {name}: everything is answered with 404");
        cx.idle(Diagnostic::warning(Code::Unused, name.span, message));
    }
}

fn trusted(cx: &Context<'_>, draft: &Draft<'_>, written: &config::listener::TrustedProxies) -> Option<Trust> {
    if written.from.is_empty() {
        let message = format!("listener {} trusts no proxy: the list is empty", draft.entry.name);
        cx.report.push(Diagnostic::error(Code::NoEffect, draft.entry.name.span, message));
        return None;
    }
    let from = written.from.iter().map(|network| network.value).collect();
    let field = match written.header {
        ForwardedHeader::XForwardedFor => Field::XForwardedFor,
        ForwardedHeader::Forwarded => Field::Forwarded,
    };
    Some(Trust { from, field })
}

/// The redirect of all that comes in: to the same host and path under another scheme.
fn redirect(
    cx: &Context<'_>,
    written: &Spanned<config::listener::Redirect>,
    draft: &Draft<'_>,
    all: &[Draft<'_>],
) -> Option<(Scheme, redirect::Redirect)> {
    let status: Option<StatusCode> =
        cx.report.collect(|diagnostics| redirect::status(written.status.as_ref(), diagnostics));
    if written.scheme == draft.exposed.scheme
        && written.port.is_none_or(|port| draft.exposed.port == Some(port))
    {
        let message = "this listener would redirect to itself";
        cx.report.push(Diagnostic::error(Code::BadValue, written.span, message).compared());
        return None;
    }
    let port = match written.port {
        Some(port) => port,
        None => port_of(cx, written.scheme, written.span, all)?,
    };
    let port = if port == written.scheme.default_port() { String::new() } else { format!(":{port}") };
    let to = format!("{}://{{request.host}}{port}{{request.path}}", written.scheme.as_str());
    let to = Template::parse(&to, &[]).expect("the template names request.host and request.path only");
    Some((written.scheme, redirect::Redirect { status: status?, to }))
}

/// The port that the first listener of a scheme exposes.
fn port_of(cx: &Context<'_>, scheme: Scheme, span: Span, all: &[Draft<'_>]) -> Option<u16> {
    let mut listeners =
        all.iter().filter(|draft| draft.exposed.scheme == scheme && !draft.redirects()).peekable();
    let message = match listeners.peek() {
        None => format!("no listener exposes {}", scheme.as_str()),
        Some(draft) => format!("the port of listener {} is not known before it is bound", draft.entry.name),
    };
    let port = listeners.find_map(|draft| draft.exposed.port);
    if port.is_none() {
        let help = "port: 443 says where to, or expose: { port: 443 } what users see of a listener";
        cx.lacks("listeners", Diagnostic::error(Code::ListenerUnreachable, span, message).help(help));
    }
    port
}

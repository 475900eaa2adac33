//! Hosts: their names, their listeners and their routes, those of shared sets included.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{
    access_log::{self, OwnLog},
    answers::{self, OwnErrors},
    certificates::Certificates,
    chains::{self, Scope},
    context::Context,
    delegated::{self, Allowed},
    handshake, listeners,
    route::{self, Draft as Route},
    sticky,
    upstreams::Upstreams,
};
use crate::{
    config::{document::Tenant, host},
    diagnostic::{Code, Diagnostic},
    http::errors::Errors,
    middleware::Routed,
    routing::HostPattern,
    tls::{Certificate, ClientAuth},
    upstream::Denied,
    value::{Entry, Name, Span, Spanned},
};

pub(super) struct Draft<'a> {
    pub name: &'a Spanned<Name>,
    pub patterns: Vec<HostPattern>,
    /// Where each pattern is written.
    pub places: Vec<Span>,
    /// The listeners that it is reached by, by their places in the document.
    pub listeners: Vec<usize>,
    pub tenant: Option<&'a Spanned<Name>>,
    /// What the tenant and the host say about the chain.
    pub scopes: [Option<Scope<'a>>; 2],
    pub certificate: Option<Arc<Certificate>>,
    /// What it asks of clients in its own way.
    pub client_auth: Option<Arc<ClientAuth>>,
    pub errors: Arc<Errors>,
    pub access_log: OwnLog,
    pub routes: Vec<Rc<Route<'a>>>,
}

/// The routes of each set, compiled once for all hosts that use it.
struct RouteSets<'a>(Vec<Vec<Rc<Route<'a>>>>);

impl Draft<'_> {
    /// The names of one of its routes.
    pub fn names(&self, route: Name) -> Arc<Routed> {
        let tenant = self.tenant.map(|tenant| tenant.value.clone());
        Arc::new(Routed { host: Some(self.name.value.clone()), tenant, route })
    }
}

pub(super) fn draft<'a>(
    cx: &Context<'a>,
    upstreams: &Upstreams,
    certificates: &Certificates,
    listeners: &[listeners::Draft<'a>],
    errors: &Arc<Errors>,
) -> Vec<Draft<'a>> {
    let own_routes = |section: &str, owner: &Name, written| {
        let site = format!("{section}.{owner}");
        routes(cx, upstreams, &cx.denied_to_clients_of(owner), (&site, written))
    };
    let sets = cx.document.route_sets.iter().map(|set| own_routes("route_sets", &set.name, &set.value));
    let sets = RouteSets(sets.collect());
    let allowed = delegated::allowed(cx);
    let draft = |entry: &'a Entry<Name, host::Host>| {
        let (name, config) = (&entry.name, &entry.value);
        let (patterns, places) = patterns(cx, name, config, &allowed);
        let listeners = own_listeners(cx, name, config, listeners);
        chains::check_kinds(cx, &config.without);
        let own = answers::errors(cx, config.errors.as_ref());
        let tls = config.tls.as_deref().inspect(|tls| check_tls(cx, tls, &listeners));
        let routes = all_routes(cx, config, own_routes("hosts", name, &config.routes), &sets, name);
        sticky::warn_of_one_cookie(cx, name, &routes);
        Draft {
            name,
            patterns,
            places,
            tenant: config
                .tenant
                .as_ref()
                .filter(|tenant| cx.names.tenants.find(tenant, &cx.report).is_some()),
            scopes: scopes(cx, name, config),
            certificate: tls
                .and_then(|tls| tls.certificate.as_ref())
                .and_then(|name| certificates.find(cx, name)),
            client_auth: tls
                .and_then(|tls| tls.client_auth.as_ref())
                .and_then(|written| handshake::client_auth(cx, written)),
            errors: OwnErrors::within(own.as_ref(), errors),
            access_log: access_log::access_log(cx, config.access_log.as_deref()),
            routes,
            listeners,
        }
    };
    cx.document.hosts.iter().map(draft).collect()
}

fn routes<'a>(
    cx: &Context<'a>,
    upstreams: &Upstreams,
    denied: &Denied,
    (site, written): (&str, &'a crate::value::Named<host::Route>),
) -> Vec<Rc<Route<'a>>> {
    written.iter().map(|entry| Rc::new(route::draft(cx, upstreams, denied, (site, entry)))).collect()
}

fn patterns(
    cx: &Context<'_>,
    name: &Spanned<Name>,
    config: &host::Host,
    allowed: &Allowed<'_>,
) -> (Vec<HostPattern>, Vec<Span>) {
    if config.names.is_empty() {
        let message = format!("host {name} has no names");
        cx.report.push(Diagnostic::error(Code::MissingKey, name.span, message).help("\"*\" is every name"));
    }
    let (mut patterns, mut places) = (Vec::new(), Vec::new());
    for written in &config.names {
        if let Some(pattern) = pattern(cx, written) {
            allowed.check(cx, name, &pattern, written.span);
            patterns.push(pattern);
            places.push(written.span);
        }
    }
    (patterns, places)
}

/// A name as a host may have it; what is none is reported.
pub(super) fn pattern(cx: &Context<'_>, written: &Spanned<String>) -> Option<HostPattern> {
    let report = |reason: &String| {
        let message = format!("{:?} is no name of a host", written.value);
        cx.report.error(Code::BadPattern, written.span, message, reason);
    };
    written.parse().inspect_err(report).ok()
}

fn own_listeners(
    cx: &Context<'_>,
    name: &Spanned<Name>,
    config: &host::Host,
    listeners: &[listeners::Draft<'_>],
) -> Vec<usize> {
    let Some(written) = &config.listeners else {
        let all: Vec<usize> =
            (0..listeners.len()).filter(|place| !listeners[*place].redirects_all()).collect();
        if all.is_empty() {
            let message = format!("host {name} is on no listener");
            let help = "define one: listeners: { web: { bind: \":80\" } }";
            cx.lacks("listeners", Diagnostic::error(Code::HostNowhere, name.span, message).help(help));
        }
        return all;
    };
    if written.is_empty() {
        let message = format!("host {name} is on no listener");
        let help = "without the key it is on all of them";
        cx.report.push(Diagnostic::error(Code::HostNowhere, written.span, message).help(help));
    }
    let mut own: Vec<usize> = Vec::new();
    for listener in &written.value {
        let Some((place, _)) = cx.names.listeners.find(listener, &cx.report) else { continue };
        if listeners[place].redirects_all() {
            let message = format!("listener {listener} answers everything with a redirect");
            let problem = Diagnostic::error(Code::NoEffect, listener.span, message);
            cx.report.push(problem.reason("no request comes from there to this host"));
        } else if own.contains(&place) {
            let message = format!("listener {listener} stands twice");
            cx.report.push(Diagnostic::error(Code::DuplicateName, listener.span, message));
        } else {
            own.push(place);
        }
    }
    own.sort_unstable();
    own
}

fn scopes<'a>(cx: &Context<'a>, name: &'a Spanned<Name>, config: &'a host::Host) -> [Option<Scope<'a>>; 2] {
    let tenant = config.tenant.as_ref().and_then(|tenant| cx.names.tenants.find(tenant, &cx.report));
    let tenant = tenant.and_then(|(_, tenant)| {
        refuse_idle_burst(cx, &tenant.value);
        Scope::tenant(&tenant.name, &tenant.value)
    });
    let (maintenance, without) = (config.maintenance.as_deref(), &config.without);
    [tenant, Scope::new("host", Some(name), maintenance, &config.middleware, without)]
}

fn refuse_idle_burst(cx: &Context<'_>, tenant: &Tenant) {
    let limits = tenant.limits.as_ref();
    if let Some(burst) = limits.filter(|limits| limits.rate.is_none()).and_then(|limits| limits.burst) {
        let problem =
            Diagnostic::error(Code::NoEffect, burst.span, "there is no rate that this is a burst of");
        cx.report.push(problem.help("rate: 1000/s says how often requests may come"));
    }
}

fn check_tls(cx: &Context<'_>, tls: &Spanned<host::HostTls>, listeners: &[usize]) {
    let encrypted = |place: &usize| cx.document.listeners.0[*place].value.tls.is_some();
    let certificate = tls.certificate.as_ref().map(|name| name.span);
    let Some(span) = certificate.or(tls.client_auth.as_ref().map(|client_auth| client_auth.ca.span)) else {
        let help = "certificate: NAME, client_auth: { ca: ca.pem }, or both";
        cx.report.push(Diagnostic::error(Code::MissingKey, tls.span, "this says nothing of TLS").help(help));
        return;
    };
    if !listeners.is_empty() && !listeners.iter().any(encrypted) {
        let message = "none of this host's listeners speaks TLS";
        cx.lacks("listeners", Diagnostic::error(Code::NoEffect, span, message));
    }
}

/// The host's own routes, then those of its sets.
fn all_routes<'a>(
    cx: &Context<'a>,
    config: &'a host::Host,
    own: Vec<Rc<Route<'a>>>,
    sets: &RouteSets<'a>,
    name: &Spanned<Name>,
) -> Vec<Rc<Route<'a>>> {
    let mut all = own;
    let mut used: HashMap<&str, Span> = HashMap::new();
    for set in &config.route_sets {
        if let Some(first) = used.insert(set.as_str(), set.span) {
            let message = format!("route set {set} is used twice");
            cx.report
                .push(Diagnostic::error(Code::DuplicateName, set.span, message).label(first, "first here"));
            continue;
        }
        let Some((place, _)) = cx.names.route_sets.find(set, &cx.report) else { continue };
        let names: HashMap<&str, Span> =
            all.iter().map(|route| (route.name.as_str(), route.name.span)).collect();
        for route in &sets.0[place] {
            if let Some(other) = names.get(route.name.as_str()) {
                let message =
                    format!("route {} of set {set} has the name of another of this host", route.name);
                let problem = Diagnostic::error(Code::DuplicateName, set.span, message);
                cx.report.push(problem.label(route.name.span, "in the set").label(*other, "the other"));
            }
        }
        all.extend(sets.0[place].iter().cloned());
    }
    if config.routes.is_empty() && config.route_sets.is_empty() {
        let message = format!("host {name} has no routes: everything is answered with 404");
        cx.idle(Diagnostic::warning(Code::Unused, name.span, message));
    }
    all
}

//! Tables: the hosts of a listener with their routes, each with all that applies to it. Listeners with the
//! same hosts share one, unless they have a say in the routes' chains or logs.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    access_log::OwnLog,
    chains::{Chains, Scope},
    context::Context,
    hosts, route,
    upstreams::Upstreams,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::errors::Errors,
    middleware::{Chain, Routed},
    routing::{self, At, Builder, Problem, Table},
    snapshot::{Action, Host, Route},
    telemetry::{access_log::AccessLog, metrics::ByListener},
    value::{Name, Span},
};

pub(super) struct Tables<'a> {
    cx: &'a Context<'a>,
    hosts: &'a [hosts::Draft<'a>],
    defaults: Option<Scope<'a>>,
    chains: Chains<'a>,
    built: RefCell<HashMap<Key<'a>, Built>>,
    unmatched: Name,
    /// Hosts to which nobody can show the certificate that is asked for there: each is told once.
    certificateless: RefCell<HashSet<(Span, Span)>>,
}

/// The hosts, by their places, and the listener where it has a say.
type Key<'a> = (Vec<usize>, Option<&'a Name>);

#[derive(Clone)]
pub(super) struct Built {
    pub table: Arc<Table<Route>>,
    pub hosts: Arc<[Host]>,
}

/// What a listener adds to its hosts' routes.
pub(super) struct Outer<'a> {
    pub name: &'a Name,
    /// Its place in the document.
    pub place: usize,
    pub scope: Option<Scope<'a>>,
    pub access_log: OwnLog,
    /// What holds where nobody says anything.
    pub default_log: Option<AccessLog>,
}

impl<'a> Tables<'a> {
    pub fn new(cx: &'a Context<'a>, hosts: &'a [hosts::Draft<'a>], upstreams: &'a Upstreams) -> Self {
        Self {
            cx,
            hosts,
            defaults: Scope::new("defaults", None, None, &cx.document.defaults.middleware, &[]),
            chains: Chains::new(cx, upstreams),
            built: RefCell::default(),
            unmatched: "unmatched".parse().expect("the constant is a valid name"),
            certificateless: RefCell::default(),
        }
    }

    /// The table of these hosts, as a listener reaches them.
    pub fn table(&self, hosts: Vec<usize>, outer: &Outer<'a>) -> Built {
        let has_a_say = outer.scope.is_some() || outer.access_log.is_some();
        let key = (hosts, has_a_say.then_some(outer.name));
        if let Some(built) = self.built.borrow().get(&key) {
            return built.clone();
        }
        let built = self.build(&key.0, outer);
        self.built.borrow_mut().insert(key, built.clone());
        built
    }

    /// A route of the listener's own, that no host has a part in.
    pub fn of_listener(&self, outer: &Outer<'a>, action: Action, errors: Arc<Errors>) -> Arc<Route> {
        let name = match &action {
            Action::Unmatched => self.unmatched.clone(),
            other => other.kind().parse().expect("the kind of an action is a valid name"),
        };
        let counts = self.cx.registries.metrics.route(outer.name, None, None, &name);
        Arc::new(Route {
            names: Arc::new(Routed { host: None, tenant: None, route: name }),
            captures: Arc::default(),
            chain: self.chains.chain([self.defaults.as_ref(), outer.scope.as_ref()]),
            action,
            errors,
            access_log: outer.log(&None, &None),
            metrics: ByListener::new([(outer.place, counts)]),
        })
    }

    /// What can only be said when all chains are there.
    pub fn finish(&self) {
        self.chains.report_idle_withouts();
        // What its listeners would put before the chain is not known.
        self.cx.report.muted(&[Code::NoEffect, Code::BadTemplate], || {
            self.hosts
                .iter()
                .filter(|host| host.listeners.is_empty())
                .for_each(|host| self.check_chains(host));
        });
    }

    /// Looks at the chains of a host that is on no listener.
    fn check_chains(&self, host: &hosts::Draft<'a>) {
        let [tenant, of_host] = &host.scopes;
        let inherited = [self.defaults.as_ref(), tenant.as_ref(), of_host.as_ref()];
        self.chains.chain(inherited);
        for route in &host.routes {
            let own = Scope::route(host.name, route.name, route.config, &[]);
            self.chains.chain(inherited.into_iter().chain([own.as_ref()]));
        }
    }

    fn build(&self, hosts: &[usize], outer: &Outer<'a>) -> Built {
        let mut builder = Builder::new();
        let mut listed = Vec::new();
        for host in hosts.iter().map(|place| &self.hosts[*place]) {
            let unmatched = self.unmatched(host, outer);
            let entry = |route: &Rc<route::Draft<'a>>| self.entry(host, route, outer, &unmatched.chain);
            let (routes, pathless): (Vec<_>, Vec<_>) =
                host.routes.iter().partition(|route| !route.patterns.is_empty());
            // They are in no table; what else is wrong with them is told all the same.
            self.cx
                .report
                .muted(route::OF_CAPTURES, || pathless.into_iter().for_each(|route| drop(entry(route))));
            let routes = routes.into_iter().map(entry).collect();
            builder.host(host.name.value.clone(), &host.patterns, routes);
            listed.push(Host {
                name: host.name.value.clone(),
                names: host.patterns.clone(),
                tenant: host.tenant.map(|tenant| tenant.value.clone()),
                unmatched: Arc::new(unmatched),
            });
        }
        let (table, problems) = builder.build();
        for problem in problems {
            self.report(hosts, &problem);
        }
        Built { table: Arc::new(table), hosts: listed.into() }
    }

    /// A route as it stands in a table. `inherited` is the chain without the route's own part.
    fn entry(
        &self,
        host: &hosts::Draft<'a>,
        draft: &Rc<route::Draft<'a>>,
        outer: &Outer<'a>,
        inherited: &Arc<Chain>,
    ) -> routing::Route<Route> {
        let captures: Vec<&str> = draft.captures.iter().map(|name| &**name).collect();
        let own = Scope::route(host.name, draft.name, draft.config, &captures);
        let [tenant, of_host] = &host.scopes;
        let chain = match &own {
            None => inherited.clone(),
            own => self.chains.chain([
                self.defaults.as_ref(),
                outer.scope.as_ref(),
                tenant.as_ref(),
                of_host.as_ref(),
                own.as_ref(),
            ]),
        };
        self.check_certificates(host, &chain);
        let route = Route {
            names: host.names(draft.name.value.clone()),
            captures: draft.captures.clone(),
            chain,
            action: draft.action.clone(),
            errors: super::answers::OwnErrors::within(draft.errors.as_ref(), &host.errors),
            access_log: outer.log(&host.access_log, &draft.access_log),
            metrics: self.counts(host, draft.name),
        };
        routing::Route {
            name: draft.name.value.clone(),
            patterns: draft.patterns.clone(),
            conditions: draft.conditions.clone(),
            priority: draft.config.priority.map_or(0, |priority| priority.value),
            payload: Arc::new(route),
        }
    }

    /// Who lets in by certificates lets in nobody where none can be shown.
    fn check_certificates(&self, host: &hosts::Draft<'a>, chain: &Chain) {
        let Some(written) = chain.certificates_asked() else { return };
        let asks = |place: &usize| {
            let tls = self.cx.document.listeners.0[*place].value.tls.as_ref();
            tls.is_some_and(|tls| tls.client_auth.is_some() || host.client_auth.is_some())
        };
        if host.listeners.is_empty() || host.listeners.iter().any(asks) {
            return;
        }
        if self.certificateless.borrow_mut().insert((written, host.name.span)) {
            let message = format!("nobody can show a certificate to host {}", host.name);
            let problem = Diagnostic::error(Code::NoEffect, written, message);
            let problem = problem.label(host.name.span, "none of its listeners asks for one");
            let help =
                "client_auth: { ca: clients-ca.pem, mode: optional } in a listener's or the host's tls does";
            self.cx.lacks("listeners", problem.help(help));
        }
    }

    fn unmatched(&self, host: &hosts::Draft<'a>, outer: &Outer<'a>) -> Route {
        let [tenant, of_host] = &host.scopes;
        let scopes = [self.defaults.as_ref(), outer.scope.as_ref(), tenant.as_ref(), of_host.as_ref()];
        Route {
            names: host.names(self.unmatched.clone()),
            captures: Arc::default(),
            chain: self.chains.chain(scopes),
            action: Action::Unmatched,
            errors: host.errors.clone(),
            access_log: outer.log(&host.access_log, &None),
            metrics: self.counts(host, &self.unmatched),
        }
    }

    /// What requests to a route are counted by, for each listener that the host is reached by: a table may
    /// be shared between them.
    fn counts(&self, host: &hosts::Draft<'a>, route: &Name) -> ByListener {
        let Context { document, registries, .. } = self.cx;
        ByListener::new(host.listeners.iter().map(|place| {
            let listener = &document.listeners.0[*place].name;
            let tenant = host.tenant.map(|tenant| &tenant.value);
            (*place, registries.metrics.route(listener, Some(host.name), tenant, route))
        }))
    }

    fn report(&self, hosts: &[usize], problem: &Problem) {
        let host = |index: usize| &self.hosts[hosts[index]];
        self.cx.report.push(match *problem {
            Problem::DuplicateHost { ref pattern, first, second } => {
                let place = |host: &hosts::Draft<'_>, nth: usize| {
                    let same = host.patterns.iter().zip(&host.places).filter(|(own, _)| *own == pattern);
                    same.map(|(_, place)| *place).nth(nth).unwrap_or(host.name.span)
                };
                let (again, before) =
                    (place(host(second), usize::from(first == second)), place(host(first), 0));
                let message = match first == second {
                    true => format!("{pattern} stands twice in host {}", host(first).name),
                    false => {
                        format!(
                            "{pattern} belongs to two hosts: {} and {}",
                            host(first).name,
                            host(second).name
                        )
                    }
                };
                let other_listeners = "one name may belong to two hosts on different listeners";
                Diagnostic::error(Code::HostConflict, again, message)
                    .reason("the second time")
                    .label(before, "the first time")
                    .maybe_help((first != second).then_some(other_listeners))
            }
            Problem::Ambiguous { host: index, a, b } => {
                let (a, b) = (placed(host(index), a), placed(host(index), b));
                let message = format!(
                    "a request can match both {} and {}, and nothing says which goes first",
                    a.0, b.0
                );
                Diagnostic::error(Code::AmbiguousRoutes, b.1, message)
                    .label(a.1, "the other")
                    .help("a priority decides, or a further condition on one of them")
            }
            Problem::Repeated { host: index, first, second } => {
                let (first, second) = (placed(host(index), first), placed(host(index), second));
                let message = format!("route {} has this pattern already", second.0);
                Diagnostic::error(Code::NoEffect, second.1, message).label(first.1, "here")
            }
            Problem::Shadowed { host: index, route, by } => {
                let (route, by) = (route_of(host(index), route), route_of(host(index), by));
                let message =
                    format!("route {} is never reached: {} takes all its requests", route.name, by.name);
                Diagnostic::warning(Code::ShadowedRoute, route.name.span, message)
                    .label(by.name.span, "goes before")
            }
        });
    }
}

/// The draft of a route by its place among those that came into the table.
fn route_of<'h, 'a>(host: &'h hosts::Draft<'a>, place: usize) -> &'h route::Draft<'a> {
    let mut listed = host.routes.iter().filter(|route| !route.patterns.is_empty());
    listed.nth(place).expect("the table tells routes by the places that they were given in")
}

fn placed<'h>(host: &'h hosts::Draft<'_>, at: At) -> (&'h str, Span) {
    let route = route_of(host, at.route);
    (route.name.as_str(), route.places[at.pattern])
}

impl Outer<'_> {
    /// Where to log: the innermost that says something decides.
    fn log(&self, host: &OwnLog, route: &OwnLog) -> Option<AccessLog> {
        let said = [route, host, &self.access_log].into_iter().find_map(Option::as_ref);
        said.unwrap_or(&self.default_log).clone()
    }
}

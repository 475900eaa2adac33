//! Chains: the parts that apply to a route, from the defaults in to the route itself. Equal ones are
//! compiled once, so that a hundred thousand routes of one host share one.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{context::Context, upstreams::Upstreams};
use crate::{
    config::{document, host, is_later},
    diagnostic::{Code, Diagnostic, closest},
    middleware::{
        self, Calls, Chain, Item, Mode, Site, World, bandwidth, concurrency,
        limit::{Place, Scope as Counting, Within},
        maintenance, rate_limit,
    },
    value::{Name, OneOrMany, Span, Spanned, TextOr},
};

/// What one scope says about the chain.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    /// Tells it from all others.
    id: Arc<str>,
    /// As people are told it.
    label: Arc<str>,
    /// What its own keys put before the list.
    own: Vec<Own>,
    list: &'a document::Chain,
    without: &'a [Spanned<String>],
    captures: &'a [&'a str],
    /// Whether a tenant has written it, not the operator.
    delegated: bool,
}

/// A middleware that a scope has by a key of its own.
#[derive(Clone)]
struct Own {
    config: middleware::Config,
    /// Nobody further in takes it away.
    imposed: bool,
}

pub(super) struct Chains<'a> {
    cx: &'a Context<'a>,
    world: World<'a>,
    compiled: RefCell<HashMap<Vec<Arc<str>>, Arc<Chain>>>,
    withouts: RefCell<Withouts>,
}

/// Kinds taken away: where that is written, what it is, and whether it was ever there to take.
type Withouts = BTreeMap<Span, (String, bool)>;

/// A middleware where it applies.
struct Placed<'a> {
    config: &'a middleware::Config,
    span: Span,
    site: Site,
    captures: &'a [&'a str],
    place: Place,
    imposed: bool,
    delegated: bool,
}

impl Own {
    fn maintenance(config: &maintenance::Config) -> Self {
        Self { config: middleware::Config::Maintenance(config.clone()), imposed: false }
    }
}

impl<'a> Scope<'a> {
    /// `None` where the scope says nothing.
    pub fn new(
        kind: &str,
        name: Option<&Name>,
        maintenance: Option<&maintenance::Config>,
        list: &'a document::Chain,
        without: &'a [Spanned<String>],
    ) -> Option<Self> {
        let own: Vec<Own> = maintenance.map(Own::maintenance).into_iter().collect();
        let says_nothing = own.is_empty() && list.is_empty() && without.is_empty();
        (!says_nothing).then(|| Self::of(kind, name, own, list, without))
    }

    fn of(
        kind: &str,
        name: Option<&Name>,
        own: Vec<Own>,
        list: &'a document::Chain,
        without: &'a [Spanned<String>],
    ) -> Self {
        let label: Arc<str> = name.map_or_else(|| kind.into(), |name| format!("{kind} {name}").into());
        let delegated = name.is_some_and(|name| name.owned().is_some());
        Self { id: label.clone(), label, own, list, without, captures: &[], delegated }
    }

    /// The same for a tenant, whose limits are imposed on its hosts.
    pub fn tenant(name: &Name, tenant: &'a document::Tenant) -> Option<Self> {
        let limits = tenant.limits.as_ref().map(limits).unwrap_or_default();
        let own: Vec<Own> =
            limits.into_iter().chain(tenant.maintenance.as_ref().map(Own::maintenance)).collect();
        let says_nothing = own.is_empty() && tenant.middleware.is_empty();
        (!says_nothing).then(|| Self::of("tenant", Some(name), own, &tenant.middleware, &[]))
    }

    /// The same for a route of a host, whose templates may use its captures.
    pub fn route(host: &Name, name: &Name, config: &'a host::Route, captures: &'a [&'a str]) -> Option<Self> {
        let maintenance = config.maintenance.as_deref();
        let scope = Self::new("route", Some(name), maintenance, &config.middleware, &config.without)?;
        let (id, delegated) = (format!("route {host}/{name}").into(), host.owned().is_some());
        Some(Self { id, captures, delegated, ..scope })
    }
}

impl<'a> Chains<'a> {
    pub fn new(cx: &'a Context<'a>, upstreams: &'a Upstreams) -> Self {
        let registries = cx.registries;
        let calls = Calls {
            caller: registries.upstreams.caller().clone(),
            upstreams: Box::new(|name| upstreams.find(cx, name)),
            jwks: &registries.jwks,
            redis: Box::new(|place| cx.redis.find(cx, place)),
        };
        let (heavy_work, windows) = (registries.heavy_work.clone(), registries.windows.clone());
        let (limits, passwords) = (&registries.limits, &registries.passwords);
        let mut world = World::new(cx, heavy_work, windows, &registries.metrics, calls, limits, passwords);
        world.is_torn = Box::new(|place| cx.document.left_out.may_stand_before(place));
        Self { cx, world, compiled: RefCell::default(), withouts: RefCell::default() }
    }

    /// The chain of these scopes, outermost first.
    pub fn chain<'s>(&self, scopes: impl IntoIterator<Item = Option<&'s Scope<'s>>>) -> Arc<Chain>
    where
        'a: 's,
    {
        let scopes: Vec<&'s Scope<'s>> = scopes.into_iter().flatten().collect();
        let key: Vec<Arc<str>> = scopes.iter().map(|scope| scope.id.clone()).collect();
        if let Some(chain) = self.compiled.borrow().get(&key) {
            return chain.clone();
        }
        let chain = Arc::new(self.compile(&scopes));
        self.compiled.borrow_mut().insert(key, chain.clone());
        chain
    }

    fn compile<'s>(&self, scopes: &[&'s Scope<'s>]) -> Chain
    where
        'a: 's,
    {
        let mut effective: Vec<Placed<'s>> = Vec::new();
        for scope in scopes {
            self.take_away(scope, &mut effective);
            for placed in expand(self.cx, scope) {
                self.put(placed, &mut effective);
            }
        }
        let items = effective.iter().map(|placed| Item {
            config: placed.config,
            site: &placed.site,
            span: placed.span,
            captures: placed.captures,
            place: &placed.place,
        });
        self.cx.report.collect(|diagnostics| Chain::compile(items, &self.world, diagnostics))
    }

    fn take_away(&self, scope: &Scope<'_>, effective: &mut Vec<Placed<'_>>) {
        for kind in scope.without {
            let mut found = false;
            effective.retain(|placed| {
                if placed.imposed || placed.config.kind() != kind.as_str() {
                    return true;
                }
                found = true;
                let stays = scope.delegated && !placed.delegated;
                if stays {
                    self.report_foreign(kind.span, placed, "take away");
                }
                stays
            });
            let mut withouts = self.withouts.borrow_mut();
            let (_, had_effect) = withouts.entry(kind.span).or_insert_with(|| (kind.value.clone(), false));
            *had_effect |= found;
        }
    }

    /// Puts a part in: what adds up to the end, what there is one of in the outer one's place.
    fn put<'s>(&self, placed: Placed<'s>, effective: &mut Vec<Placed<'s>>) {
        let kind = placed.config.kind();
        let outer = match placed.config.adds_up() {
            true => None,
            false => effective.iter_mut().find(|outer| outer.config.kind() == kind),
        };
        match outer {
            Some(outer) if placed.delegated && !outer.delegated => {
                self.report_foreign(placed.span, outer, "replace");
            }
            Some(outer) => *outer = placed,
            None => effective.push(placed),
        }
    }

    /// What the operator has put in, no tenant's own file undoes.
    fn report_foreign(&self, written: Span, placed: &Placed<'_>, deed: &str) {
        let (kind, scope) = (placed.config.kind(), &placed.site.scope);
        let message = format!("the {kind} of {scope} is not a tenant's to {deed}");
        self.cx.report.push(Diagnostic::error(Code::NotDelegated, written, message));
    }

    /// Says which kinds were taken away where they never were.
    pub fn report_idle_withouts(&self) {
        for (span, (kind, had_effect)) in &*self.withouts.borrow() {
            if !had_effect && is_kind(kind) {
                let message = format!("there is no {kind} to take away: none comes from outside");
                let problem = Diagnostic::error(Code::NoEffect, *span, message);
                self.cx.idle(problem.help("take it out of without"));
            }
        }
    }
}

/// Reports kinds to be taken away that there are not.
pub(super) fn check_kinds(cx: &Context<'_>, without: &[Spanned<String>]) {
    for kind in without.iter().filter(|kind| !is_kind(kind)) {
        let kinds = middleware::Config::KINDS;
        let problem = match closest(kind, kinds.iter().copied()) {
            _ if is_later("Middleware", kind) => {
                let message = format!("the middleware {kind} is not supported yet");
                Diagnostic::error(Code::NotSupportedYet, kind.span, message)
            }
            near => Diagnostic::error(Code::UnknownName, kind.span, format!("there is no middleware {kind}"))
                .help(near.map_or_else(
                    || format!("there are {}", kinds.join(", ")),
                    |near| format!("did you mean {near}?"),
                )),
        };
        cx.report.push(problem);
    }
}

fn is_kind(kind: &str) -> bool {
    middleware::Config::KINDS.contains(&kind)
}

/// A tenant's limits as the middleware that they are.
fn limits(written: &document::TenantLimits) -> Vec<Own> {
    let rate = written.rate.map(|rate| {
        middleware::Config::RateLimit(rate_limit::Config {
            rate,
            burst: written.burst,
            by: Some(OneOrMany::default()),
            bucket: None,
            scope: Spanned::new(Counting::Local, rate.span),
            unavailable: None,
            mode: Mode::Enforce,
        })
    });
    let in_flight = written.in_flight.map(|max| {
        middleware::Config::Concurrency(concurrency::Config { max, by: None, mode: Mode::Enforce })
    });
    let bandwidth = written.bandwidth.map(|rate| {
        middleware::Config::Bandwidth(bandwidth::Config {
            rate,
            burst: None,
            per: bandwidth::Per::All,
            direction: bandwidth::Direction::Both,
        })
    });
    rate.into_iter().chain(in_flight).chain(bandwidth).map(|config| Own { config, imposed: true }).collect()
}

/// A scope's list with every named chain in its place.
fn expand<'s>(cx: &Context<'s>, scope: &'s Scope<'s>) -> Vec<Placed<'s>> {
    let own = |Own { config, imposed }: &'s Own| {
        let site = Site { scope: scope.label.clone(), chain: None };
        let within = Within::Scope(format!("limits of {}", scope.id).into());
        let place = Place::Written(within, 0);
        // A key of the scope: nothing of it is asked for by its place.
        let (span, delegated) = (Span::default(), scope.delegated);
        Placed { config, span, site, captures: &[], place, imposed: *imposed, delegated }
    };
    let mut all: Vec<Placed<'s>> = scope.own.iter().map(own).collect();
    visit(cx, scope.list, &mut Vec::new(), &mut |config, span, nth, chain| {
        let site = Site { scope: scope.label.clone(), chain: chain.cloned() };
        let within = chain.cloned().map_or_else(|| Within::Scope(scope.id.clone()), Within::Chain);
        let place = Place::Written(within, nth);
        let (captures, delegated) = (scope.captures, scope.delegated);
        all.push(Placed { config, span, site, captures, place, imposed: false, delegated });
    });
    refuse_twins(cx, scope.list);
    all
}

/// Visits the middleware of a list, named chains in depth: each with its place among those of its kind in its own
/// list. A chain that comes back to itself was reported by [`check_loops`].
fn visit<'s>(
    cx: &Context<'s>,
    list: &'s document::Chain,
    within: &mut Vec<&'s Spanned<Name>>,
    found: &mut dyn FnMut(&'s middleware::Config, Span, usize, Option<&'s Name>),
) {
    for (at, item) in list.iter().enumerate() {
        let name = match &item.value {
            TextOr::Map(config) => {
                let same = |item: &&Spanned<document::ChainItem>| matches!(&item.value, TextOr::Map(other) if other.kind() == config.kind());
                let nth = list[..at].iter().filter(same).count();
                found(config, item.span, nth, within.last().map(|name| &name.value));
                continue;
            }
            TextOr::Text(name) => Spanned::new(name.clone(), item.span),
        };
        let Some((_, entry)) = cx.names.chains.find(&name, &cx.report) else { continue };
        if !within.iter().any(|outer| outer.value == name.value) {
            within.push(&entry.name);
            visit(cx, &entry.value, within, found);
            within.pop();
        }
    }
}

fn report_loop(cx: &Context<'_>, names: &[&Spanned<Name>], back: Span) {
    let way: Vec<&str> = names.iter().chain(names.first()).map(|name| name.as_str()).collect();
    let message = format!("the chain {} contains itself: {}", way[0], way.join(" -> "));
    let mut problem = Diagnostic::error(Code::ChainLoop, back, message).reason("back to the start");
    for name in names {
        problem = problem.label(name.span, "on the way");
    }
    cx.report.push(problem);
}

/// Of two alike in one list the first would do nothing.
fn refuse_twins(cx: &Context<'_>, list: &document::Chain) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for item in list {
        let TextOr::Map(config) = &item.value else { continue };
        if config.adds_up() {
            continue;
        }
        if let Some(first) = seen.insert(config.kind(), item.span) {
            let message = format!("{} stands twice in one list", config.kind());
            let problem = Diagnostic::error(Code::NoEffect, first, message).reason("this one does nothing");
            cx.report.push(problem.label(item.span, "this one replaces it"));
        }
    }
}

/// Looks through the named chains, so that a loop is found even where nothing uses it.
pub(super) fn check_loops(cx: &Context<'_>) {
    let mut sound: HashSet<&str> = HashSet::new();
    for entry in &cx.document.middleware {
        refuse_twins(cx, &entry.value);
        follow(cx, &entry.name, &entry.value, &mut Vec::new(), &mut sound);
    }
}

fn follow<'a>(
    cx: &Context<'a>,
    name: &'a Spanned<Name>,
    list: &'a document::Chain,
    within: &mut Vec<&'a Spanned<Name>>,
    sound: &mut HashSet<&'a str>,
) {
    if !sound.insert(name.as_str()) {
        return;
    }
    within.push(name);
    for item in list {
        let TextOr::Text(next) = &item.value else { continue };
        match within.iter().position(|outer| outer.value == *next) {
            Some(start) => report_loop(cx, &within[start..], item.span),
            None => {
                let next = Spanned::new(next.clone(), item.span);
                let Some((_, entry)) = cx.names.chains.find(&next, &cx.report) else { continue };
                follow(cx, &entry.name, &entry.value, within, sound);
            }
        }
    }
    within.pop();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        compile::cases::sound,
        middleware::Chain,
        snapshot::{Route, Snapshot},
    };

    const TREE: &str = r#"
defaults: { middleware: [edge, request_headers: { set: { X-A: 1 } }] }
middleware:
  edge: [recover: {}, inner]
  inner: [request_id: { header: X-Edge }]
listeners:
  web: { bind: ":80" }
  other: { bind: ":81", middleware: [response_headers: { set: { X-L: other } }] }
  third: { bind: ":82" }
tenants: { acme: { middleware: [request_headers: { set: { X-A: 2 } }] } }
hosts:
  www:
    names: [www]
    tenant: acme
    middleware: [request_id: { header: X-Host }]
    routes:
      a: { path: /a, respond: {} }
      b: { path: /b, respond: {} }
      bare: { path: /bare, respond: {}, without: [request_headers, recover] }
      own: { path: "/own/{id}", respond: {}, middleware: [response_headers: { set: { X-Id: "{id}" } }] }
  plain: { names: [plain], routes: { a: { path: /a, respond: {} } } }
  plain2: { names: [plain2], routes: { a: { path: /a, respond: {} } } }
"#;

    fn route(snapshot: &Snapshot, listener: &str, host: &str, route: &str) -> Arc<Route> {
        let table = &snapshot.listeners[listener].table;
        let host = table.host(table.host_named(host).unwrap());
        host.routes().iter().find(|found| found.name.as_str() == route).unwrap().payload.clone()
    }

    fn parts(chain: &Chain) -> Vec<String> {
        let part = |part: &crate::middleware::Part| {
            let chain = part.site.chain.as_ref().map(|chain| format!(" by {chain}")).unwrap_or_default();
            format!("{} of {}{chain}", part.kind, part.site.scope)
        };
        chain.parts().iter().map(part).collect()
    }

    #[test]
    fn the_inner_replaces_the_outer_in_its_place_and_edits_add_up() {
        let snapshot = sound(TREE);
        assert_eq!(
            parts(&route(&snapshot, "other", "www", "a").chain),
            [
                "recover of defaults by edge",
                "request_id of host www",
                "request_headers of defaults",
                "response_headers of listener other",
                "request_headers of tenant acme",
            ]
        );
        assert_eq!(parts(&route(&snapshot, "web", "www", "bare").chain), ["request_id of host www"]);
        assert_eq!(
            parts(&route(&snapshot, "web", "plain", "a").chain),
            ["recover of defaults by edge", "request_id of defaults by inner", "request_headers of defaults"]
        );
        let own = parts(&route(&snapshot, "web", "www", "own").chain);
        assert_eq!(own.last().unwrap(), "response_headers of route own");
    }

    #[test]
    fn a_tenants_limits_go_before_its_own_part_and_stay() {
        let tree = TREE.replace("acme: { mid", "acme: { limits: { rate: 100/s, in_flight: 10 }, mid");
        let snapshot =
            sound(&tree.replace(
                "without: [request_headers, recover]",
                "middleware: [{ rate_limit: { rate: 1/s } }]",
            ));
        assert_eq!(
            parts(&route(&snapshot, "web", "www", "bare").chain)[3..],
            [
                "rate_limit of tenant acme",
                "concurrency of tenant acme",
                "request_headers of tenant acme",
                "rate_limit of route bare"
            ]
        );
        let more = "middleware: [{ rate_limit: { rate: 1/s } }], routes: { a: { path: /a, without: [rate_limit], respond: {} } }";
        let tree = tree.replace(
            "  plain: { names: [plain], routes: { a: { path: /a, respond: {} } } }",
            &format!("  plain: {{ names: [plain], tenant: acme, {more} }}"),
        );
        let left = parts(&route(&sound(&tree), "web", "plain", "a").chain);
        assert!(left.contains(&"rate_limit of tenant acme".to_owned()), "{left:?}");
        assert!(!left.contains(&"rate_limit of host plain".to_owned()), "{left:?}");
    }

    #[test]
    fn equal_chains_and_tables_are_shared() {
        let snapshot = sound(TREE);
        let chain = |host, name| route(&snapshot, "web", host, name).chain.clone();
        assert!(Arc::ptr_eq(&chain("www", "a"), &chain("www", "b")));
        assert!(Arc::ptr_eq(&chain("plain", "a"), &chain("plain2", "a")));
        assert!(!Arc::ptr_eq(&chain("www", "a"), &chain("www", "bare")));
        let table = |listener: &str| &snapshot.listeners[listener].table;
        assert!(Arc::ptr_eq(table("web"), table("third")));
        assert!(!Arc::ptr_eq(table("web"), table("other")));
    }

    #[test]
    fn answers_without_a_route_have_the_chains_that_apply() {
        let snapshot = sound(TREE);
        let listener = &snapshot.listeners["other"];
        assert_eq!(parts(&listener.unmatched.chain).last().unwrap(), "response_headers of listener other");
        let www = listener.hosts.iter().find(|host| host.name.as_str() == "www").unwrap();
        assert!(Arc::ptr_eq(&www.unmatched.chain, &route(&snapshot, "other", "www", "a").chain));
    }
}

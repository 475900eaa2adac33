//! What is made of a head before anything is done with it: who asks, for which host and path, and by
//! which route.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Method, Version, header, request};

use super::absolute::{Errand, Named};
use crate::{
    error::Reason,
    http::{
        authority::{self, Authority},
        connection::Connection,
        cors,
        field_name::{Lookalikes, Names, Unusual},
        forwarded::{self, Client},
        hop_by_hop, path, target, websocket,
    },
    matcher,
    routing::{Allow, Found},
    snapshot::{Action, Listener, Route},
    value::Params,
};

/// A request with its route.
pub(super) struct Arrival {
    pub route: Arc<Route>,
    pub plan: Plan,
    pub client: Client,
    pub lookalikes: Lookalikes,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub params: Params,
    /// It may be a replay.
    pub early: bool,
}

/// What is to be done.
pub(super) enum Plan {
    /// The route's action.
    Act,
    /// The request goes to the origin of its own target.
    Send(Box<Errand>),
    /// OPTIONS, answered here (RFC 9110 section 9.3.7).
    Options(Option<Allow>),
    Refuse(Reason, Option<Allow>),
}

impl Plan {
    /// Whether the request goes on to somebody else, as a request.
    pub(super) fn goes_on(&self, action: &Action) -> bool {
        matches!((self, action), (Self::Send(_), _) | (Self::Act, Action::Proxy(_) | Action::Split(_)))
    }

    /// Whether it is what is asked of a forward proxy.
    pub(super) fn is_of_a_proxy(&self, action: &Action) -> bool {
        matches!((self, action), (Self::Send(_), _) | (Self::Act, Action::Forward(_)))
    }
}

impl Arrival {
    /// Finds the route of a head; where there is none, the one whose chain a refusal passes.
    pub(super) fn of(listener: &Listener, connection: &Connection, head: &mut request::Parts) -> Self {
        let names = Names::of(&head.headers);
        // Before anything is decided by a field.
        let accepted = match names.is_unusual {
            true => listener.unusual_names.apply(&mut head.headers),
            false => Ok(Lookalikes::default()),
        };
        let (peer, scheme) = (connection.hop.ip, listener.expose.scheme(connection.tls.is_some()));
        let client = forwarded::client(peer, scheme, &head.headers, listener.trusted_proxies.as_ref());
        if names.describes_client && !client.peer_is_trusted {
            forwarded::drop_claims(&mut head.headers);
        }
        let mut arrival = Self {
            route: listener.unmatched.clone(),
            plan: Plan::Act,
            client,
            lookalikes: accepted.unwrap_or_default(),
            host: String::new(),
            path: String::new(),
            query: target::query(head).map(str::to_owned),
            params: Params::default(),
            early: connection.is_early(),
        };
        let found = match accepted {
            Ok(_) => arrival.find(listener, connection, head),
            Err(Unusual) => Err(Reason::MalformedRequest),
        };
        if let Err(reason) = found {
            arrival.plan = Plan::Refuse(reason, None);
        }
        if arrival.path.is_empty() {
            // It has none, or it was refused before it was looked at.
            arrival.path.push('/');
        }
        arrival
    }

    fn find(
        &mut self,
        listener: &Listener,
        connection: &Connection,
        head: &mut request::Parts,
    ) -> Result<(), Reason> {
        let contradicts = contradicts(head)?;
        self.host = host(head)?;
        let found = self.find_in(listener, connection, head);
        // Those who ask for a URI are told nothing by Host (RFC 9112 section 3.2.2): the others are not to be trusted.
        if contradicts && !matches!(self.plan, Plan::Send(_)) {
            (self.route, self.plan) = (listener.unmatched.clone(), Plan::Act);
            return Err(Reason::BadHost);
        }
        found
    }

    fn find_in(
        &mut self,
        listener: &Listener,
        connection: &Connection,
        head: &mut request::Parts,
    ) -> Result<(), Reason> {
        if let (Some(server), Some(tls)) = (&listener.settings.tls, &connection.tls)
            && !server.takes(tls.rules, &self.host)
        {
            return Err(Reason::Misdirected);
        }
        if self.early && !bears_replay(head) {
            return Err(Reason::TooEarly);
        }
        if head.method == Method::CONNECT {
            return match websocket::connect(head) {
                None => self.find_tunnel(listener, head),
                Some(_) => Err(Reason::UnsupportedProtocol),
            };
        }
        let uri = names_uri(head).then(|| Named::of(head));
        if head.uri.path() == "*" {
            return self.find_asterisk(listener, head, uri.as_ref());
        }
        self.path = normalise(listener, head)?;
        if let Some(redirect) = listener.redirect_from(self.client.scheme) {
            self.route = redirect.clone();
            return Ok(());
        }
        // In the clear, HTTP/2 names an http URI whoever is meant: what is not there for proxies goes first then.
        let is_unsaid = head.version == Version::HTTP_2 && connection.tls.is_none();
        let mut found = self.look_up(listener, head, uri.is_some() && !is_unsaid);
        let is_taken = found.is_ok() && matches!(self.plan, Plan::Act | Plan::Options(None));
        if is_unsaid && uri.is_some() && !is_taken {
            self.plan = Plan::Act;
            found = self.look_up(listener, head, true);
        }
        self.send_on(head, uri.as_ref());
        found
    }

    /// OPTIONS of a whole server: another's, where a route sends requests on to that, or else this one.
    fn find_asterisk(
        &mut self,
        listener: &Listener,
        head: &mut request::Parts,
        uri: Option<&Named>,
    ) -> Result<(), Reason> {
        if uri.is_some() && listener.redirect_from(self.client.scheme).is_none() {
            self.path.push('/');
            if self.look_up(listener, head, true).is_ok() {
                self.send_on(head, uri);
            }
        }
        if !matches!(self.route.action, Action::Forward(_)) {
            self.path.clear();
            (self.route, self.plan) = (listener.unmatched.clone(), Plan::Options(None));
        }
        Ok(())
    }

    /// A request for a URI goes to that one's origin, where the route that was found does that; none goes further than it
    /// may.
    fn send_on(&mut self, head: &mut request::Parts, uri: Option<&Named>) {
        if let (Plan::Act, Action::Forward(forward), Some(uri)) = (&self.plan, &self.route.action, uri) {
            self.plan = Errand::of(forward, uri, head)
                .map_or_else(|reason| Plan::Refuse(reason, None), |errand| Plan::Send(Box::new(errand)));
        }
        if self.plan.goes_on(&self.route.action) && ends_here(head) {
            self.plan = match head.method {
                Method::OPTIONS => Plan::Options(None),
                _ => Plan::Refuse(Reason::MethodNotAllowed, Some(Allow::default())),
            };
        }
    }

    /// The route that opens tunnels, where there is one: it has no path to be found by but the root.
    fn find_tunnel(&mut self, listener: &Listener, head: &request::Parts) -> Result<(), Reason> {
        self.path.push('/');
        let found = self.look_up(listener, head, true);
        if found.is_ok() && matches!((&self.plan, &self.route.action), (Plan::Act, Action::Forward(_))) {
            return Ok(());
        }
        (self.route, self.plan) = (listener.unmatched.clone(), Plan::Act);
        Err(Reason::NoConnect)
    }

    fn look_up(&mut self, listener: &Listener, head: &request::Parts, to_proxy: bool) -> Result<(), Reason> {
        let facts = matcher::Head {
            method: &head.method,
            headers: &head.headers,
            query: self.query.as_deref(),
            client_ip: self.client.ip,
            to_proxy,
        };
        if let Some((route, params)) = self.find_preflight(listener, &facts) {
            (self.route, self.params, self.plan) = (route, params, Plan::Options(None));
            return Ok(());
        }
        match listener.table.find(&self.host, &self.path, &facts) {
            Found::Route { route, params, .. } => {
                self.route = route.clone();
                self.params = params;
            }
            Found::Method { host, allow } => {
                self.route = listener.hosts[host].unmatched.clone();
                self.plan = match head.method {
                    Method::OPTIONS => Plan::Options(Some(allow)),
                    _ => Plan::Refuse(Reason::MethodNotAllowed, Some(allow)),
                };
            }
            Found::NoRoute { host } => {
                self.route = listener.hosts[host].unmatched.clone();
                return Err(Reason::NoRoute);
            }
            Found::NoHost => return Err(Reason::NoHost),
        }
        Ok(())
    }

    /// The route that answers a preflight: the one of what it asks for, where that has a part which does. Any other
    /// OPTIONS is looked up as such.
    fn find_preflight(&self, listener: &Listener, facts: &matcher::Head<'_>) -> Option<(Arc<Route>, Params)> {
        let method = cors::preflight(facts.method, facts.headers)?;
        let facts = matcher::Head { method: &method, ..*facts };
        match listener.table.find(&self.host, &self.path, &facts) {
            Found::Route { route, params, .. } if route.chain.answers_preflights() => {
                Some((route.clone(), params))
            }
            _ => None,
        }
    }
}

/// Whether this is the last that it may be sent on to; else it may go one less far (RFC 9110 section 7.6.2).
fn ends_here(head: &mut request::Parts) -> bool {
    // Before a field is looked for: it is asked of every request that goes on.
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return false;
    }
    let left = head.headers.get(header::MAX_FORWARDS);
    match left.and_then(|left| left.to_str().ok()?.parse::<u32>().ok()) {
        Some(0) => true,
        Some(left) => {
            head.headers.insert(header::MAX_FORWARDS, (left - 1).into());
            false
        }
        None => false,
    }
}

/// Whether Host names another entity than the target.
fn contradicts(head: &request::Parts) -> Result<bool, Reason> {
    let Some(target) = head.uri.authority() else { return Ok(false) };
    let (field, scheme) = (field(head)?, head.uri.scheme_str());
    Ok(field.is_some_and(|field| !authority::are_the_same(field, target.as_str(), scheme)))
}

/// Whether the target is a URI (RFC 9112 section 3.2.2): that of CONNECT has no scheme.
fn names_uri(head: &request::Parts) -> bool {
    head.uri.scheme().is_some() && head.uri.authority().is_some()
}

fn field(head: &request::Parts) -> Result<Option<&str>, Reason> {
    let field = hop_by_hop::find(&head.headers, &header::HOST);
    field.map(|value| value.to_str().map_err(|_| Reason::BadHost)).transpose()
}

/// The host asked for: the target's where that names one, else Host's. HTTP/1.0 may name none.
fn host(head: &mut request::Parts) -> Result<String, Reason> {
    let field = field(head)?;
    let target = head.uri.authority().map(|authority| authority.as_str());
    let Some(text) = target.or(field) else { return Ok(String::new()) };
    let host = Authority::parse(text).map_err(|_| Reason::BadHost)?.host.into_owned();
    // What goes on has the target's, whatever Host says (RFC 9112 section 3.2.2).
    if field.is_none_or(|field| field != text) {
        let value = HeaderValue::from_str(text).map_err(|_| Reason::BadHost)?;
        head.headers.insert(header::HOST, value);
    }
    Ok(host)
}

/// Whether it does no harm that the request may be another's, sent again (RFC 8470 section 3).
fn bears_replay(head: &request::Parts) -> bool {
    let asks_more =
        websocket::connect(head).is_some() || hop_by_hop::has_rare(&head.headers, &header::UPGRADE);
    head.method.is_safe() && !asks_more
}

/// The path as it is routed; the head's own target becomes the same, in origin form.
fn normalise(listener: &Listener, head: &mut request::Parts) -> Result<String, Reason> {
    let path = path::normalise(head.uri.path(), listener.encoded_slash).map_err(|_| Reason::BadPath)?;
    let unchanged = matches!(path, Cow::Borrowed(_));
    let path = path.into_owned();
    // The path of a target that was kept as it came is not this one.
    let unchanged = unchanged && head.extensions.get::<target::Raw>().is_none();
    if unchanged && head.uri.authority().is_none() {
        return Ok(path);
    }
    let whole = head.uri.path_and_query().filter(|target| unchanged && target.as_str().starts_with('/'));
    if let Some(target) = whole.cloned() {
        head.uri = target.into();
    } else {
        let target = match target::query(head) {
            Some(query) => format!("{path}?{query}"),
            None => path.clone(),
        };
        target::set(head, target).map_err(|_| Reason::BadPath)?;
    }
    Ok(path)
}

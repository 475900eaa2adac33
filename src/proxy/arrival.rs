//! What is made of a head before anything is done with it: who asks, for which host and path, and by
//! which route.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderValue, Method, header, request, uri::PathAndQuery};

use crate::{
    error::Reason,
    http::{
        authority::Authority,
        connection::Connection,
        cors,
        forwarded::{self, Client},
        hop_by_hop, path, websocket,
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
    /// OPTIONS, answered here (RFC 9110 section 9.3.7).
    Options(Option<Allow>),
    Refuse(Reason, Option<Allow>),
}

impl Arrival {
    /// Finds the route of a head; where there is none, the one whose chain a refusal passes.
    pub(super) fn of(listener: &Listener, connection: &Connection, head: &mut request::Parts) -> Self {
        let peer = connection.hop.ip;
        let scheme = if connection.tls.is_some() { "https" } else { "http" };
        let client = forwarded::client(peer, scheme, &head.headers, listener.trusted_proxies.as_ref());
        let mut arrival = Self {
            route: listener.unmatched.clone(),
            plan: Plan::Act,
            client,
            host: String::new(),
            path: String::new(),
            query: head.uri.query().map(str::to_owned),
            params: Params::default(),
            early: connection.is_early(),
        };
        if let Err(reason) = arrival.find(listener, connection, head) {
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
        self.host = host(head)?;
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
        if head.uri.path() == "*" {
            self.plan = Plan::Options(None);
            return Ok(());
        }
        self.path = normalise(listener, head)?;
        if let Some(redirect) = &listener.redirect {
            self.route = redirect.clone();
            return Ok(());
        }
        self.look_up(listener, head, self.client.ip)
    }

    /// The route that opens tunnels, where there is one: it has no path to be found by but the root.
    fn find_tunnel(&mut self, listener: &Listener, head: &request::Parts) -> Result<(), Reason> {
        self.path.push('/');
        let found = self.look_up(listener, head, self.client.ip);
        if found.is_ok() && matches!((&self.plan, &self.route.action), (Plan::Act, Action::Forward(_))) {
            return Ok(());
        }
        (self.route, self.plan) = (listener.unmatched.clone(), Plan::Act);
        Err(Reason::NoConnect)
    }

    fn look_up(
        &mut self,
        listener: &Listener,
        head: &request::Parts,
        client_ip: IpAddr,
    ) -> Result<(), Reason> {
        let facts = matcher::Head {
            method: &head.method,
            headers: &head.headers,
            query: self.query.as_deref(),
            client_ip,
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

/// The host asked for: Host's, or the target's where it is in absolute form; the two must agree
/// (RFC 9112 section 3.2.2). HTTP/1.0 may name none.
fn host(head: &mut request::Parts) -> Result<String, Reason> {
    let field = match head.headers.get(header::HOST) {
        Some(value) => Some(value.to_str().map_err(|_| Reason::BadHost)?),
        None => None,
    };
    let target = head.uri.authority().map(|authority| authority.as_str());
    let text = match (field, target) {
        (Some(field), Some(target)) if !field.eq_ignore_ascii_case(target) => return Err(Reason::BadHost),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return Ok(String::new()),
    };
    let host = Authority::parse(text).map_err(|_| Reason::BadHost)?.host.into_owned();
    if field.is_none() {
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
    let unchanged = matches!(path, Cow::Borrowed(_)) && head.uri.authority().is_none();
    let path = path.into_owned();
    if !unchanged {
        let target = match head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.clone(),
        };
        head.uri = PathAndQuery::try_from(target).map_err(|_| Reason::BadPath)?.into();
    }
    Ok(path)
}

//! A request that is only thought: what would become of it. `portolan explain` and the `tests:` section ask.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header::ALLOW};

use super::listeners::port;
use crate::{
    action::split::{Decision, Split},
    config::listener::Scheme,
    error::Reason,
    http::{authority::Authority, path},
    matcher::Head,
    routing::{Allow, Found},
    snapshot::{Action, Listener, Route},
    upstream::{self, Upstream},
    value::{Name, Params, Variable, Variables},
};

/// A request as a person writes it.
#[derive(Clone, Debug)]
pub struct Query {
    pub method: Method,
    pub scheme: Scheme,
    /// Lower-case, without port.
    pub host: String,
    pub port: u16,
    /// As it came.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub client_ip: IpAddr,
    /// It is made to a proxy: CONNECT always is.
    pub to_proxy: bool,
    /// The listener, where the URL does not say it.
    pub listener: Option<Name>,
}

/// Why nothing can be said of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("{0:?} is no URL: http://HOST/PATH or https://HOST/PATH")]
    BadUrl(String),
    #[error("the URL's host: {0}")]
    BadHost(String),
    #[error("no listener exposes {scheme} on port {port}; there are {there}")]
    NoListener { scheme: &'static str, port: u16, there: String },
    #[error("there is no listener {0}")]
    UnknownListener(Name),
}

/// What would become of it.
#[derive(Debug)]
pub(super) struct Answered<'q, 's> {
    pub query: &'q Query,
    pub listener: &'s Arc<Listener>,
    /// Normalised.
    pub path: String,
    pub route: &'s Arc<Route>,
    pub params: Params,
    pub refusal: Option<Refusal>,
}

/// Why no route takes it.
#[derive(Debug)]
pub(super) enum Refusal {
    BadPath(path::PathError),
    NoHost,
    NoRoute,
    Method(Allow),
    /// A URI that is not reached by a request.
    Scheme,
}

impl Query {
    pub fn new(method: Method, url: &str, headers: HeaderMap) -> Result<Self, QueryError> {
        let bad = || QueryError::BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?.as_str();
        let authority =
            Authority::parse(authority).map_err(|error| QueryError::BadHost(error.to_string()))?;
        Ok(Self {
            method,
            scheme,
            port: authority.port.unwrap_or(scheme.default_port()),
            host: authority.host.into_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers,
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            to_proxy: false,
            listener: None,
        })
    }

    /// Asks what would become of it.
    pub(super) fn answer<'q, 's>(
        &'q self,
        listeners: &'s BTreeMap<Name, Arc<Listener>>,
    ) -> Result<Answered<'q, 's>, QueryError> {
        let listener = self.locate(listeners)?;
        let answered =
            |path, route, params, refusal| Answered { query: self, listener, path, route, params, refusal };
        let raw = || self.path.clone();
        if let Some(route) = listener.redirect_from(self.scheme.as_str()) {
            let path = path::normalise(&self.path, listener.encoded_slash).map_or_else(|_| raw(), Into::into);
            return Ok(answered(path, route, Params::default(), None));
        }
        let unmatched = &listener.unmatched;
        let path = match path::normalise(&self.path, listener.encoded_slash) {
            Ok(path) => path.into_owned(),
            Err(error) => {
                return Ok(answered(raw(), unmatched, Params::default(), Some(Refusal::BadPath(error))));
            }
        };
        let (route, params, refusal) = match listener.table.find(&self.host, &path, &self.facts()) {
            Found::Route { route, params, .. } => {
                let sends_on = matches!(route.action, Action::Forward(_)) && self.method != Method::CONNECT;
                let is_refused = sends_on && self.scheme == Scheme::Https;
                (route, params, is_refused.then_some(Refusal::Scheme))
            }
            Found::NoHost => (unmatched, Params::default(), Some(Refusal::NoHost)),
            Found::NoRoute { host } => {
                (&listener.hosts[host].unmatched, Params::default(), Some(Refusal::NoRoute))
            }
            Found::Method { host, allow } => {
                (&listener.hosts[host].unmatched, Params::default(), Some(Refusal::Method(allow)))
            }
        };
        Ok(answered(path, route, params, refusal))
    }

    pub(super) fn facts(&self) -> Head<'_> {
        Head {
            method: &self.method,
            headers: &self.headers,
            query: self.query.as_deref(),
            client_ip: self.client_ip,
            to_proxy: self.to_proxy || self.method == Method::CONNECT,
        }
    }

    /// The listener named, or the one that the URL's scheme and port reach; of several the one that knows
    /// the host.
    fn locate<'s>(
        &self,
        listeners: &'s BTreeMap<Name, Arc<Listener>>,
    ) -> Result<&'s Arc<Listener>, QueryError> {
        if let Some(name) = &self.listener {
            return listeners.get(name).ok_or_else(|| QueryError::UnknownListener(name.clone()));
        }
        let reached: Vec<_> = listeners.values().filter(|listener| self.reaches(listener)).collect();
        let knows = |listener: &&&Arc<Listener>| listener.table.host_named(&self.host).is_some();
        reached.iter().find(knows).or(reached.first()).copied().ok_or_else(|| {
            let there: Vec<String> = listeners.values().map(|listener| said(listener)).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            QueryError::NoListener { scheme: self.scheme.as_str(), port: self.port, there }
        })
    }

    fn reaches(&self, listener: &Listener) -> bool {
        let exposed = listener.exposed;
        let at = |bind| port(bind) == Some(self.port);
        exposed.scheme == self.scheme && (exposed.port == Some(self.port) || listener.binds.iter().any(at))
    }
}

/// `web (http on port 80)`
fn said(listener: &Listener) -> String {
    let scheme = listener.exposed.scheme.as_str();
    match listener.exposed.port {
        Some(port) => format!("{} ({scheme} on port {port})", listener.name),
        None => format!("{} ({scheme})", listener.name),
    }
}

impl Answered<'_, '_> {
    /// The answer that Portolan gives by itself; a proxied request's is not known.
    pub fn local(&self) -> Option<Response<Bytes>> {
        match &self.route.action {
            Action::Redirect(redirect) => Some(redirect.answer(self).unwrap_or_else(|| {
                let mut answer = Response::new(Bytes::new());
                *answer.status_mut() = Reason::BadPath.status();
                answer
            })),
            Action::Respond(respond) => Some(respond.answer()),
            Action::Unmatched | Action::Forward(_) => {
                self.refusal.as_ref().map(|refusal| refusal.answer(&self.query.method))
            }
            Action::Proxy(_) | Action::Split(_) => None,
        }
    }

    /// The split that it comes to, and what can be said of its side: what canaries do is not asked.
    pub fn split(&self) -> Option<(&Split, Decision)> {
        let Action::Split(split) = &self.route.action else { return None };
        let Query { client_ip, host, headers, .. } = &self.query;
        let (path, query) = (self.path.as_str(), self.query.query.as_deref());
        let facts = upstream::Facts { client_ip: *client_ip, host, path, query, headers };
        Some((split, split.decide(&self.query.facts(), &facts)))
    }

    /// The upstreams that it may go to: one, unless chance decides.
    pub fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        match self.split() {
            Some((split, Decision::Side(chosen))) => vec![&split.sides[chosen.side].proxy.upstream],
            Some((split, Decision::Chance)) => {
                let drawn = split.sides.iter().filter(|side| side.weight > 0);
                drawn.map(|side| &side.proxy.upstream).collect()
            }
            None => self.route.action.upstreams().into_iter().map(|(upstream, _)| upstream).collect(),
        }
    }

    /// The path and query sent upstream, where the request goes there: with a rewrite that makes no path of it, it does not.
    pub fn sent(&self) -> Option<String> {
        match &self.route.action {
            Action::Proxy(proxy) => proxy.target(&self.path, self.query.query.as_deref(), self),
            Action::Split(split) => split.any_proxy().target(&self.path, self.query.query.as_deref(), self),
            _ => None,
        }
    }
}

impl Refusal {
    pub fn reason(&self) -> Reason {
        match self {
            Self::BadPath(_) => Reason::BadPath,
            Self::NoHost => Reason::NoHost,
            Self::NoRoute => Reason::NoRoute,
            Self::Method(_) => Reason::MethodNotAllowed,
            Self::Scheme => Reason::UnsupportedProtocol,
        }
    }

    /// Why, in words.
    pub fn said(&self) -> String {
        match self {
            Self::BadPath(error) => format!("{} {error}", self.reason().message()),
            _ => self.reason().message().to_owned(),
        }
    }

    fn answer(&self, method: &Method) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = self.reason().status();
        if let Self::Method(allow) = self {
            if *method == Method::OPTIONS {
                *answer.status_mut() = StatusCode::NO_CONTENT;
            }
            let value = HeaderValue::try_from(allow.to_string())
                .expect("methods are tokens, which are visible ASCII");
            answer.headers_mut().insert(ALLOW, value);
        }
        answer
    }
}

impl Variables for Answered<'_, '_> {
    fn capture(&self, index: usize) -> &str {
        self.params.get(index, &self.path)
    }

    fn variable(&self, variable: Variable, out: &mut String) {
        match variable {
            Variable::RequestHost => out.push_str(&self.query.host),
            Variable::RequestPath => out.push_str(&self.path),
            Variable::RequestQuery => out.push_str(self.query.query.as_deref().unwrap_or_default()),
            Variable::RequestScheme => out.push_str(self.query.scheme.as_str()),
            Variable::RequestMethod => out.push_str(self.query.method.as_str()),
            Variable::ClientIp => out.push_str(&self.query.client_ip.to_string()),
            // A request that is only thought has no connection, and the chain that would give it an id is
            // not run.
            Variable::RequestId
            | Variable::ClientPort
            | Variable::TlsClientSubject
            | Variable::TlsClientFingerprint
            | Variable::TlsSni
            | Variable::TlsVersion => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(url: &str) -> Result<Query, QueryError> {
        Query::new(Method::GET, url, HeaderMap::new())
    }

    #[test]
    fn urls_are_read() {
        let parsed = query("https://WWW.example.com./a/b?x=1").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("www.example.com", 443));
        assert_eq!((parsed.path.as_str(), parsed.query.as_deref()), ("/a/b", Some("x=1")));
        assert_eq!(query("http://[::1]:81").unwrap().port, 81);
        for wrong in ["", "/a", "example.com", "ftp://a/", "http:///a"] {
            assert!(matches!(query(wrong), Err(QueryError::BadUrl(_))), "{wrong}");
        }
        assert!(matches!(query("http://u@a/"), Err(QueryError::BadHost(_))));
    }
}

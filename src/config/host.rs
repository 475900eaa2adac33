//! Hosts and their routes. There may be a hundred thousand of them: what most do not have is boxed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    document::{Chain, Timeouts},
    listener::ClientAuth,
};
use crate::{
    action::{forward, proxy, redirect, respond},
    http::errors,
    matcher,
    middleware::maintenance,
    telemetry::access_log,
    value::{Method, Name, Named, OneOrMany, Spanned, TextOr},
};

/// A host: the names it answers to and its routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// "www.example.com", "*.example.com" (one label or more), or "*" for all that is left.
    pub names: Vec<Spanned<String>>,
    /// The listeners that it is reached by. Default: all.
    #[serde(default)]
    pub listeners: Option<Spanned<Vec<Spanned<Name>>>>,
    /// Its owner.
    #[serde(default)]
    pub tenant: Option<Spanned<Name>>,
    /// TLS of this host's own.
    #[serde(default)]
    pub tls: Option<Box<Spanned<HostTls>>>,
    /// Answers in the place of the whole host, but for those who work on it.
    #[serde(default)]
    pub maintenance: Option<Box<maintenance::Config>>,
    /// The host's part of the chain.
    #[serde(default)]
    pub middleware: Chain,
    /// Kinds of middleware inherited from outside that do not run here.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// What errors look like here.
    #[serde(default)]
    pub errors: Option<errors::Config>,
    /// The access log of this host. `false` turns it off.
    #[serde(default)]
    pub access_log: Option<Box<Spanned<access_log::Setting>>>,
    /// Sets of routes shared with other hosts.
    #[serde(default, rename = "use")]
    pub route_sets: Vec<Spanned<Name>>,
    /// Routes by name.
    #[serde(default)]
    pub routes: Named<Route>,
}

/// A host's own TLS.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTls {
    /// The certificate shown to clients that ask for one of this host's names. Default: as the listener chooses.
    #[serde(default)]
    pub certificate: Option<Spanned<Name>>,
    /// Certificates asked of clients that ask for one of this host's names. Default: as the listener does.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// A route: which requests, and what is done with them. Exactly one of proxy, redirect, forward and respond stands in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path patterns: "/a/b", "/a/{id}", "/a/**", "/a/{rest...}", or { regex: '...' }; a list means any of them.
    pub path: OneOrMany<Spanned<RoutePath>>,
    /// Methods. Default: all.
    #[serde(default)]
    pub methods: Vec<Spanned<Method>>,
    /// Conditions on header fields.
    #[serde(default)]
    pub headers: matcher::Fields,
    /// Conditions on the query's parameters.
    #[serde(default)]
    pub query: matcher::Texts,
    /// Conditions on cookies.
    #[serde(default)]
    pub cookies: matcher::Texts,
    /// Networks that the client's address must lie in.
    #[serde(default)]
    pub client_ip: OneOrMany<Spanned<crate::value::Cidr>>,
    /// Between routes of one pattern with as many conditions, the higher goes first. For a regex: above 0 before
    /// all patterns, below 0 after them. Default 0.
    #[serde(default)]
    pub priority: Option<Spanned<i32>>,
    /// Sends the request to an upstream.
    #[serde(default)]
    pub proxy: Option<Box<Spanned<proxy::Config>>>,
    /// Sends the client elsewhere.
    #[serde(default)]
    pub redirect: Option<Box<Spanned<redirect::Config>>>,
    /// Opens tunnels to listed targets by CONNECT, and sends requests for http URIs on to them. The route takes no others.
    #[serde(default)]
    pub forward: Option<Box<Spanned<forward::Config>>>,
    /// Answers with what stands here.
    #[serde(default)]
    pub respond: Option<Box<Spanned<respond::Config>>>,
    /// Answers in the place of this route, but for those who work on it.
    #[serde(default)]
    pub maintenance: Option<Box<maintenance::Config>>,
    /// The route's part of the chain.
    #[serde(default)]
    pub middleware: Chain,
    /// Kinds of middleware inherited from outside that do not run here.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// Timeouts of a request that is sent on.
    #[serde(default)]
    pub timeouts: Option<Box<Timeouts>>,
    /// What errors look like here.
    #[serde(default)]
    pub errors: Option<errors::Config>,
    /// The access log of this route. `false` turns it off.
    #[serde(default)]
    pub access_log: Option<Box<Spanned<access_log::Setting>>>,
}

impl Route {
    /// Its timeouts; what it does not say is none.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts.as_deref().copied().unwrap_or_default()
    }
}

/// A pattern, or a regular expression over the whole path.
pub type RoutePath = TextOr<String, RegexPath>;

/// A path by regular expression.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexPath {
    /// Matched against the normalised path; named groups are captures.
    pub regex: Spanned<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of a hundred thousand routes is made of as many of these.
    #[test]
    fn a_route_that_says_little_is_small() {
        assert!(size_of::<Route>() <= 352, "{}", size_of::<Route>());
        assert!(size_of::<proxy::Config>() <= 88, "{}", size_of::<proxy::Config>());
    }
}

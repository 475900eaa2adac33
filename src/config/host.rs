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
    /// "www.example.com", "*.example.com" (one label or more), or "*" for all other names.
    pub names: Vec<Spanned<String>>,
    /// The listeners that serve this host. Default: all.
    #[serde(default)]
    pub listeners: Option<Spanned<Vec<Spanned<Name>>>>,
    /// The tenant that owns it.
    #[serde(default)]
    pub tenant: Option<Spanned<Name>>,
    /// TLS settings of this host.
    #[serde(default)]
    pub tls: Option<Box<Spanned<HostTls>>>,
    /// Maintenance of the whole host: answers in its place, except for allowed clients.
    #[serde(default)]
    pub maintenance: Option<Box<maintenance::Config>>,
    /// Middleware of this host.
    #[serde(default)]
    pub middleware: Chain,
    /// Inherited middleware that does not run here.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// The format of error responses here.
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

/// TLS settings of a host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTls {
    /// The certificate for clients that send one of this host's names as SNI. Default: the listener's choice.
    #[serde(default)]
    pub certificate: Option<Spanned<Name>>,
    /// Client certificates for clients that send one of this host's names as SNI. Default: the listener's setting.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// A route: conditions on requests, and exactly one action of proxy, redirect, forward and respond.
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
    /// Networks that contain the client's address.
    #[serde(default)]
    pub client_ip: OneOrMany<Spanned<crate::value::Cidr>>,
    /// Among routes with the same pattern and number of conditions, the highest is first. A regex above 0 is tried before
    /// all patterns, others after them. Default 0.
    #[serde(default)]
    pub priority: Option<Spanned<i32>>,
    /// Sends the request to an upstream.
    #[serde(default)]
    pub proxy: Option<Box<Spanned<proxy::Config>>>,
    /// Redirects the client to another URL.
    #[serde(default)]
    pub redirect: Option<Box<Spanned<redirect::Config>>>,
    /// Acts as a forward proxy to listed targets: opens tunnels for CONNECT and sends on requests for http URIs. Other requests
    /// to this route are rejected.
    #[serde(default)]
    pub forward: Option<Box<Spanned<forward::Config>>>,
    /// Answers with this response.
    #[serde(default)]
    pub respond: Option<Box<Spanned<respond::Config>>>,
    /// Maintenance of this route: answers in its place, except for allowed clients.
    #[serde(default)]
    pub maintenance: Option<Box<maintenance::Config>>,
    /// Middleware of this route.
    #[serde(default)]
    pub middleware: Chain,
    /// Inherited middleware that does not run here.
    #[serde(default)]
    pub without: Vec<Spanned<String>>,
    /// Timeouts of a proxied request.
    #[serde(default)]
    pub timeouts: Option<Box<Timeouts>>,
    /// The format of error responses here.
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
        assert!(size_of::<proxy::Config>() <= 120, "{}", size_of::<proxy::Config>());
    }
}

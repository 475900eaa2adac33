//! What a person wrote, as one typed document. The parts' own settings live with the parts; this
//! composes them. Names are still texts here: `compile` resolves them.

use std::{num::NonZeroU32, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Delegated, LeftOut,
    host::{Host, Route},
    listener::Listener,
    test::Test,
};
use crate::{
    middleware, store,
    telemetry::{access_log, log},
    tls, trace, upstream,
    value::{
        Bandwidth, Bind, Duration, FieldName, FilePath, Map, Name, NameServer, Named, Rate, Secret, Spanned,
        TextOr,
    },
};

/// A Portolan configuration.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// Settings of the process. Changing them needs a restart.
    pub process: Process,
    /// How long in-flight requests may take at shutdown and when a listener is removed. Default 30s.
    pub drain_timeout: Option<Spanned<Duration>>,
    /// The zone that this process is in, as `zone` of endpoints names it: those in it are used first.
    pub zone: Option<Spanned<Name>>,
    /// The admin API: metrics, probes, `portolan reload` and `portolan status`.
    pub admin: Option<Admin>,
    /// Metrics for Prometheus, on the admin API's address.
    pub metrics: Metrics,
    /// The process's own log, on stderr.
    pub log: log::Config,
    /// The access log: a line for each request. Default: json on stdout. `false` turns it off.
    pub access_log: Option<Spanned<access_log::Setting>>,
    /// Tracing: which requests are recorded, and where spans are sent. Default: off.
    pub tracing: Option<trace::Config>,
    /// A Redis for limits with scope: shared.
    pub redis: Option<store::Config>,
    /// The DNS servers that names of endpoints and forward targets are asked of: "127.0.0.1:53". Names are then absolute.
    /// Default: those of /etc/resolv.conf, with its search domains.
    pub resolvers: Vec<Spanned<NameServer>>,
    /// Defaults of every listener, host and route.
    pub defaults: Defaults,
    /// Certificates with their keys, by name.
    pub certificates: Named<tls::Config>,
    /// Listeners, by name.
    pub listeners: Named<Listener>,
    /// Tenants, by name.
    pub tenants: Named<Tenant>,
    /// Chains of middleware, by name.
    pub middleware: Named<Chain>,
    /// Pools of endpoints that requests are proxied to, by name.
    pub upstreams: Named<upstream::Config>,
    /// Sets of routes for several hosts, by name.
    pub route_sets: Named<Named<Route>>,
    /// Hosts and their routes, by name.
    pub hosts: Named<Host>,
    /// Tests: requests and their expected results. `portolan test` and every reload run them.
    pub tests: Vec<Spanned<Test>>,
    /// What was written as well, but is wrong.
    #[serde(skip)]
    pub left_out: LeftOut,
    /// Whose parts others write.
    #[serde(skip)]
    pub delegated: Vec<Arc<Delegated>>,
}

impl Document {
    /// One of which nothing is known.
    pub fn lost() -> Self {
        Self { left_out: LeftOut::all(), ..Self::default() }
    }
}

/// Settings of the process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Threads that serve requests. Default: one per core.
    pub threads: Option<Spanned<std::num::NonZeroU16>>,
}

/// The admin API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A unix socket, "unix:/run/portolan/admin.sock", an address of this machine alone, "127.0.0.1:9901", or with a token
    /// one that other machines reach, "0.0.0.0:9901". The admin API uses no TLS.
    pub bind: Spanned<Bind>,
    /// The token that requests must have, as "Authorization: Bearer TOKEN", except for /live and /ready. Write "${file:PATH}" or
    /// "${NAME}"; at least 16 visible ASCII characters. Required unless bind is a unix socket or a loopback address.
    #[serde(default)]
    pub token: Option<Spanned<Secret>>,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// The path of the metrics. Default /metrics.
    pub path: Option<Spanned<String>>,
}

/// Defaults of every listener, host and route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Middleware of all requests: the outermost part of every chain.
    pub middleware: Chain,
    /// The format of error responses.
    pub errors: Option<crate::http::errors::Config>,
    /// How request paths are normalised.
    pub paths: Paths,
    /// Timeouts of proxied requests.
    pub timeouts: Timeouts,
}

/// How request paths are normalised before routing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// The handling of "%2F" and "%5C" in a path. Default: reject.
    pub encoded_slash: Option<crate::http::path::EncodedSlash>,
}

/// Timeouts of a proxied request. A route's override its upstream's, which override the defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ProxyTimeouts")]
pub struct Timeouts {
    /// Time from the request's head to the end of the response. Default: no limit.
    pub total: Option<Spanned<Duration>>,
    /// Time from the end of the request to the response's head, for each attempt. Default 60s.
    pub first_byte: Option<Spanned<Duration>>,
    /// Longest pause between two pieces of the response's body. Default 60s.
    pub body_idle: Option<Spanned<Duration>>,
    /// How long a tunnel, such as WebSocket's, may be idle in both directions. Default 1h.
    pub tunnel_idle: Option<Spanned<Duration>>,
}

/// A tenant: an owner of hosts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// Maintenance of all hosts of the tenant: answers in their place, except for allowed clients.
    pub maintenance: Option<crate::middleware::maintenance::Config>,
    /// Limits of all its hosts together, before the tenant's middleware. `without` cannot remove them.
    pub limits: Option<TenantLimits>,
    /// Middleware of the tenant's hosts: between the listener's and the host's.
    pub middleware: Chain,
}

/// Limits of all hosts of a tenant together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    /// The highest rate of requests: 100/s, 6000/m or 10000/h. Requests above it get 429, as from rate_limit.
    pub rate: Option<Spanned<Rate>>,
    /// How many requests may come at once after a pause. Default: `rate` for one second, at least 1.
    pub burst: Option<Spanned<NonZeroU32>>,
    /// The most requests in flight at once. Further requests get 503, as from concurrency.
    pub in_flight: Option<NonZeroU32>,
    /// The highest rate of bodies in each direction, as 50MiB/s. Data above it waits, as with bandwidth.
    pub bandwidth: Option<Bandwidth>,
}

/// A list of middleware: a name stands for a chain, a map for one middleware.
pub type Chain = Vec<Spanned<ChainItem>>;

/// An item of a chain.
pub type ChainItem = TextOr<Name, middleware::Config>;

/// Fields with templates for their values.
pub type Fields = Map<FieldName, Spanned<String>>;

/// A file, relative to the file that names it.
pub type File = Spanned<FilePath>;

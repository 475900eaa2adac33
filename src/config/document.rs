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
        Bandwidth, Bind, Duration, FieldName, FilePath, Map, Name, Named, Rate, Secret, Spanned, TextOr,
    },
};

/// A Portolan configuration.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// Settings of the process. Changing them needs a restart.
    pub process: Process,
    /// How long requests in flight get at shutdown and when a listener goes. Default 30s.
    pub drain_timeout: Option<Spanned<Duration>>,
    /// Where the process is administered: metrics, probes, `portolan reload` and `portolan status`.
    pub admin: Option<Admin>,
    /// What Prometheus scrapes, on the administration's address.
    pub metrics: Metrics,
    /// What the process logs about itself, on stderr.
    pub log: log::Config,
    /// A line for each request. Without it: json on stdout. `false` turns it off.
    pub access_log: Option<Spanned<access_log::Setting>>,
    /// Which requests are traced, and where their spans go. Without it: none.
    pub tracing: Option<trace::Config>,
    /// The Redis that several Portolans share. Only what asks for it uses it.
    pub redis: Option<store::Config>,
    /// What holds for every listener, host and route that does not say otherwise.
    pub defaults: Defaults,
    /// Certificates with their keys, by name.
    pub certificates: Named<tls::Config>,
    /// Where clients connect, by name.
    pub listeners: Named<Listener>,
    /// Owners of hosts, by name.
    pub tenants: Named<Tenant>,
    /// Chains of middleware, by name.
    pub middleware: Named<Chain>,
    /// Pools of endpoints that requests are proxied to, by name.
    pub upstreams: Named<upstream::Config>,
    /// Routes that several hosts share, by name.
    pub route_sets: Named<Named<Route>>,
    /// Hosts with their routes, by name.
    pub hosts: Named<Host>,
    /// Requests with what is expected of them: run by `portolan test` and before every reload.
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

/// Where the process is administered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A unix socket, "unix:/run/portolan/admin.sock", an address of this machine alone, "127.0.0.1:9901", or with a token
    /// one that others reach, "0.0.0.0:9901". It is spoken in cleartext.
    pub bind: Spanned<Bind>,
    /// What who asks has to show, as "Authorization: Bearer TOKEN", for everything but /live and /ready: "${file:PATH}" or
    /// "${NAME}", of 16 visible ASCII characters at least. Required unless bind is a unix socket or a loopback address.
    #[serde(default)]
    pub token: Option<Spanned<Secret>>,
}

/// What Prometheus scrapes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// The path that they are at. Default /metrics.
    pub path: Option<Spanned<String>>,
}

/// What holds where nothing else is said.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The outermost part of every chain.
    pub middleware: Chain,
    /// What answers that Portolan makes itself look like.
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
    /// What becomes of "%2F" and "%5C" in a path. Default: reject.
    pub encoded_slash: Option<crate::http::path::EncodedSlash>,
}

/// Timeouts of a proxied request. A route's go before its upstream's, the upstream's before the defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ProxyTimeouts")]
pub struct Timeouts {
    /// From the request's head to the response's end. Default: none.
    pub total: Option<Spanned<Duration>>,
    /// From the request's end to the response's head. Default 60s.
    pub first_byte: Option<Spanned<Duration>>,
    /// Between two pieces of the response's body. Default 60s.
    pub body_idle: Option<Spanned<Duration>>,
    /// How long nothing may pass through a tunnel, such as WebSocket's, in either way. Default 1h.
    pub tunnel_idle: Option<Spanned<Duration>>,
}

/// An owner of hosts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// Answers in the place of all the tenant's hosts, but for those who work on it.
    pub maintenance: Option<crate::middleware::maintenance::Config>,
    /// What its hosts are held to together, before the rest of the tenant's part of the chain. No host takes it away.
    pub limits: Option<TenantLimits>,
    /// The tenant's part of its hosts' chains: between the listener's and the host's.
    pub middleware: Chain,
}

/// What the hosts of a tenant are held to together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    /// How often requests may come: 100/s, 6000/m or 10000/h. What is more gets 429, as from rate_limit.
    pub rate: Option<Spanned<Rate>>,
    /// How many may come at once after a pause. Default: what `rate` is in one second, at least 1.
    pub burst: Option<Spanned<NonZeroU32>>,
    /// The most requests in flight at once. What is more gets 503, as from concurrency.
    pub in_flight: Option<NonZeroU32>,
    /// How many bytes of bodies pass in a second, in each direction: 50MiB/s. What is more waits, as with bandwidth.
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

//! What a configuration means, ready to serve and swapped as a whole. No text is left to parse in it, no
//! name to resolve, no default to fill in; what changes while it serves lies in what its parts share.

pub mod settings;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    action::{
        forward::Forward,
        proxy::Proxy,
        redirect::Redirect,
        respond::Respond,
        split::{Side, Split},
    },
    compile::Test,
    config::listener::Scheme,
    http::{
        errors::Errors, external::Expose, field_name::UnusualNames, forwarded::Trust, path::EncodedSlash,
    },
    middleware::{Chain, Routed},
    routing::{HostPattern, Table},
    telemetry::{access_log::AccessLog, log, metrics::ByListener},
    trace::Tracer,
    upstream::Upstream,
    value::{Bind, Name, Secret},
};

/// A compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counted by whoever publishes it; 0 until then.
    pub generation: u64,
    /// SHA-256 in hexadecimal over all that was read for it.
    pub hash: String,
    pub loaded_at: SystemTime,
    pub process: Process,
    /// What requests in flight get at shutdown and when a listener goes.
    pub drain_timeout: Duration,
    /// Where the administration listens, where that is said.
    pub admin: Option<Bind>,
    /// What who asks there has to show.
    pub admin_token: Option<Secret>,
    /// Where it shows the metrics.
    pub metrics_path: String,
    pub log: log::Config,
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// When each certificate ends.
    pub certificates: BTreeMap<Name, SystemTime>,
    pub tests: Vec<Test>,
    /// Files and directories a change of which may change the outcome.
    pub watch: Vec<PathBuf>,
}

/// What the administration shows beside the metrics, which may be at none of these paths.
pub const ADMIN_PATHS: [&str; 6] = ["/health", "/ready", "/live", "/status", "/reload", "/upstream"];

/// Settings of the process; changing them needs a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub threads: usize,
}

/// Where clients connect, and what becomes of their requests.
#[derive(Debug)]
pub struct Listener {
    pub name: Name,
    /// Tells it from the others of this configuration.
    pub place: usize,
    /// At least one.
    pub binds: Vec<Bind>,
    /// What connections are held to, TLS included.
    pub settings: settings::Listener,
    pub exposed: Exposed,
    /// The same as far as the configuration says it.
    pub expose: Expose,
    pub encoded_slash: EncodedSlash,
    pub unusual_names: UnusualNames,
    /// Proxies whose word about the client is taken, where there are any.
    pub trusted_proxies: Option<Trust>,
    /// Decides which requests are traced, where some are.
    pub tracer: Option<Arc<Tracer>>,
    /// Takes every request that has not come by its scheme yet, where the listener redirects.
    pub redirect: Option<Redirecting>,
    /// Hosts and routes. Its hosts' indices are those of `hosts`.
    pub table: Arc<Table<Route>>,
    pub hosts: Arc<[Host]>,
    /// For requests to no host, and for heads too malformed to name one.
    pub unmatched: Arc<Route>,
}

/// The redirect of a listener to another scheme.
#[derive(Debug)]
pub struct Redirecting {
    pub scheme: Scheme,
    pub route: Arc<Route>,
}

impl Listener {
    /// The redirect of a request that the client made by this scheme. One that came by the right one already, as a
    /// trusted proxy says, would come back forever.
    pub fn redirect_from(&self, scheme: &str) -> Option<&Arc<Route>> {
        let redirect = self.redirect.as_ref()?;
        (redirect.scheme.as_str() != scheme).then_some(&redirect.route)
    }
}

/// What users see of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    pub scheme: Scheme,
    /// `None`: the port that was bound, which nobody knows before; and on unix sockets.
    pub port: Option<u16>,
}

/// A host on a listener.
#[derive(Debug)]
pub struct Host {
    pub name: Name,
    /// The names that it answers to.
    pub names: Vec<HostPattern>,
    pub tenant: Option<Name>,
    /// For requests that none of its routes takes: 404, 405 and the answer to OPTIONS.
    pub unmatched: Arc<Route>,
}

/// What is done with a request. A request holds it until its end, so it never points back at the table.
#[derive(Debug)]
pub struct Route {
    /// Its own name, and those of its host and tenant.
    pub names: Arc<Routed>,
    /// The names of the path's captures, in the order of the table's parameters.
    pub captures: Arc<[Box<str>]>,
    pub chain: Arc<Chain>,
    pub action: Action,
    pub errors: Arc<Errors>,
    /// Where its requests are logged; `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// What its requests are counted by.
    pub metrics: ByListener,
}

/// A route's action. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Action {
    Proxy(Arc<Proxy>),
    Split(Arc<Split>),
    Redirect(Arc<Redirect>),
    Forward(Arc<Forward>),
    Respond(Arc<Respond>),
    /// There is none: the answer is an error, which passes the chain all the same.
    Unmatched,
}

impl Action {
    /// The upstreams that requests may go to, each with whether the route depends on it.
    pub fn upstreams(&self) -> Vec<(&Arc<Upstream>, bool)> {
        match self {
            Self::Proxy(proxy) => vec![(&proxy.upstream, true)],
            Self::Split(split) => {
                let lasting = |side: &Side| side.weight > 0 && side.canary.is_none();
                split.sides.iter().map(|side| (&side.proxy.upstream, lasting(side))).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Proxy(_) => "proxy",
            Self::Split(_) => "split",
            Self::Redirect(_) => "redirect",
            Self::Forward(_) => "forward",
            Self::Respond(_) => "respond",
            Self::Unmatched => "unmatched",
        }
    }
}

//! What outlives a snapshot: endpoints' states and their health checkers. The registry holds them weakly;
//! whoever serves from them keeps them, and what nobody keeps is forgotten.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pingora::connectors::ConnectorOptions;

use super::{
    Upstream,
    breaker::{Circuit, CircuitBreaker},
    call::Caller,
    connections::Connector,
    discovery::{Definition, Resolver, Source},
    fill::FillTask,
    health::{Checker, HealthTask},
    mirror::{Mirror, MirrorTask},
    probe::{Prober, Target},
    readmission::ReadmissionTask,
    settings::{Health, SourceSettings},
    shared::Shared,
    state::EndpointState,
    tls::Identity,
    window::Window,
};
use crate::{
    telemetry::metrics::{self, Metrics},
    value::{Address, Clock, Name, Weaks},
};

/// What an endpoint is known by over reloads: its upstream, its address, and how it is connected to.
pub type EndpointKey = (Name, Address, Identity);

/// States and checkers by what they are known by. One per process.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    clock: Clock,
    connector: Arc<Connector>,
    prober: Arc<Prober>,
    caller: Arc<Caller>,
    metrics: Arc<Metrics>,
    states: Mutex<Weaks<EndpointKey, EndpointState>>,
    /// How many states there have been.
    serials: AtomicU64,
    checkers: Mutex<Weaks<(EndpointKey, Health), Checker>>,
    windows: Mutex<Weaks<(EndpointKey, Duration), Window>>,
    /// By upstream and settings.
    circuits: Mutex<Weaks<(Name, CircuitBreaker), Circuit>>,
    /// By upstream.
    shared: Mutex<Weaks<Name, Shared>>,
    /// By the DNS servers that they ask.
    resolvers: Mutex<Weaks<Arc<[SocketAddr]>, Resolver>>,
    sources: Mutex<Weaks<SourceKey, Source>>,
    /// What starts tasks of upstreams while a snapshot serves.
    starter: OnceLock<Starter>,
}

/// What a source is known by over reloads: what is asked, how often, and the DNS servers.
type SourceKey = (Definition, Option<Duration>, Arc<[SocketAddr]>);

type Starter = Box<dyn Fn(EndpointTask) + Send + Sync>;

/// What runs beside requests for an upstream.
#[derive(Debug)]
pub enum EndpointTask {
    Health(HealthTask),
    Fill(FillTask),
    Readmission(ReadmissionTask),
    Mirror(Box<MirrorTask>),
}

// === impl Registry ===

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// `connector` is what health checks and our own requests connect with; its authorities are trusted where an upstream names none.
    pub fn new(clock: Clock, connector: Option<ConnectorOptions>, metrics: Arc<Metrics>) -> Self {
        let connector = Arc::new(Connector::new(connector));
        Self(Arc::new(Inner {
            clock,
            prober: Arc::new(Prober::new(connector.clone())),
            caller: Arc::new(Caller::new(connector.clone())),
            connector,
            metrics,
            states: Mutex::default(),
            serials: AtomicU64::new(0),
            checkers: Mutex::default(),
            windows: Mutex::default(),
            circuits: Mutex::default(),
            shared: Mutex::default(),
            resolvers: Mutex::default(),
            sources: Mutex::default(),
            starter: OnceLock::new(),
        }))
    }

    /// What connects to endpoints.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.0.connector
    }

    /// What requests of our own are sent by.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.0.caller
    }

    /// The state of an endpoint, and whether it is new.
    pub(super) fn state(&self, key: &EndpointKey, changes: &Arc<AtomicU64>) -> (Arc<EndpointState>, bool) {
        let mut states = self.0.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        let state = states.find_or(key.clone(), || {
            is_new = true;
            let metrics = self.0.metrics.endpoint(&key.0, key.1.to_string());
            let serial = self.0.serials.fetch_add(1, Ordering::Relaxed);
            EndpointState::new(serial, self.0.clock.clone(), changes.clone(), metrics)
        });
        (state, is_new)
    }

    /// The outcomes at an endpoint over some time.
    pub(super) fn window(&self, key: &EndpointKey, length: Duration) -> Arc<Window> {
        let mut windows = self.0.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.find_or((key.clone(), length), || Window::new(length))
    }

    /// What an upstream's snapshots share, and whether it is new.
    pub(super) fn shared(&self, upstream: &Name) -> (Arc<Shared>, bool) {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        let found = shared.find_or(upstream.clone(), || {
            is_new = true;
            Shared::new(self.0.clock.now())
        });
        (found, is_new)
    }

    /// An upstream's circuit; changed settings make another.
    pub(super) fn circuit(&self, upstream: &Name, settings: CircuitBreaker) -> Arc<Circuit> {
        let mut circuits = self.0.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        circuits.find_or((upstream.clone(), settings), || {
            Circuit::new(upstream.clone(), settings, self.0.clock.clone(), self.0.metrics.upstream(upstream))
        })
    }

    pub(super) fn upstream(&self, name: &Name) -> Arc<metrics::Upstream> {
        self.0.metrics.upstream(name)
    }

    /// Copies of requests that an upstream is to get.
    pub fn mirror(&self, upstream: &Arc<Upstream>) -> Mirror {
        Mirror::new(upstream.clone(), self.clone(), self.0.metrics.mirror(&upstream.name))
    }

    pub(super) fn checker(
        &self,
        key: EndpointKey,
        health: &Health,
        state: &Arc<EndpointState>,
        target: impl FnOnce() -> Target,
    ) -> Arc<Checker> {
        let (upstream, address) = (key.0.clone(), key.1.clone());
        let mut checkers = self.0.checkers.lock().unwrap_or_else(PoisonError::into_inner);
        checkers.find_or((key, health.clone()), || {
            Checker::new(upstream, address, health.clone(), state.clone(), target(), self.0.prober.clone())
        })
    }

    /// The resolver that asks these DNS servers; without any, the system's.
    pub fn resolver(&self, servers: &Arc<[SocketAddr]>) -> Arc<Resolver> {
        let mut resolvers = self.0.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        resolvers.find_or(servers.clone(), || Resolver::new(servers))
    }

    /// The source that is there. One that is asked in another way than before begins with what was known.
    pub(super) fn source(&self, written: &SourceSettings, servers: &Arc<[SocketAddr]>) -> Arc<Source> {
        let key = (written.definition.clone(), written.refresh, servers.clone());
        let resolver = self.resolver(servers);
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = sources.living().find(|(key, _)| key.0 == written.definition).map(|(_, source)| source);
        sources.find_or(key, || {
            let (definition, read) = (written.definition.clone(), written.read.clone());
            let source = Source::new(definition, written.refresh, &resolver, read);
            if let Some(alike) = alike {
                source.begin_with(&alike);
            }
            source
        })
    }

    /// The sources that are used.
    pub fn sources(&self) -> Vec<Arc<Source>> {
        let sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.living().map(|(_, source)| source).collect()
    }

    pub(super) fn discovery(&self, upstream: &Name, source: String) -> Arc<metrics::Discovery> {
        self.0.metrics.discovery(upstream, source)
    }

    /// Says what starts tasks of upstreams while a snapshot serves.
    pub fn start_by(&self, starter: impl Fn(EndpointTask) + Send + Sync + 'static) {
        let _ = self.0.starter.set(Box::new(starter));
    }

    pub(super) fn start(&self, task: EndpointTask) {
        if let Some(starter) = self.0.starter.get() {
            starter(task);
        }
    }
}

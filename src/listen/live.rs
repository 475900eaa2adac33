//! A listener as it is at the moment: the settings for new connections, the count of the present ones,
//! and the signals that end them. It outlives reloads.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::Instant};

use super::admission::{Admission, Permit, Refused};
use crate::{
    http::{
        alt_svc::{AltSvc, Announcement},
        connection::Peer,
    },
    proxy::signal::Signal,
    snapshot::settings::Listener,
    value::Bind,
};

/// What the sockets of one listener share.
#[derive(Debug)]
pub struct Live {
    settings: ArcSwap<Listener>,
    signals: ArcSwap<Signals>,
    announcement: Arc<Announcement>,
    pub(super) admission: Arc<Admission>,
}

/// Connections asked to end.
#[derive(Debug)]
pub struct Draining(Arc<Signals>);

/// How connections are told to end.
#[derive(Debug)]
struct Signals {
    drain: watch::Sender<bool>,
    leave: watch::Sender<Option<Instant>>,
    cut: watch::Sender<bool>,
}

/// A connection's ends of the signals.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) draining: watch::Receiver<bool>,
    pub(super) leaving: watch::Receiver<Option<Instant>>,
    cut: watch::Receiver<bool>,
}

// === impl Live ===

impl Live {
    pub fn new(settings: Listener) -> Arc<Self> {
        let announcement = Announcement::default();
        announcement.set(settings.protocols.h3);
        Arc::new(Self {
            announcement: Arc::new(announcement),
            settings: ArcSwap::from_pointee(settings),
            signals: ArcSwap::from_pointee(Signals::new()),
            admission: Arc::default(),
        })
    }

    /// What new connections are held to.
    pub fn settings(&self) -> Arc<Listener> {
        self.settings.load_full()
    }

    /// Holds new connections to these settings; the present ones go on as they are.
    pub fn update(&self, settings: Listener) {
        self.announcement.set(settings.protocols.h3);
        self.settings.store(Arc::new(settings));
    }

    /// Asks the present connections to end: no further request, what is in flight finishes. Later
    /// connections are not concerned.
    pub fn drain(&self) -> Draining {
        let old = self.signals.swap(Arc::new(Signals::new()));
        old.drain.send_replace(true);
        Draining(old)
    }

    /// A place for a connection, where the limits leave one: among those of `peer`, where it is known whose it is. That one
    /// was refused is counted and logged.
    pub(super) fn admit(&self, settings: &Listener, from: Peer, peer: Option<Peer>) -> Option<Permit> {
        let admitted = self.admission.admit(&settings.limits).and_then(|mut permit| {
            peer.map_or(Ok(()), |peer| permit.count(peer, &settings.limits))?;
            Ok(permit)
        });
        let refused = |refused: &Refused| {
            settings.metrics.refused(refused.limit());
            tracing::debug!(listener = %settings.name, peer = %from, %refused, "connection refused");
        };
        admitted.inspect_err(refused).ok()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.admission.connections()
    }

    /// What responses say of HTTP/3 on connections that come in at this address.
    pub(super) fn alt_svc(&self, local: &Bind) -> Option<AltSvc> {
        let bound = local.socket_addr().map(|addr| addr.port());
        let port = self.settings.load().exposed_port.or(bound)?;
        Some(AltSvc::new(self.announcement.clone(), port))
    }

    pub(super) fn ending(&self) -> Ending {
        let signals = self.signals.load();
        let Signals { drain, leave, cut } = &**signals;
        Ending { draining: drain.subscribe(), leaving: leave.subscribe(), cut: cut.subscribe() }
    }
}

impl Drop for Live {
    /// A listener that goes takes no further requests.
    fn drop(&mut self) {
        self.drain();
    }
}

// === impl Draining ===

impl Draining {
    /// Waits until the last of them has ended.
    pub async fn ended(&self) {
        self.0.cut.closed().await;
    }

    /// Has tunnels that know how to take leave do so, and end by themselves until then.
    pub fn leave(&self, until: Instant) {
        self.0.leave.send_replace(Some(until));
    }

    /// Ends them now, whatever is in flight.
    pub fn cut(&self) {
        self.0.cut.send_replace(true);
    }
}

// === impl Signals ===

impl Signals {
    fn new() -> Self {
        Self {
            drain: watch::Sender::new(false),
            leave: watch::Sender::new(None),
            cut: watch::Sender::new(false),
        }
    }
}

// === impl Ending ===

impl Ending {
    /// Comes with [`Draining::cut`].
    pub(super) fn cut(&self) -> Signal {
        Signal::said(self.cut.clone())
    }

    /// Turns true with [`Draining::cut`].
    pub(super) fn is_cut(&self) -> watch::Receiver<bool> {
        self.cut.clone()
    }
}

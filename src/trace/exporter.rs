//! Sends spans to a collector, beside all requests: they queue, a task sends what has gathered. The task keeps nothing
//! alive. When nobody can queue anything more it sends what is left, and ends.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    config::Protocol,
    otlp::{self, Failure},
};
use crate::{
    telemetry::metrics::Spans,
    upstream::{Authorities, Bounds, Caller, Destination, Site},
    value::{Url, Weaks},
};

/// Exporters by their settings: a reload that does not change these goes on with the same one. One per process.
pub struct Registry {
    exporters: Mutex<Weaks<Settings, Exporter>>,
    outlook: Outlook,
    metrics: Spans,
}

/// Where spans go, and what they say they come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub url: Url,
    /// Who is trusted there; without it the system's authorities.
    pub authorities: Option<Authorities>,
    pub protocol: Protocol,
    pub service_name: String,
    /// Sensitive ones: they are shown nowhere.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub timeout: Duration,
}

/// Takes spans. Tracers share it; its task ends after it.
pub struct Exporter {
    queue: mpsc::Sender<Vec<Span>>,
    /// Dropped with it, by which its task learns that nothing more comes.
    _open: watch::Sender<()>,
    outlook: Outlook,
    metrics: Spans,
    /// Until it is started.
    task: Mutex<Option<Task>>,
}

/// Sends what is queued until there is nobody who could queue more.
pub struct Task {
    inbox: mpsc::Receiver<Vec<Span>>,
    open: watch::Receiver<()>,
    outlook: Outlook,
    metrics: Spans,
    settings: Settings,
    caller: Arc<Caller>,
    site: Destination,
    /// The last message was not taken.
    fails: bool,
    /// Nothing more comes, and the collector does not answer.
    gave_up: bool,
}

/// What all exporters of the process share.
#[derive(Clone)]
struct Outlook {
    /// Spans that are queued or being sent.
    unsent: Arc<AtomicUsize>,
    /// The process ends: nothing waits for more to come.
    hurry: Arc<watch::Sender<bool>>,
}

/// Requests whose spans may wait. What comes on top is dropped.
const QUEUE: usize = 2048;
/// Spans that are worth a message.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const GATHERING: Duration = Duration::from_secs(1);
/// The first retry comes at once: a kept connection may have been closed. The pauses after it double.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The most that a collector may say.
const LONGEST_ANSWER: usize = 64 << 10;
/// How often it is looked whether all is sent.
const LOOK: Duration = Duration::from_millis(5);

// === impl Registry ===

impl Registry {
    pub fn new(metrics: Spans) -> Self {
        let outlook = Outlook { unsent: Arc::default(), hurry: Arc::new(watch::Sender::new(false)) };
        Self { exporters: Mutex::default(), outlook, metrics }
    }

    /// The exporter with these settings.
    pub fn find(&self, settings: Settings, caller: &Arc<Caller>) -> Arc<Exporter> {
        let mut exporters = self.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        exporters.find_or(settings.clone(), || {
            Exporter::new(settings, caller.clone(), self.outlook.clone(), self.metrics.clone())
        })
    }

    /// The tasks to start now that these exporters serve: those that do not run already.
    pub fn tasks(&self) -> Vec<Task> {
        let exporters = self.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        let task =
            |exporter: Arc<Exporter>| exporter.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        exporters.living().filter_map(|(_, exporter)| task(exporter)).collect()
    }

    /// Sends what is queued, by this time at the latest; from now on nothing waits for more to come.
    pub async fn flush(&self, end: Instant) {
        self.outlook.hurry.send_replace(true);
        while self.outlook.unsent.load(Ordering::Acquire) > 0 && Instant::now() < end {
            sleep(LOOK).await;
        }
        let lost = self.outlook.unsent.load(Ordering::Acquire);
        if lost > 0 {
            tracing::warn!(spans = lost, "spans were not sent: the process ends");
        }
    }
}

// === impl Exporter ===

impl Exporter {
    fn new(settings: Settings, caller: Arc<Caller>, outlook: Outlook, metrics: Spans) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let (open, closes) = watch::channel(());
        let (url, authorities) = (settings.url.clone(), settings.authorities.clone());
        let site = match settings.protocol {
            Protocol::Grpc => Site::over_http2(url, authorities),
            Protocol::Http => Site::new(url, authorities),
        };
        let task = Task {
            inbox,
            open: closes,
            outlook: outlook.clone(),
            metrics: metrics.clone(),
            settings,
            caller,
            site: Destination::Site(Arc::new(site)),
            fails: false,
            gave_up: false,
        };
        Self { queue, _open: open, outlook, metrics, task: Mutex::new(Some(task)) }
    }

    /// Queues the spans of a request. Where there is no place for them they are dropped and counted.
    pub(super) fn send(&self, spans: Vec<Span>) {
        let count = spans.len();
        self.outlook.unsent.fetch_add(count, Ordering::Release);
        if self.queue.try_send(spans).is_err() {
            self.outlook.unsent.fetch_sub(count, Ordering::Release);
            self.metrics.queue_full.inc_by(count as u64);
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

// === impl Task ===

impl Task {
    pub async fn run(mut self) {
        while let Some(spans) = self.gather().await {
            let count = spans.len();
            self.deliver(spans).await;
            self.outlook.unsent.fetch_sub(count, Ordering::Release);
        }
    }

    /// What goes in one message: what has come by the time that the first has waited long enough.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let mut spans = self.inbox.recv().await?;
        let mut hurry = self.outlook.hurry.subscribe();
        let enough = async {
            tokio::select! {
                () = sleep(GATHERING) => {}
                () = set(&mut hurry) => {}
            }
        };
        tokio::pin!(enough);
        while spans.len() < BATCH {
            tokio::select! {
                biased;
                more = self.inbox.recv() => match more {
                    Some(more) => spans.extend(more),
                    None => break,
                },
                () = &mut enough => break,
            }
        }
        Some(spans)
    }

    /// Sends them until they are taken, or never will be.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let Settings { url, protocol, service_name, headers, .. } = &self.settings;
        let message = otlp::message(spans, service_name);
        let request = otlp::request(&message, *protocol, url, headers);
        drop(message);
        let mut pause = Duration::ZERO;
        while !self.gave_up {
            let failure = match self.send(&request).await {
                Ok(rejected) => return self.delivered(count, rejected),
                Err(failure) => failure,
            };
            // What ends at the first retry is not worth a word.
            let is_retry = !pause.is_zero();
            if is_retry || !failure.may_pass {
                self.complain(&failure);
            }
            if !failure.may_pass {
                break;
            }
            self.gave_up = is_retry && self.is_last();
            self.rest(pause).await;
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        self.metrics.not_taken.inc_by(count);
    }

    async fn send(&self, request: &http::Request<bytes::Bytes>) -> Result<u64, Failure> {
        let bounds = Bounds { deadline: self.settings.timeout, body: LONGEST_ANSWER };
        let answered = self.caller.call(&self.site, request, bounds).await;
        let response = answered.map_err(|error| Failure { cause: error.to_string(), may_pass: true })?;
        otlp::outcome(&response, self.settings.protocol)
    }

    fn delivered(&mut self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.metrics.exported.inc_by(count - rejected);
        self.metrics.not_taken.inc_by(rejected);
        if std::mem::take(&mut self.fails) {
            tracing::info!(collector = %self.settings.url, "spans are sent again");
        }
    }

    /// Said once, until it is otherwise again.
    fn complain(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.fails, true) {
            let Failure { cause, .. } = failure;
            let collector = &self.settings.url;
            tracing::warn!(%collector, cause, "spans cannot be sent: what finds no place in the queue is dropped");
        }
    }

    /// Nothing more comes, so that nothing is gained by waiting.
    fn is_last(&self) -> bool {
        *self.outlook.hurry.borrow() || self.open.has_changed().is_err()
    }

    async fn rest(&mut self, pause: Duration) {
        let mut hurry = self.outlook.hurry.subscribe();
        tokio::select! {
            () = sleep(pause) => {}
            () = set(&mut hurry) => {}
            // It never changes: it is dropped.
            _ = self.open.changed() => {}
        }
    }
}

async fn set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_set| *is_set).await;
}

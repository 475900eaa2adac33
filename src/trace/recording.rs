//! What is recorded of a request. Spans are made in the form that they are exported in, and only where the trace is
//! recorded: all others cost two ids.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, SpanFlags, Status, span::SpanKind, status::StatusCode},
};

use super::{Context, SpanId, TRACESTATE, TraceId, Tracer};

/// A request's place in its trace.
pub struct Trace {
    context: Context,
    /// The place that it was caused at.
    parent: Option<SpanId>,
    recording: Option<Box<Recording>>,
}

/// The spans of a request that have ended.
struct Recording {
    tracer: Arc<Tracer>,
    /// When it began: what was measured is told by this clock.
    began: (SystemTime, Instant),
    /// What others keep in the trace (Trace Context section 3.3), as it came.
    state: String,
    spans: Vec<Span>,
}

/// A span that has ended.
pub struct Recorded {
    pub span: SpanId,
    pub name: String,
    pub kind: Kind,
    pub began: Instant,
    pub ended: Instant,
    pub attributes: Attributes,
    /// Whether it counts as failed.
    pub failed: bool,
}

/// Whose part a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that came.
    Server,
    /// A request that was sent.
    Client,
    /// Something in between.
    Internal,
}

/// What is said of a span, by the names of OpenTelemetry's semantic conventions.
#[derive(Default)]
pub struct Attributes(Vec<KeyValue>);

/// The most of a value that a client has a say in, in bytes: so that what is queued is bounded.
const LONGEST_VALUE: usize = 1024;
/// What tracestate may have at least (Trace Context section 3.3.1.5), and what is exported of one at most.
const LONGEST_STATE: usize = 512;

// === impl Trace ===

impl Trace {
    pub(super) fn begin(
        context: Context,
        parent: Option<SpanId>,
        headers: &HeaderMap,
        tracer: &Arc<Tracer>,
    ) -> Self {
        let recording = context.is_sampled().then(|| {
            Box::new(Recording {
                tracer: tracer.clone(),
                began: (SystemTime::now(), Instant::now()),
                state: state(headers),
                spans: Vec::new(),
            })
        });
        Self { context, parent, recording }
    }

    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// The request's own place: what it causes is caused there.
    pub fn context(&self) -> Context {
        self.context
    }

    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Adds what the request caused.
    pub fn add(&mut self, recorded: Recorded) {
        let parent = (self.context.span, false);
        if let Some(recording) = &mut self.recording {
            recording.add(self.context, Some(parent), recorded);
        }
    }

    /// The request's end: adds its own span, from its beginning, and exports all of them.
    pub fn end(&mut self, name: String, attributes: Attributes, failed: bool) {
        let Some(mut recording) = self.recording.take() else { return };
        let (began, ended) = (recording.began.1, Instant::now());
        let (span, kind) = (self.context.span, Kind::Server);
        let recorded = Recorded { span, name, kind, began, ended, attributes, failed };
        recording.add(self.context, self.parent.map(|parent| (parent, true)), recorded);
        recording.tracer.exporter.send(recording.spans);
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.context, f)
    }
}

// === impl Recording ===

impl Recording {
    /// `parent`: the place, and whether it is on another machine.
    fn add(&mut self, context: Context, parent: Option<(SpanId, bool)>, recorded: Recorded) {
        let remote = match parent {
            Some((_, true)) => SpanFlags::ContextIsRemoteMask as u32,
            _ => 0,
        };
        let status =
            recorded.failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() });
        self.spans.push(Span {
            trace_id: context.trace.bytes(),
            span_id: recorded.span.bytes(),
            trace_state: self.state.clone(),
            parent_span_id: parent.map_or_else(Vec::new, |(parent, _)| parent.bytes()),
            flags: context.flags() | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
            name: recorded.name,
            kind: recorded.kind.exported().into(),
            start_time_unix_nano: self.time(recorded.began),
            end_time_unix_nano: self.time(recorded.ended),
            attributes: recorded.attributes.0,
            status,
            ..Span::default()
        });
    }

    /// Nanoseconds since the epoch.
    fn time(&self, at: Instant) -> u64 {
        let (time, instant) = self.began;
        let since = (time + at.saturating_duration_since(instant)).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

fn state(headers: &HeaderMap) -> String {
    let mut fields = headers.get_all(TRACESTATE).iter().filter_map(|field| field.to_str().ok());
    let mut state = fields.next().unwrap_or_default().to_owned();
    for field in fields {
        state.push(',');
        state.push_str(field);
    }
    // Cut, it would not be one.
    if state.len() > LONGEST_STATE { String::new() } else { state }
}

// === impl Attributes ===

impl Attributes {
    pub fn text(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, Value::StringValue(value.into()));
    }

    pub fn some(&mut self, key: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// What a client has a say in: no longer than is good, and what is no UTF-8 as U+FFFD.
    pub fn told(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            let value = &value[..value.len().min(LONGEST_VALUE)];
            self.text(key, String::from_utf8_lossy(value));
        }
    }

    pub fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.put(key, Value::IntValue(value.into()));
    }

    fn put(&mut self, key: &str, value: Value) {
        self.0.push(attribute(key, value));
    }
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

// === impl Kind ===

impl Kind {
    fn exported(self) -> SpanKind {
        match self {
            Self::Server => SpanKind::Server,
            Self::Client => SpanKind::Client,
            Self::Internal => SpanKind::Internal,
        }
    }
}

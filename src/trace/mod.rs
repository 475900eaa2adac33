//! OpenTelemetry traces: where a request stands in its trace, what is recorded of it, and how that is exported.
//!
//! Every request has a place in a trace, so that whatever it causes can say so. Only where the trace is recorded are
//! spans made; they are queued when the request ends, and a task sends them. Nothing of that ever waits for a collector.

pub mod config;
mod context;
mod exporter;
mod otlp;
mod recording;

use std::sync::Arc;

use http::HeaderMap;

pub use config::Config;
pub use context::{Context, SpanId, TRACEPARENT, TRACESTATE, TraceId};
pub use exporter::{Exporter, Registry, Settings, Task};
pub use recording::{Attributes, Kind, Recorded, Trace};

use crate::value::Percent;

/// Decides which requests are recorded, and knows where their spans go.
#[derive(Debug)]
pub struct Tracer {
    /// How many of the traces that begin here are recorded.
    pub sample: Percent,
    /// Whether traces that began elsewhere are continued.
    pub trust: bool,
    pub exporter: Arc<Exporter>,
}

impl Tracer {
    /// The place of a request that begins. What it said of another one's is taken away where that is not continued.
    pub fn begin(self: &Arc<Self>, headers: &mut HeaderMap) -> Trace {
        let parent = if self.trust { Context::given(headers) } else { None };
        if parent.is_none() {
            // Of a trace that is not continued the state means nothing (Trace Context section 3.3).
            context::take_away(headers);
        }
        let context = parent.map_or_else(
            || {
                let trace = TraceId::random();
                Context::root(trace, trace.is_among(self.sample.0))
            },
            |parent| parent.with_span(SpanId::random()),
        );
        Trace::begin(context, parent.map(|parent| parent.span), headers, self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::{config::Protocol, *};
    use crate::{telemetry::metrics::Metrics, upstream::Caller};

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    fn tracer(sample: u8, trust: bool) -> Arc<Tracer> {
        let registry = Registry::new(Metrics::default().spans());
        let settings = Settings {
            url: "http://127.0.0.1:1".parse().unwrap(),
            authorities: None,
            protocol: Protocol::Grpc,
            service_name: "portolan".into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
        };
        let exporter = registry.find(settings, &Arc::new(Caller::for_tests()));
        Arc::new(Tracer { sample: Percent(sample), trust, exporter })
    }

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(traceparent).unwrap());
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        headers
    }

    #[test]
    fn who_caused_a_request_decides_whether_it_is_recorded() {
        for (sample, flag, recorded) in [(0, "1", true), (100, "0", false)] {
            let mut headers = headers(&format!("{GIVEN}{flag}"));
            let trace = tracer(sample, true).begin(&mut headers);
            assert_eq!(trace.id().to_string(), GIVEN[3..35]);
            assert_eq!(trace.is_recorded(), recorded);
            assert_ne!(trace.context().span.to_string(), GIVEN[36..52]);
            assert!(headers.contains_key(TRACESTATE));
        }
    }

    #[test]
    fn what_is_wrong_or_not_trusted_is_replaced() {
        for (traceparent, trust) in [("00-x", true), (&*format!("{GIVEN}1"), false)] {
            for (sample, recorded) in [(0, false), (100, true)] {
                let mut headers = headers(traceparent);
                let trace = tracer(sample, trust).begin(&mut headers);
                assert_eq!(trace.is_recorded(), recorded);
                assert_ne!(trace.id().to_string(), GIVEN[3..35]);
                assert!(headers.is_empty());
            }
        }
    }
}

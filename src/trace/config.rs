//! What is written of tracing.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{Duration, FieldName, FilePath, Map, Percent, Spanned, Url};

/// Tracing: which requests are recorded, and where spans are sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tracing")]
pub struct Config {
    /// The collector that spans are sent to by OTLP, as http://127.0.0.1:4317.
    pub otlp: Spanned<Url>,
    /// A PEM file with the authorities that verify the certificate of an https collector, read again when it changes.
    /// Default: the system's.
    #[serde(default)]
    pub ca: Option<Spanned<FilePath>>,
    /// The collector's protocol. Default: http if the URL has a path or the port 4318, else grpc.
    #[serde(default)]
    pub protocol: Option<Spanned<Protocol>>,
    /// The share of the traces that begin here which is recorded, as 5%. A continued trace keeps its own sampled flag.
    /// Default 100%.
    #[serde(default)]
    pub sample: Option<Spanned<Percent>>,
    /// Whether a traceparent that a client sends is continued. Default true; false begins a trace with every request.
    #[serde(default)]
    pub trust: Option<Spanned<bool>>,
    /// The service.name of the spans. Default portolan.
    #[serde(default)]
    pub service_name: Option<Spanned<String>>,
    /// Header fields of every message to the collector, as Authorization: "Bearer ${file:collector.token}".
    #[serde(default)]
    pub headers: Map<FieldName, Spanned<Hidden>>,
    /// How long the collector's answer may take, connecting included. Default 10s.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
}

/// The transport of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "TracingProtocol")]
pub enum Protocol {
    /// OTLP/gRPC, usually on port 4317
    Grpc,
    /// OTLP/HTTP with protobuf, usually on port 4318; at /v1/traces if the URL has no path
    Http,
}

/// A field value that may be a secret and is never shown.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

//! What is written of tracing.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{Duration, FieldName, FilePath, Map, Percent, Spanned, Url};

/// Which requests are traced, and where their spans go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tracing")]
pub struct Config {
    /// The collector that spans are sent to by OTLP, as http://127.0.0.1:4317.
    pub otlp: Spanned<Url>,
    /// A PEM file with the authorities that the certificate of an https collector is held against, read again when it
    /// changes. Default: the system's.
    #[serde(default)]
    pub ca: Option<Spanned<FilePath>>,
    /// What the collector speaks. Default: http where the URL has a path or the port 4318, grpc else.
    #[serde(default)]
    pub protocol: Option<Spanned<Protocol>>,
    /// How many of the traces that begin here are recorded, as 5%. Those that began elsewhere say by themselves whether
    /// they are. Default 100%.
    #[serde(default)]
    pub sample: Option<Spanned<Percent>>,
    /// Whether a traceparent that a client sends is continued. Default true; false begins a trace with every request.
    #[serde(default)]
    pub trust: Option<Spanned<bool>>,
    /// What the spans say they come from. Default portolan.
    #[serde(default)]
    pub service_name: Option<Spanned<String>>,
    /// Fields that every message to the collector carries, as Authorization: "Bearer ${file:collector.token}".
    #[serde(default)]
    pub headers: Map<FieldName, Spanned<Hidden>>,
    /// How long the collector's answer may take, connecting included. Default 10s.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "TracingProtocol")]
pub enum Protocol {
    /// OTLP/gRPC: by custom on port 4317
    Grpc,
    /// OTLP/HTTP with protobuf: by custom on port 4318, at /v1/traces where the URL has no path
    Http,
}

/// A field's value that may be a secret: it is shown nowhere.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

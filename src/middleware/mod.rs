//! What happens to a request before its action and to the response after it: one file per kind, one line
//! in the list.
//!
//! A part registers only for the phases that it acts in, works on `http` types, and has no side effect
//! before it refuses: `mode: observe` is the chain's doing. Waiting alone allocates.

pub mod api_key;
mod auth;
pub mod bandwidth;
pub mod basic_auth;
pub mod body_limit;
pub mod buffer;
pub mod canonical_host;
mod capacity;
mod chain;
pub mod compress;
pub mod concurrency;
pub mod content_types;
pub mod cors;
pub mod decompress;
pub mod early_hints;
mod exchange;
pub mod forward_auth;
mod header_edits;
pub mod header_limits;
pub mod ip;
pub mod jwt;
pub mod limit;
pub mod maintenance;
pub mod methods;
pub mod mtls;
pub mod rate_limit;
pub mod recover;
pub mod request_headers;
pub mod request_id;
pub mod response_headers;
pub mod security_headers;
pub mod validate;
mod world;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::Diagnostics,
    error::{RETRY_AFTER, Reason},
    http::errors::{Page, Violation},
    value::Span,
};

pub use auth::{Source, conceal};
pub use buffer::Held;
pub use capacity::{HeavyWork, Window, Windows};
pub use chain::{Builder, Chain, Item, Part, Site, Stop};
pub use exchange::{Exchange, Routed};
pub use header_limits::HeadSize;
pub use world::{Calls, Files, IsTorn, World};

/// The list: module, configuration variant and kind of every middleware, in the order of the reference.
macro_rules! kinds {
    ($($variant:ident = $module:ident,)*) => {
        /// A middleware with its settings, as written.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "Middleware")]
        pub enum Config {
            $($variant($module::Config),)*
        }

        impl Config {
            /// Every kind there is.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($module),)*];

            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module),)* }
            }

            /// Whether a chain may hold several of this kind, which add up, instead of the inner one
            /// replacing the outer one.
            pub fn adds_up(&self) -> bool {
                match self { $(Self::$variant(_) => $module::ADDS_UP,)* }
            }

            fn install(&self, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
                match self { $(Self::$variant(config) => $module::install(config, cx, chain),)* }
            }
        }
    };
}

kinds! {
    Recover = recover,
    RequestId = request_id,
    RequestHeaders = request_headers,
    ResponseHeaders = response_headers,
    SecurityHeaders = security_headers,
    Compress = compress,
    Cors = cors,
    EarlyHints = early_hints,
    CanonicalHost = canonical_host,
    Ip = ip,
    Maintenance = maintenance,
    Methods = methods,
    ContentTypes = content_types,
    HeaderLimits = header_limits,
    BodyLimit = body_limit,
    Buffer = buffer,
    Decompress = decompress,
    Validate = validate,
    RateLimit = rate_limit,
    Concurrency = concurrency,
    Bandwidth = bandwidth,
    BasicAuth = basic_auth,
    ApiKey = api_key,
    Jwt = jwt,
    ForwardAuth = forward_auth,
    Mtls = mtls,
}

/// What a middleware is compiled with.
pub struct Context<'a> {
    /// The names of the route's captures; empty for what stands outside a route.
    pub captures: &'a [&'a str],
    /// Where the middleware is written.
    pub span: Span,
    /// The same as it is known over reloads.
    pub place: &'a limit::Place,
    pub world: &'a World<'a>,
    pub diagnostics: &'a mut Diagnostics,
}

/// The request half of a middleware.
pub trait OnRequest: Send + Sync {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a>;

    /// Asked where another part has rejected the request and tells the client when to retry: for how many seconds this part
    /// would reject it. It changes no count.
    fn rejects_for<'a>(&'a self, _: &'a mut Exchange) -> RejectsFor<'a> {
        RejectsFor::Known(None)
    }
}

/// For how many seconds a part would reject a request.
pub enum RejectsFor<'a> {
    Known(Option<u64>),
    Wait(Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>>),
}

/// What looks at a request's body before the action, when all of the request half has passed.
pub trait OnBody: Send + Sync {
    fn on_body<'a>(&'a self, exchange: &'a mut Exchange, body: &'a Held) -> Next<'a>;
}

/// The response half of a middleware.
pub trait OnResponse: Send + Sync {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts);
}

/// Where a request goes from a middleware.
pub enum Next<'a> {
    /// On to the next one.
    Continue,
    /// Back, with this answer.
    Answer(Box<http::Response<Bytes>>),
    /// Back, with an error in the route's form; onwards where the part only observes.
    Refuse(Box<Refusal>),
    /// Not known yet.
    Wait(Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>),
}

/// What came of waiting.
pub enum Verdict {
    Continue,
    Answer(Box<http::Response<Bytes>>),
    Refuse(Box<Refusal>),
}

impl From<Result<(), Box<Refusal>>> for Verdict {
    fn from(said: Result<(), Box<Refusal>>) -> Self {
        match said {
            Ok(()) => Self::Continue,
            Err(refusal) => Self::Refuse(refusal),
        }
    }
}

/// Why a request goes no further.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reason: Reason,
    /// The status, where it is another than the reason's.
    pub status: Option<StatusCode>,
    /// What is shown in the place of an error in the route's form.
    pub page: Option<Page>,
    /// What the error carries beside its own fields, as Retry-After.
    pub fields: HeaderMap,
    /// What is wrong with the request, one by one, for errors in JSON.
    pub violations: Vec<Violation>,
    /// What the access log says of it and the client is not told.
    pub cause: Option<&'static str>,
}

/// Whether a part that refuses does so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Mode")]
pub enum Mode {
    /// Requests are refused.
    #[default]
    Enforce,
    /// Requests go on; the access log says in `observed` what would have been refused.
    Observe,
}

impl Refusal {
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            status: None,
            page: None,
            fields: HeaderMap::new(),
            violations: Vec::new(),
            cause: None,
        }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.append(name, value);
        self
    }

    /// Makes Retry-After at least so long.
    pub fn prolong(&mut self, seconds: u64) {
        if !self.fields.contains_key(header::RETRY_AFTER) {
            self.fields.insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        prolong(&mut self.fields, seconds);
    }

    /// Whether the client is told when to retry.
    pub fn tells_when(&self) -> bool {
        let status = self.status.unwrap_or_else(|| self.reason.status());
        self.fields.contains_key(header::RETRY_AFTER) || status == StatusCode::SERVICE_UNAVAILABLE
    }

    pub fn because(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }
}

/// Makes Retry-After at least so long, where there is one: a client that waits as it is told is not to be rejected again for a
/// reason that was known.
fn prolong(fields: &mut HeaderMap, seconds: u64) {
    let said = fields.get(header::RETRY_AFTER).and_then(|said| said.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| said < seconds) {
        fields.insert(header::RETRY_AFTER, seconds.into());
    }
}

impl From<Refusal> for Next<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(Box::new(refusal))
    }
}

#[cfg(test)]
impl<'a> Context<'a> {
    fn for_tests(world: &'a World<'a>, diagnostics: &'a mut Diagnostics) -> Self {
        static PLACE: std::sync::LazyLock<limit::Place> =
            std::sync::LazyLock::new(|| limit::Place::Named("test".parse().expect("a name")));
        Self { captures: &[], span: Span::default(), place: &PLACE, world, diagnostics }
    }
}

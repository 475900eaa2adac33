//! Which requests are tried again, how often, and after what wait.

mod after;
mod backoff;
mod budget;
mod compile;
pub mod config;
mod hedge;

use std::{ops::RangeInclusive, time::Duration};

use http::{Method, StatusCode};

pub use after::after;
pub use backoff::Backoff;
pub use budget::{Budget, Limit};
pub(super) use compile::policy;
pub use hedge::{After, Hedge, ResponseTimes};

/// The `retry` of an upstream.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Further tries that a request may have.
    pub retries: u8,
    pub when: When,
    pub methods: Methods,
    /// How long a try may take until the response's head.
    pub per_try_timeout: Option<Duration>,
    pub backoff: Backoff,
    /// A longer Retry-After is not waited for.
    pub max_retry_after: Duration,
    pub budget: Limit,
    /// Further attempts beside one that is slow.
    pub hedge: Option<Hedge>,
}

/// What is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    pub connect_failure: bool,
    /// The connection broke before the response's head.
    pub reset: bool,
    /// `per_try_timeout` ended.
    pub timeout: bool,
    pub statuses: Box<[RangeInclusive<u16>]>,
}

/// Which requests may be repeated where an endpoint may have acted on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    Idempotent,
    Any,
    These(Box<[Method]>),
}

/// Why a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ConnectFailure,
    Reset,
    Timeout,
    Status,
    /// The response's head took too long: another attempt runs beside.
    Hedge,
}

/// How many tries a request has where nothing else is said.
pub const RETRIES: u8 = 2;

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: RETRIES,
            when: When::default(),
            methods: Methods::Idempotent,
            per_try_timeout: None,
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(1),
            budget: Limit::default(),
            hedge: None,
        }
    }
}

impl Default for When {
    fn default() -> Self {
        Self { connect_failure: true, reset: true, timeout: true, statuses: Box::default() }
    }
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect_failure",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Hedge => "hedge",
        }
    }
}

impl When {
    pub fn has(&self, cause: Cause) -> bool {
        match cause {
            Cause::ConnectFailure => self.connect_failure,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Status => !self.statuses.is_empty(),
            Cause::Hedge => false,
        }
    }

    pub fn has_status(&self, status: StatusCode) -> bool {
        self.statuses.iter().any(|range| range.contains(&status.as_u16()))
    }
}

impl Methods {
    pub fn allow(&self, method: &Method) -> bool {
        match self {
            Self::Idempotent => method.is_idempotent(),
            Self::Any => true,
            Self::These(methods) => methods.contains(method),
        }
    }
}

//! What a request's record needs of its head, kept while the head itself is edited.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request};

use crate::{
    http::{seen::Seen, target},
    snapshot::Route,
    telemetry::access_log::{AccessLog, Chosen},
    trace::Trace,
};

/// A request as it came. What was not read is not there.
pub(super) struct Asked {
    pub method: Option<Method>,
    pub authority: Option<HeaderValue>,
    target: Target,
    pub version: Option<Version>,
    pub referer: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    /// Those that its log asks for.
    pub fields: Vec<Option<HeaderValue>>,
    pub at: SystemTime,
    /// `None`: it is not logged, whatever becomes of it.
    pub chosen: Option<Chosen>,
}

/// Path and query as they came.
pub(super) enum Target {
    Uri(Uri),
    Raw(target::Raw),
    Seen(Option<Bytes>),
}

impl Target {
    pub fn of(head: &request::Parts) -> Self {
        match head.extensions.get::<target::Raw>() {
            None => Self::Uri(head.uri.clone()),
            Some(raw) => Self::Raw(raw.clone()),
        }
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Uri(uri) => Some(uri.path_and_query().map_or("", |target| target.as_str()).as_bytes()),
            Self::Raw(raw) => Some(raw.as_bytes()),
            Self::Seen(target) => target.as_deref(),
        }
    }
}

impl Asked {
    /// `None` where the request is neither logged nor recorded, whatever becomes of it.
    pub fn of(
        head: &request::Parts,
        target: Target,
        route: &Route,
        trace: Option<&Trace>,
    ) -> Option<Box<Self>> {
        let mut asked = Self::with(&head.headers, target, route, trace)?;
        (asked.method, asked.version) = (Some(head.method.clone()), Some(head.version));
        Some(asked)
    }

    /// The same of a request that is rejected by its head.
    pub fn of_seen(seen: Seen, route: &Route, trace: Option<&Trace>) -> Option<Box<Self>> {
        let Seen { method, target, version, headers } = seen;
        let mut asked = Self::with(&headers, Target::Seen(target), route, trace)?;
        (asked.method, asked.version) = (method, version);
        Some(asked)
    }

    fn with(headers: &HeaderMap, target: Target, route: &Route, trace: Option<&Trace>) -> Option<Box<Self>> {
        let log = route.access_log.as_ref();
        let chosen = log.and_then(|log| log.selection().choose());
        if chosen.is_none() && !trace.is_some_and(Trace::is_recorded) {
            return None;
        }
        let fields = log.filter(|_| chosen.is_some()).map_or(&[][..], AccessLog::fields);
        let (mut authority, mut referer, mut user_agent) = (None, None, None);
        // One look at all names costs less than a hash of each that is wanted. The first of several counts.
        for (name, value) in headers {
            let place = match *name {
                header::HOST => &mut authority,
                header::REFERER => &mut referer,
                header::USER_AGENT => &mut user_agent,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        let field = |name: &HeaderName| headers.get(name).cloned();
        Some(Box::new(Self {
            method: None,
            authority: authority.cloned(),
            target,
            version: None,
            referer: referer.cloned(),
            user_agent: user_agent.cloned(),
            fields: fields.iter().map(field).collect(),
            at: SystemTime::now(),
            chosen,
        }))
    }

    /// Path and query as they came.
    pub fn target(&self) -> Option<&[u8]> {
        self.target.as_bytes()
    }
}

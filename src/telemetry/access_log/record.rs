//! What a line says.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method};

use crate::{
    error::Reason,
    value::{Name, Variables},
};

/// A request and what became of it. What a client sent is bytes: it need not be text.
#[derive(Clone)]
pub struct Record<'a> {
    /// When its head had arrived.
    pub time: SystemTime,
    /// Made by Portolan, or of characters that need no escape.
    pub request_id: Option<&'a str>,
    pub trace_id: Option<&'a dyn std::fmt::Display>,
    pub client_ip: IpAddr,
    /// The authenticated user.
    pub user: Option<&'a [u8]>,
    /// The method, the target and the protocol are `None` where they were not read.
    pub method: Option<&'a Method>,
    pub scheme: &'static str,
    /// The host that was asked for, its port included where it has one.
    pub authority: Option<&'a [u8]>,
    /// Path and query as they came.
    pub target: Option<&'a [u8]>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: Option<&'static str>,
    pub status: u16,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// From the head's arrival to the response's end.
    pub duration: Duration,
    /// From the request's sending to the upstream's head.
    pub first_byte: Option<Duration>,
    /// What connecting took; absent on a connection that was there already.
    pub connect: Option<Duration>,
    /// How long it waited for a place among an upstream's requests in flight; absent where it did not.
    pub queued: Option<Duration>,
    pub listener: &'a Name,
    /// The host's name in the configuration.
    pub host: Option<&'a Name>,
    pub tenant: Option<&'a Name>,
    pub route: Option<&'a Name>,
    pub upstream: Option<&'a Name>,
    /// The side of a split.
    pub split: Option<&'a Name>,
    pub endpoint: Option<&'a str>,
    /// Endpoints tried.
    pub attempts: u32,
    /// Those of them that started beside a slow one.
    pub hedges: u32,
    /// How a circuit breaker that is not closed dealt with it: open or half_open.
    pub circuit: Option<&'a str>,
    /// What became of a sticky session: hit, moved or new.
    pub sticky: Option<&'static str>,
    /// The stable code of an answer that Portolan made itself.
    pub reason: Option<&'static str>,
    /// What made a part of the chain refuse it, more closely than the client is told.
    pub cause: Option<&'a str>,
    /// The codes for which parts of the chain that only observe would have refused it.
    pub observed: &'a [Reason],
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    pub tls_version: Option<&'static str>,
    /// The request's fields that the log asks for, in its order.
    pub fields: &'a [Option<HeaderValue>],
    /// What every template can say.
    pub variables: &'a dyn Variables,
}

impl Record<'_> {
    /// The target's path and its query.
    pub(super) fn path_and_query(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        let Some(target) = self.target else { return (None, None) };
        match target.iter().position(|byte| *byte == b'?') {
            Some(at) => (Some(&target[..at]), Some(&target[at + 1..])),
            None => (Some(target), None),
        }
    }
}

#[cfg(test)]
struct Named;

#[cfg(test)]
impl Variables for Named {
    fn capture(&self, _: usize) -> &str {
        ""
    }

    fn variable(&self, variable: crate::value::Variable, out: &mut String) {
        out.push_str(&format!("<{}>", variable.name()));
    }
}

#[cfg(test)]
impl Record<'static> {
    pub(super) fn for_tests() -> Self {
        static NAMES: std::sync::LazyLock<[Name; 4]> =
            std::sync::LazyLock::new(|| ["web", "www", "all", "origin"].map(|name| name.parse().unwrap()));
        let [web, www, all, origin] = &*NAMES;
        Self {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: Some("id-1"),
            trace_id: Some(&"0af7651916cd43dd8448eb211c80319c"),
            client_ip: IpAddr::from([192, 0, 2, 1]),
            user: None,
            method: Some(&Method::GET),
            scheme: "https",
            authority: Some(b"www.example.com"),
            target: Some(b"/a/b?c=d"),
            protocol: Some("HTTP/1.1"),
            status: 200,
            received: 0,
            sent: 5,
            duration: Duration::from_micros(1_234_567),
            first_byte: Some(Duration::from_micros(900)),
            connect: None,
            queued: None,
            listener: web,
            host: Some(www),
            tenant: None,
            route: Some(all),
            upstream: Some(origin),
            split: None,
            endpoint: Some("10.0.0.1:80"),
            attempts: 1,
            hedges: 0,
            circuit: None,
            sticky: None,
            reason: None,
            cause: None,
            observed: &[],
            referer: None,
            user_agent: Some(b"curl/8"),
            tls_version: Some("TLSv1.3"),
            fields: &[],
            variables: &Named,
        }
    }
}

//! Sends requests for a host's other names to the one that it goes by.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Next, OnRequest};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::authority::Authority,
    value::{Spanned, Status},
};

pub const ADDS_UP: bool = false;

/// Redirects requests for a host's other names to the one that it goes by, with their path and query. The scheme is the
/// one by which the client came, as a trusted proxy or `expose` of the listener says it; the port is that of `expose`,
/// else the one that was asked for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CanonicalHost")]
pub struct Config {
    /// The name, as www.example.com: without a port.
    pub to: Spanned<String>,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default)]
    pub status: Option<Spanned<Status>>,
}

struct CanonicalHost {
    /// As [`Authority`] gives hosts.
    name: Box<str>,
    status: StatusCode,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    let (name, status) = (name(&config.to, cx), status(config.status.as_ref(), cx));
    if let (Some(name), Some(status)) = (name, status) {
        chain.on_request(Arc::new(CanonicalHost { name, status }));
    }
}

fn name(written: &Spanned<String>, cx: &mut Context<'_>) -> Option<Box<str>> {
    let (reason, help) = match Authority::parse(written) {
        Ok(Authority { host, port: None }) => return Some(host.into()),
        Ok(Authority { host, .. }) => ("it has a port", Some(format!("did you mean {host}?"))),
        Err(_) => ("it is a name without scheme and path", None),
    };
    let message = format!("{:?} is no name of a host", written.value);
    let problem = Diagnostic::error(Code::BadValue, written.span, message).reason(reason);
    cx.diagnostics.push(problem.maybe_help(help));
    None
}

fn status(written: Option<&Spanned<Status>>, cx: &mut Context<'_>) -> Option<StatusCode> {
    let Some(written) = written else { return Some(StatusCode::PERMANENT_REDIRECT) };
    if matches!(written.0.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Some(written.0);
    }
    let message = format!("{} is no status of a redirect", written.0.as_u16());
    let problem = Diagnostic::error(Code::BadValue, written.span, message);
    cx.diagnostics.push(
        problem.help("301 and 308 are for good, 302, 303 and 307 for now; 307 and 308 keep the method"),
    );
    None
}

impl OnRequest for CanonicalHost {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        // Who names no host would do so again, and what is of no host of ours has no other name.
        let is_ours = exchange.routed.host.is_some() && !exchange.host.is_empty();
        if !is_ours || *exchange.host == *self.name {
            return Next::Continue;
        }
        let Ok(location) = HeaderValue::try_from(self.location(exchange)) else { return Next::Continue };
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = self.status;
        answer.headers_mut().insert(header::LOCATION, location);
        Next::Answer(Box::new(answer))
    }
}

impl CanonicalHost {
    fn location(&self, exchange: &Exchange) -> String {
        let (scheme, is_encrypted) = (exchange.scheme, exchange.connection.tls.is_some());
        let port = exchange.expose.port(scheme, is_encrypted, asked_port(exchange));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let target = exchange.head.uri.path_and_query().map_or("/", |target| target.as_str());
        format!("{scheme}://{}{port}{target}", self.name)
    }
}

fn asked_port(exchange: &Exchange) -> Option<u16> {
    Authority::parse(exchange.head.headers.get(header::HOST)?.to_str().ok()?).ok()?.port
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::external::Expose;

    const HTTPS: Expose = Expose { is_https: Some(true), port: Some(443) };

    fn location(host: &str, field: &str, expose: Expose) -> Option<String> {
        let part = CanonicalHost { name: "www.example.com".into(), status: StatusCode::PERMANENT_REDIRECT };
        let mut exchange = Exchange::for_tests("GET", "/a%20b?x=1");
        exchange.head.headers.insert(header::HOST, field.parse().unwrap());
        let routed = crate::middleware::Routed {
            host: Some("www".parse().unwrap()),
            tenant: None,
            route: "all".parse().unwrap(),
        };
        (exchange.host, exchange.expose, exchange.routed) = (host.into(), expose, Arc::new(routed));
        exchange.scheme = expose.scheme(false);
        match part.on_request(&mut exchange) {
            Next::Answer(answer) => Some(answer.headers()[header::LOCATION].to_str().unwrap().to_owned()),
            _ => None,
        }
    }

    #[test]
    fn other_names_are_sent_to_the_one() {
        let none = Expose::default();
        assert_eq!(
            location("example.com", "example.com", none).as_deref(),
            Some("http://www.example.com/a%20b?x=1")
        );
        assert_eq!(
            location("example.com", "example.com:8080", none).as_deref(),
            Some("http://www.example.com:8080/a%20b?x=1")
        );
        assert_eq!(
            location("example.com", "example.com:8080", HTTPS).as_deref(),
            Some("https://www.example.com/a%20b?x=1")
        );
        let other = Expose { is_https: None, port: Some(8080) };
        assert_eq!(
            location("example.com", "example.com", other).as_deref(),
            Some("http://www.example.com:8080/a%20b?x=1")
        );
    }

    #[test]
    fn nobody_is_sent_in_a_circle() {
        for host in ["www.example.com", ""] {
            assert_eq!(location(host, "WWW.Example.com.:80", HTTPS), None, "{host:?}");
        }
    }
}

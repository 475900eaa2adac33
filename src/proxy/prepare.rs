//! What is made of a request's head before the chain, where it goes on: what belongs to the client's connection is taken
//! away, what whoever is asked is to know is added.

use http::{HeaderName, HeaderValue, Version, header, request};

use super::arrival::{Arrival, Plan};
use crate::{
    http::{
        forwarded::{self, Hop},
        hop_by_hop, websocket,
    },
    snapshot::Listener,
    trace::{TRACEPARENT, Trace},
};

/// Makes of the head that came the one that goes on: without what is the connection's own, with what the
/// upstream is told of the client.
pub(super) fn prepare(
    head: &mut request::Parts,
    arrival: &Arrival,
    hop: &Hop,
    listener: &Listener,
    trace: Option<&Trace>,
) {
    let is_proxied = matches!(arrival.plan, Plan::Send(_));
    if !arrival.plan.goes_on(&arrival.route.action) {
        return;
    }
    let upgrade = match head.version {
        Version::HTTP_11 => upgrade(head),
        _ => websocket::connect(head).map(|_| HeaderValue::from_static(websocket::NAME)),
    };
    hop_by_hop::strip(&mut head.headers);
    // We answer it by ourselves, when the body is asked for.
    if hop_by_hop::has_rare(&head.headers, &header::EXPECT) {
        head.headers.remove(header::EXPECT);
    }
    if let Some(protocol) = upgrade {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
    }
    if arrival.early {
        head.headers.insert(EARLY_DATA, HeaderValue::from_static("1"));
    }
    let trust = listener.trusted_proxies.as_ref();
    match is_proxied {
        true => forwarded::conceal(&mut head.headers, head.version),
        false => forwarded::tell(&mut head.headers, head.version, &arrival.client, hop, trust),
    }
    // Where the trace is recorded, each attempt to come says where it stands in it.
    if let Some(trace) = trace.filter(|trace| !trace.is_recorded()) {
        head.headers.insert(TRACEPARENT, trace.context().traceparent());
    }
}

/// Says that the request may be a replay (RFC 8470 section 5.1).
const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// The protocol that the client wants to go over to (RFC 9110 section 7.8). Not another HTTP and not TLS:
/// behind a tunnel of these, requests would pass without a route.
fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    if !hop_by_hop::has_rare(&head.headers, &header::UPGRADE) {
        return None;
    }
    let protocol = head.headers.get(header::UPGRADE)?;
    let asked = head.headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    (asked && !names_http_or_tls(protocol)).then(|| protocol.clone())
}

fn names_http_or_tls(protocols: &HeaderValue) -> bool {
    protocols.as_bytes().split(|b| *b == b',').any(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default().trim_ascii();
        [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_may_be_asked_for_and_another_http_not() {
        let names = |text| names_http_or_tls(&HeaderValue::from_static(text));
        assert!(!names("websocket") && !names("tcp") && !names("SPDY/3.1"));
        assert!(names("h2c") && names("websocket,H2C") && names("HTTP/2.0") && names("TLS/1.0"));
    }
}

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
    // HTTP/1.0 does not know it (RFC 9110 section 10.1.1).
    if head.version == Version::HTTP_10 && hop_by_hop::has_rare(&head.headers, &header::EXPECT) {
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

/// The protocols that the client offers to switch to (RFC 9110 section 7.8), of all lines. Without other versions of HTTP and
/// TLS: in a tunnel of these, requests would pass without a route.
fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    if !hop_by_hop::has_rare(&head.headers, &header::UPGRADE) {
        return None;
    }
    let elements = |name| {
        let lines = head.headers.get_all(name).iter();
        lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
    };
    let asked = elements(header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let offered =
        elements(header::UPGRADE).filter(|protocol| !protocol.is_empty() && !is_http_or_tls(protocol));
    let offered: Vec<_> = offered.collect();
    (asked && !offered.is_empty())
        .then(|| HeaderValue::from_bytes(&offered.join(&b", "[..])).expect("elements of fields make a field"))
}

fn is_http_or_tls(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or_default().trim_ascii();
    [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(lines: &[&'static str]) -> Option<String> {
        let mut head = http::Request::new(()).into_parts().0;
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        for line in lines {
            head.headers.append(header::UPGRADE, HeaderValue::from_static(line));
        }
        upgrade(&head).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn another_http_is_left_out_of_what_a_client_offers() {
        for (lines, left) in [
            (&["websocket"][..], Some("websocket")),
            (&["SPDY/3.1"], Some("SPDY/3.1")),
            (&["websocket,H2C"], Some("websocket")),
            (&["h2c, websocket"], Some("websocket")),
            (&["h2c", "a, b"], Some("a, b")),
            (&["a", "TLS/1.0"], Some("a")),
            (&["h2c"], None),
            (&["HTTP/2.0, h2"], None),
            (&["TLS/1.0"], None),
            (&[", ,"], None),
            (&[], None),
        ] {
            assert_eq!(offered(lines).as_deref(), left, "{lines:?}");
        }
    }
}

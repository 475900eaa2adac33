//! Fields that mean one connection only (RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes away what does not go on: the fields that Connection names, and those that are known to.
/// `te: trailers` stays where it was asked for, since gRPC needs to know (RFC 9110 section 10.1.4).
pub fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(is_connections_own) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        strip_named(headers);
    }
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if let Some(te) = headers.get(header::TE) {
        let trailers = te
            .as_bytes()
            .split(|b| *b == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        match trailers {
            true => drop(headers.insert(header::TE, http::HeaderValue::from_static("trailers"))),
            false => drop(headers.remove(header::TE)),
        }
    }
}

fn is_connections_own(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" | "te"
    )
}

/// Whether a field is there that hardly ever is: a look at the names costs less than a hash of one.
pub fn has_rare(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
}

/// Whether the field frames, routes or secures a message, and so must not come in trailers
/// (RFC 9110 section 6.5.1).
pub fn forbidden_in_trailers(name: &HeaderName) -> bool {
    const FORBIDDEN: [HeaderName; 14] = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
    ];
    FORBIDDEN.contains(name)
}

/// Fields that a client must not have taken away by naming them in Connection.
fn protected(name: &[u8]) -> bool {
    [
        &b"host"[..],
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"forwarded",
        b"content-length",
    ]
    .iter()
    .any(|protected| name.eq_ignore_ascii_case(protected))
}

fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !protected(name) && !name.eq_ignore_ascii_case(b"te"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    named.into_iter().for_each(|name| drop(headers.remove(name)));
    headers.remove(header::CONNECTION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_is_taken_away_but_not_what_is_protected() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop, Host"),
            ("x-hop", "1"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("x-end", "2"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "te", "x-end"]);
        assert_eq!(headers["te"], "trailers");
    }
}

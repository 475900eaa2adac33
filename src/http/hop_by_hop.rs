//! Fields that mean one connection only (RFC 9110 section 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use super::field_name::{describes_client, imitates_guarded};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes away what does not go on: the fields that Connection names, and those that are known to.
/// `te: trailers` stays where it was asked for, since gRPC needs to know (RFC 9110 section 10.1.4).
pub fn strip(headers: &mut HeaderMap) {
    let found = found(headers);
    for (place, name) in CONNECTIONS_OWN.iter().enumerate().filter(|(place, _)| found & (1 << place) != 0) {
        match place {
            CONNECTION => strip_named(headers),
            TE => keep_trailers(headers),
            _ => drop(headers.remove(name)),
        }
    }
}

const CONNECTIONS_OWN: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];
const CONNECTION: usize = 0;
const TE: usize = 1;

/// Which of [`CONNECTIONS_OWN`] are there, a bit for each: one look at the names costs less than a hash of each.
fn found(headers: &HeaderMap) -> u8 {
    let place = |name: &HeaderName| match *name {
        header::CONNECTION => 1 << CONNECTION,
        header::TE => 1 << TE,
        header::TRANSFER_ENCODING => 1 << 2,
        header::UPGRADE => 1 << 3,
        _ if *name == KEEP_ALIVE => 1 << 4,
        _ if *name == PROXY_CONNECTION => 1 << 5,
        _ => 0,
    };
    headers.keys().fold(0, |found, name| found | place(name))
}

fn keep_trailers(headers: &mut HeaderMap) {
    let codings = headers.get_all(header::TE);
    let trailers = codings
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    match trailers {
        true => drop(headers.insert(header::TE, HeaderValue::from_static("trailers"))),
        false => drop(headers.remove(header::TE)),
    }
}

/// The first value of a field that is among the first ones where it is there: a look at the names costs less than a hash.
pub fn find<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

/// Whether a field is there that hardly ever is: a look at the names costs less than a hash of one.
pub fn has_rare(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
}

/// Which of these fields are there, by one look at the names for all of them.
pub fn which<const N: usize>(headers: &HeaderMap, names: [&HeaderName; N]) -> [bool; N] {
    let mut there = [false; N];
    for name in headers.keys() {
        if let Some(at) = names.iter().position(|wanted| *wanted == name) {
            there[at] = true;
        }
    }
    there
}

/// Whether the field frames, routes or secures a message, and so must not come in trailers
/// (RFC 9110 section 6.5.1).
pub fn forbidden_in_trailers(name: &HeaderName) -> bool {
    const FORBIDDEN: [HeaderName; 17] = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::PROXY_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
    ];
    FORBIDDEN.contains(name)
        || protected(name.as_str().as_bytes())
        || describes_client(name.as_str())
        || imitates_guarded(name)
}

/// Leaves out trailers that frame, route or secure a message.
pub fn retain_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<_> = trailers.keys().filter(|name| forbidden_in_trailers(name)).cloned().collect();
    forbidden.iter().for_each(|name| drop(trailers.remove(name)));
}

/// Fields that a client must not have taken away by naming them in Connection, nor say behind a body.
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
    let Entry::Occupied(lines) = headers.entry(header::CONNECTION) else { return };
    let mut named = Vec::new();
    for line in lines.iter() {
        let options = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let fields = options.filter(|option| !is_no_field(option) && !protected(option));
        named.extend(fields.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    lines.remove();
    named.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// What Connection says most: of the connection itself. TE and Keep-Alive are dealt with where they stand.
fn is_no_field(option: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"te"].iter().any(|other| option.eq_ignore_ascii_case(other))
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

    #[test]
    fn trailers_authenticate_nobody() {
        for name in
            ["authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "cookie"]
        {
            assert!(forbidden_in_trailers(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["grpc-status", "server-timing", "content-digest"] {
            assert!(!forbidden_in_trailers(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn every_field_that_is_the_connections_own_is_taken_away() {
        for name in CONNECTIONS_OWN {
            let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
            headers.append(name.clone(), HeaderValue::from_static("y"));
            strip(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
    }
}

//! What proxies tell each other about the client: X-Forwarded-*, Forwarded (RFC 7239), Via (RFC 9110 section 7.6.3).
//!
//! A list is read as bytes and from its end: a trusted proxy appends a sound element to whatever a client has written before.

use std::{fmt::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{
    field_name::{describes_client, remove_matching},
    hop_by_hop::find,
    list,
};
use crate::value::Cidr;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whose word about the client is taken, and by which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    pub from: Box<[Cidr]>,
    pub field: Field,
}

/// The field that names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    XForwardedFor,
    Forwarded,
}

/// The hop before us: who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub ip: IpAddr,
    /// The address as it stands in fields.
    field: HeaderValue,
}

/// The client as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub ip: IpAddr,
    pub scheme: &'static str,
    /// Whether the peer's own word was taken, so that what it said goes on.
    pub peer_is_trusted: bool,
}

impl Hop {
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, field: field(ip.to_string().as_bytes()) }
    }
}

impl Trust {
    fn holds(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(ip))
    }

    /// Walks from trusted proxy to trusted proxy. Who is named by what is no address cannot be known: the walk ends at the
    /// proxy that says so.
    fn nearest_stranger(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut ip = peer;
        for hop in hops {
            let Some(address) = hop else { break };
            ip = address;
            if !self.holds(address) {
                break;
            }
        }
        ip
    }
}

/// Finds the client: the peer, or behind trusted peers the nearest address that is not trusted. `scheme` is the one that
/// holds where no trusted proxy says another.
pub fn client(peer: IpAddr, scheme: &'static str, headers: &HeaderMap, trust: Option<&Trust>) -> Client {
    let Some(trust) = trust.filter(|trust| trust.holds(peer)) else {
        return Client { ip: peer, scheme, peer_is_trusted: false };
    };
    let (ip, said) = match trust.field {
        Field::XForwardedFor => {
            let hops = elements(headers, &X_FORWARDED_FOR).map(address);
            (
                trust.nearest_stranger(peer, hops),
                elements(headers, &X_FORWARDED_PROTO).next().and_then(known_scheme),
            )
        }
        Field::Forwarded => {
            let mut said = None;
            let hops = quoted_elements(headers, &header::FORWARDED).map(|element| {
                // The proxy that names the client says also how the client came to it.
                said = parameter(element, b"proto").and_then(|proto| known_scheme(&proto)).or(said);
                parameter(element, b"for").and_then(|hop| address(&hop))
            });
            (trust.nearest_stranger(peer, hops), said)
        }
    };
    Client { ip, scheme: said.unwrap_or(scheme), peer_is_trusted: true }
}

/// Removes what a stranger says about the client.
pub fn drop_claims(headers: &mut HeaderMap) {
    remove_matching(headers, |name| describes_client(name.as_str()));
}

/// Tells the upstream. What a trusted peer says was left where it is, and is added to; what anybody else says was removed.
pub fn tell(headers: &mut HeaderMap, version: Version, client: &Client, hop: &Hop, trust: Option<&Trust>) {
    let list = match client.peer_is_trusted {
        true => appended(headers, &X_FORWARDED_FOR, hop),
        false => hop.field.clone(),
    };
    headers.insert(X_FORWARDED_FOR, list);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    if let Some(host) = find(headers, &header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    tell_forwarded(headers, client, hop.ip, trust);
    via(headers, version);
}

/// Tells a stranger's origin, which a forward proxy asks in a client's name: nothing of the client, whoever said it.
pub fn conceal(headers: &mut HeaderMap, version: Version) {
    drop_claims(headers);
    via(headers, version);
}

/// Forwarded goes on where the operator's proxies speak it; otherwise what it says is removed.
fn tell_forwarded(headers: &mut HeaderMap, client: &Client, peer: IpAddr, trust: Option<&Trust>) {
    if trust.is_none_or(|trust| trust.field != Field::Forwarded) {
        if client.peer_is_trusted {
            headers.remove(header::FORWARDED);
        }
        return;
    }
    let mut element = String::new();
    let _ = match peer {
        IpAddr::V4(ip) => write!(element, "for={ip}"),
        IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\""),
    };
    let _ = write!(element, ";proto={}", client.scheme);
    if let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    let mut list = joined(headers, &header::FORWARDED);
    list.extend_from_slice(element.as_bytes());
    headers.insert(header::FORWARDED, field(&list));
}

/// Says that the message went through here. The version is that of the message as it came.
pub fn via(headers: &mut HeaderMap, version: Version) {
    let ours = match version {
        Version::HTTP_10 => "1.0 portolan",
        Version::HTTP_2 => "2 portolan",
        Version::HTTP_3 => "3 portolan",
        _ => "1.1 portolan",
    };
    headers.append(header::VIA, HeaderValue::from_static(ours));
}

fn field(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).expect("parts of field values and addresses make a field value")
}

/// The list that a field has, with the hop at its end.
fn appended(headers: &HeaderMap, name: &HeaderName, hop: &Hop) -> HeaderValue {
    let mut list = joined(headers, name);
    if list.is_empty() {
        return hop.field.clone();
    }
    list.extend_from_slice(hop.field.as_bytes());
    field(&list)
}

/// The lines of a list as one, ready for a further element (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut list = Vec::new();
    for line in headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()) {
        if !line.is_empty() {
            list.extend_from_slice(line);
            list.extend_from_slice(b", ");
        }
    }
    list
}

/// The elements of a list over all its lines, from the last to the first. Empty ones say nothing (RFC 9110 section 5.6.1).
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).into_iter().rev().flat_map(|line| list::elements(line).rev())
}

/// The same of a list with quoted strings. Quotes are paired from the end too: what a client has left open ends nothing
/// that a proxy has appended.
fn quoted_elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let lines = headers.get_all(name).into_iter().rev();
    let elements = lines.flat_map(|line| {
        let mut rest = Some(line.as_bytes());
        std::iter::from_fn(move || {
            let (before, element) = split_last(rest?, b',');
            rest = before;
            Some(element)
        })
    });
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// What stands before the last separator outside quotes, and after it.
fn split_last(list: &[u8], separator: u8) -> (Option<&[u8]>, &[u8]) {
    let mut at = list.len();
    while at > 0 {
        at -= 1;
        match list[at] {
            b'"' => at = opening_quote(&list[..at]).unwrap_or(at),
            byte if byte == separator => return (Some(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// Where the quoted string begins that ends behind these bytes.
fn opening_quote(bytes: &[u8]) -> Option<usize> {
    let is_escaped = |at: usize| bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    (0..bytes.len()).rev().find(|at| bytes[*at] == b'"' && !is_escaped(*at))
}

/// The value of a parameter of a Forwarded element, without its quotes. The first of several: none should stand twice
/// (RFC 7239 section 4).
fn parameter(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut found) = (Some(element), None);
    while let Some(pairs) = rest {
        let (before, pair) = split_last(pairs, b';');
        rest = before;
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
        if pair[..equals].trim_ascii().eq_ignore_ascii_case(name) {
            found = Some(&pair[equals + 1..]);
        }
    }
    let value = found?.trim_ascii();
    match value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) {
        None => Some(value.to_vec()),
        Some(quoted) => {
            let mut bytes = quoted.iter();
            Some(
                std::iter::from_fn(|| {
                    bytes.next().and_then(|b| if *b == b'\\' { bytes.next() } else { Some(b) })
                })
                .copied()
                .collect(),
            )
        }
    }
}

/// The scheme that a proxy names. A WebSocket's has the security of the http one (RFC 6455 section 3).
fn known_scheme(name: &[u8]) -> Option<&'static str> {
    let is = |scheme: &str| name.eq_ignore_ascii_case(scheme.as_bytes());
    match () {
        () if is("https") || is("wss") => Some("https"),
        () if is("http") || is("ws") => Some("http"),
        () => None,
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?;
    let bare = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // An IPv6 address without brackets has several colons and no port.
        None => hop.split_once(':').filter(|(_, rest)| !rest.contains(':')).map_or(hop, |(ip, _)| ip),
    };
    bare.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(field: Field) -> Trust {
        Trust { from: ["10.0.0.0/8".parse().unwrap()].into(), field }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_strangers_word_is_replaced() {
        let mut sent = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("host", "a.example"),
        ]);
        let peer = "9.9.9.9".parse().unwrap();
        let client = client(peer, "http", &sent, Some(&trust(Field::XForwardedFor)));
        assert_eq!(client, Client { ip: peer, scheme: "http", peer_is_trusted: false });
        drop_claims(&mut sent);
        tell(&mut sent, Version::HTTP_11, &client, &Hop::new(peer), None);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(sent["x-forwarded-for"], "9.9.9.9");
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert_eq!(sent["x-forwarded-host"], "a.example");
        assert_eq!(sent["via"], "1.1 portolan");
    }

    #[test]
    fn a_strangers_origin_is_told_nothing() {
        let mut sent = headers(&[
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=10.0.0.7"),
            ("x-real-ip", "10.0.0.7"),
            ("via", "1.0 before"),
            ("host", "a.example"),
        ]);
        conceal(&mut sent, Version::HTTP_11);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "via"]);
        let via: Vec<_> = sent.get_all("via").iter().collect();
        assert_eq!(via, ["1.0 before", "1.1 portolan"]);
    }

    /// The client and its scheme by these lines of a trusted peer, and what the upstream is told.
    fn believed(name: &'static str, lines: &[&[u8]], field: Field) -> (String, &'static str, Vec<u8>) {
        let mut sent = HeaderMap::new();
        for line in lines {
            sent.append(name, HeaderValue::from_bytes(line).unwrap());
        }
        let peer = "10.0.0.1".parse().unwrap();
        let trust = trust(field);
        let client = client(peer, "http", &sent, Some(&trust));
        tell(&mut sent, Version::HTTP_11, &client, &Hop::new(peer), Some(&trust));
        (client.ip.to_string(), client.scheme, sent[name].as_bytes().to_vec())
    }

    #[test]
    fn only_an_element_that_is_no_address_ends_the_walk() {
        let cases: [(&[&[u8]], &str); 12] = [
            (&[b"\xe9, 5.5.5.5"], "5.5.5.5"),
            (&[b"\xe9", b"5.5.5.5"], "5.5.5.5"),
            (&[b"6.6.6.6, 5.5.5.5, \xe9"], "10.0.0.1"),
            (&[b"6.6.6.6, \xe9, 10.0.0.2"], "10.0.0.2"),
            (&[b"unknown, 10.0.0.2"], "10.0.0.2"),
            (&[b"\xff, 5.5.5.5, , ,"], "5.5.5.5"),
            (&[b"5.5.5.5:80,10.0.0.2:1"], "5.5.5.5"),
            (&[b"[2001:db8::7]:80"], "2001:db8::7"),
            (&[b"2001:db8::7"], "2001:db8::7"),
            (&[b"::ffff:5.5.5.5"], "5.5.5.5"),
            (&[b"10.0.0.3", b"10.0.0.2"], "10.0.0.3"),
            (&[b""], "10.0.0.1"),
        ];
        for (lines, wanted) in cases {
            assert_eq!(believed("x-forwarded-for", lines, Field::XForwardedFor).0, wanted, "{lines:?}");
        }
        let told = believed("x-forwarded-for", &[b"\xe9, 5.5.5.5", b"10.0.0.2"], Field::XForwardedFor).2;
        assert_eq!(told, b"\xe9, 5.5.5.5, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_from_its_end() {
        let cases: [(&[&[u8]], &str, &str); 12] = [
            (&[b"for=\xe9, for=5.5.5.5;proto=https"], "5.5.5.5", "https"),
            (&[b"for=6.6.6.6;by=\"", b"for=5.5.5.5;proto=https"], "5.5.5.5", "https"),
            (&[b"for=6.6.6.6;x=\", for=5.5.5.5;proto=https"], "5.5.5.5", "https"),
            (&[b"for=5.5.5.5;host=\"a, for=6.6.6.6;x=\""], "5.5.5.5", "http"),
            (&[b"for=5.5.5.5;x=\"\\\", for=6.6.6.6\""], "5.5.5.5", "http"),
            (&[b"For=\"[2001:db8::7]:80\"; Proto=WSS"], "2001:db8::7", "https"),
            (&[b"for=5.5.5.5;proto=https, for=10.0.0.2;proto=http"], "5.5.5.5", "https"),
            (&[b"for=6.6.6.6;proto=https, for=5.5.5.5;proto=http"], "5.5.5.5", "http"),
            (&[b"for=5.5.5.5, for=10.0.0.2;proto=\"https\""], "5.5.5.5", "https"),
            (&[b"for=unknown;proto=https"], "10.0.0.1", "https"),
            (&[b"for=5.5.5.5, by=10.0.0.2"], "10.0.0.1", "http"),
            (&[b"for=\"5.5.5.5:_x\""], "5.5.5.5", "http"),
        ];
        for (lines, ip, scheme) in cases {
            let (found, by, _) = believed("forwarded", lines, Field::Forwarded);
            let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
            assert_eq!((found.as_str(), by), (ip, scheme), "{shown:?}");
        }
        let told = believed("forwarded", &[b"for=\xe9", b"for=5.5.5.5"], Field::Forwarded).2;
        assert_eq!(told, b"for=\xe9, for=5.5.5.5, for=10.0.0.1;proto=http");
    }

    #[test]
    fn the_scheme_is_the_last_that_a_list_names() {
        let scheme = |lines: &[&[u8]]| {
            let mut sent = HeaderMap::new();
            for line in lines {
                sent.append("x-forwarded-proto", HeaderValue::from_bytes(line).unwrap());
            }
            client("10.0.0.1".parse().unwrap(), "own", &sent, Some(&trust(Field::XForwardedFor))).scheme
        };
        let cases: [(&[&[u8]], &str); 12] = [
            (&[b"https"], "https"),
            (&[b"WSS"], "https"),
            (&[b"ws"], "http"),
            (&[b"Http"], "http"),
            (&[b"https,http"], "http"),
            (&[b"https", b"http"], "http"),
            (&[b"http, https"], "https"),
            (&[b"http", b"https,"], "https"),
            (&[b"\xe9, https"], "https"),
            (&[b"https, \xe9"], "own"),
            (&[b"h2"], "own"),
            (&[], "own"),
        ];
        for (lines, wanted) in cases {
            assert_eq!(scheme(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn behind_trusted_peers_the_nearest_stranger_is_the_client() {
        let mut sent =
            headers(&[("x-forwarded-for", "6.6.6.6, 5.5.5.5, 10.0.0.2"), ("x-forwarded-proto", "https")]);
        let peer = "10.0.0.1".parse().unwrap();
        let trust = trust(Field::XForwardedFor);
        let client = client(peer, "http", &sent, Some(&trust));
        assert_eq!((client.ip.to_string().as_str(), client.scheme), ("5.5.5.5", "https"));
        tell(&mut sent, Version::HTTP_11, &client, &Hop::new(peer), Some(&trust));
        assert_eq!(sent["x-forwarded-for"], "6.6.6.6, 5.5.5.5, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_and_added_to() {
        let mut sent = headers(&[("forwarded", "for=\"[2001:db8::7]:80\";proto=https"), ("host", "a")]);
        let peer = "10.0.0.1".parse().unwrap();
        let trust = trust(Field::Forwarded);
        let client = client(peer, "http", &sent, Some(&trust));
        assert_eq!((client.ip.to_string().as_str(), client.scheme), ("2001:db8::7", "https"));
        tell(&mut sent, Version::HTTP_11, &client, &Hop::new(peer), Some(&trust));
        assert_eq!(
            sent["forwarded"],
            "for=\"[2001:db8::7]:80\";proto=https, for=10.0.0.1;proto=https;host=\"a\""
        );
    }
}

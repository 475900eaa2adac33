//! What proxies tell each other about the client: X-Forwarded-*, Forwarded (RFC 7239), Via (RFC 9110 section 7.6.3).

use std::{fmt::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::value::Cidr;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

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
        Self { ip, field: field(ip.to_string()) }
    }
}

impl Trust {
    fn holds(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(ip))
    }
}

/// Finds the client: the peer, or behind trusted peers the nearest address that is not trusted.
pub fn client(peer: IpAddr, scheme: &'static str, headers: &HeaderMap, trust: Option<&Trust>) -> Client {
    let Some(trust) = trust.filter(|trust| trust.holds(peer)) else {
        return Client { ip: peer, scheme, peer_is_trusted: false };
    };
    let (hops, said) = match trust.field {
        Field::XForwardedFor => (x_forwarded_for(headers), single(headers, &X_FORWARDED_PROTO)),
        Field::Forwarded => (forwarded(headers, "for"), forwarded(headers, "proto").into_iter().next_back()),
    };
    let mut ip = peer;
    for hop in hops.iter().rev() {
        let Some(address) = address(hop) else { break };
        ip = address;
        if !trust.holds(address) {
            break;
        }
    }
    let scheme = match said.as_deref() {
        Some("https") => "https",
        Some("http") => "http",
        _ => scheme,
    };
    Client { ip, scheme, peer_is_trusted: true }
}

/// Tells the upstream: a trusted peer's word is added to, anybody else's replaced.
pub fn tell(headers: &mut HeaderMap, version: Version, client: &Client, hop: &Hop, trust: Option<&Trust>) {
    if headers.keys().any(claims) {
        drop_lookalikes(headers);
        if !client.peer_is_trusted {
            CLAIMS.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    let before = if client.peer_is_trusted { x_forwarded_for(headers) } else { Vec::new() };
    let list = match before.is_empty() {
        true => hop.field.clone(),
        false => field(before.join(", ") + ", " + &hop.ip.to_string()),
    };
    headers.insert(X_FORWARDED_FOR, list);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    tell_forwarded(headers, client, hop.ip, trust);
    via(headers, version);
}

/// Tells a stranger's origin, which a forward proxy asks in a client's name: nothing of the client, whoever said it.
pub fn conceal(headers: &mut HeaderMap, version: Version) {
    if headers.keys().any(claims) {
        drop_lookalikes(headers);
        CLAIMS.iter().chain([&X_FORWARDED_PROTO]).for_each(|name| drop(headers.remove(name)));
    }
    via(headers, version);
}

/// What a stranger may not say.
const CLAIMS: [HeaderName; 5] =
    [X_FORWARDED_FOR, X_FORWARDED_PORT, X_REAL_IP, X_FORWARDED_HOST, header::FORWARDED];

/// Whether a field may be one of [`CLAIMS`] or look like one.
fn claims(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "forwarded" || name.contains('_')
}

/// CGI and its like write `X_Forwarded_For` and `X-Forwarded-For` the same: a client's own word must not
/// pass for ours.
fn drop_lookalikes(headers: &mut HeaderMap) {
    const VOUCHED: [&str; 9] = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-real-ip",
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-request-id",
    ];
    let looks_alike = |name: &str| {
        let alike = |(one, other): (u8, u8)| one == other || (one == b'_' && other == b'-');
        VOUCHED
            .iter()
            .any(|vouched| vouched.len() == name.len() && name.bytes().zip(vouched.bytes()).all(alike))
    };
    let names = headers.keys().filter(|name| name.as_str().contains('_') && looks_alike(name.as_str()));
    let lookalikes: Vec<HeaderName> = names.cloned().collect();
    lookalikes.iter().for_each(|name| drop(headers.remove(name)));
}

/// Forwarded goes on where the operator's proxies speak it; otherwise what it says is taken away.
fn tell_forwarded(headers: &mut HeaderMap, client: &Client, peer: IpAddr, trust: Option<&Trust>) {
    if trust.is_none_or(|trust| trust.field != Field::Forwarded) {
        if client.peer_is_trusted {
            headers.remove(header::FORWARDED);
        }
        return;
    }
    let before = headers.get_all(header::FORWARDED).iter().filter_map(|value| value.to_str().ok());
    let mut list = before.collect::<Vec<_>>().join(", ");
    if !list.is_empty() {
        list.push_str(", ");
    }
    let _ = match peer {
        IpAddr::V4(ip) => write!(list, "for={ip}"),
        IpAddr::V6(ip) => write!(list, "for=\"[{ip}]\""),
    };
    let _ = write!(list, ";proto={}", client.scheme);
    if let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
        let _ = write!(list, ";host=\"{host}\"");
    }
    headers.insert(header::FORWARDED, field(list));
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

fn field(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("parts of field values and addresses make a field value")
}

fn x_forwarded_for(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(X_FORWARDED_FOR);
    let hops = lines.iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(','));
    hops.map(|hop| hop.trim().to_owned()).filter(|hop| !hop.is_empty()).collect()
}

/// The values of one parameter over all elements of Forwarded, in their order.
fn forwarded(headers: &HeaderMap, parameter: &str) -> Vec<String> {
    let lines = headers.get_all(header::FORWARDED);
    let elements = lines.iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(','));
    let pairs = elements.flat_map(|element| element.split(';')).filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case(parameter))
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .collect()
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(text.rsplit(',').next()?.trim().to_ascii_lowercase())
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(hop);
    let ip = bare.parse().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|addr| addr.ip()));
    ip.ok().map(|ip: IpAddr| ip.to_canonical())
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
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("host", "a.example"),
        ]);
        let peer = "9.9.9.9".parse().unwrap();
        let client = client(peer, "http", &sent, Some(&trust(Field::XForwardedFor)));
        assert_eq!(client, Client { ip: peer, scheme: "http", peer_is_trusted: false });
        tell(&mut sent, Version::HTTP_11, &client, &Hop::new(peer), None);
        assert_eq!(sent["x-forwarded-for"], "9.9.9.9");
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert_eq!(sent["x-forwarded-host"], "a.example");
        assert_eq!(sent["via"], "1.1 portolan");
        assert!(!sent.contains_key("x-real-ip") && !sent.contains_key("forwarded"));
    }

    #[test]
    fn a_strangers_origin_is_told_nothing() {
        let mut sent = headers(&[
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "https"),
            ("x_forwarded_host", "inner.example"),
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

    #[test]
    fn what_a_gateway_interface_would_mistake_for_ours_is_dropped() {
        let mut sent = headers(&[
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_proto", "https"),
            ("content_length", "5"),
            ("x_other", "stays"),
        ]);
        let peer = "9.9.9.9".parse().unwrap();
        let client = client(peer, "http", &sent, None);
        tell(&mut sent, Version::HTTP_2, &client, &Hop::new(peer), None);
        let underscored: Vec<_> = sent.keys().filter(|name| name.as_str().contains('_')).collect();
        assert_eq!(underscored, ["x_other"]);
        assert_eq!(sent["via"], "2 portolan");
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

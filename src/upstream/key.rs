//! What of a request the hashing balancers go by.

use std::net::IpAddr;

use http::HeaderMap;

use super::config::BalanceKey;
use crate::http::cookie;

/// What a key may be taken from. Host and path are those that were routed by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub client_ip: IpAddr,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// The hash of a request's key; none where the balancer wants none or the request has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickKey(pub(super) Option<u64>);

impl PickKey {
    pub const NONE: Self = Self(None);

    pub(super) fn of(key: &BalanceKey, facts: &Facts<'_>) -> Self {
        Self(hash_of(key, facts))
    }
}

/// The hash of a request's key, where the request has it.
pub fn hash_of(key: &BalanceKey, facts: &Facts<'_>) -> Option<u64> {
    match key {
        BalanceKey::ClientIp => Some(match facts.client_ip.to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        }),
        BalanceKey::Host => Some(hash(facts.host.as_bytes())),
        BalanceKey::Path => Some(hash(facts.path.as_bytes())),
        BalanceKey::Header(name) => facts.headers.get(name).map(|value| hash(value.as_bytes())),
        BalanceKey::Cookie(name) => cookie::values(facts.headers, name).next().map(hash),
        BalanceKey::Query(name) => {
            facts.query.and_then(|query| parameter(query, name)).map(|value| hash(value.as_bytes()))
        }
    }
}

/// FNV-1a, finished by [`mix`]: short, and the same in every process and version, which the standard library's
/// hashers and foldhash do not promise. Several proxies before one pool must agree.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// SplitMix64's finisher: spreads every bit over all.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The first parameter of that name, as encoded as it came.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_found() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ann".parse().unwrap());
        headers.append("cookie", "a=1; session=s1".parse().unwrap());
        let facts = Facts {
            client_ip: "::ffff:10.0.0.1".parse().unwrap(),
            host: "www.example.com",
            path: "/a",
            query: Some("x=1&id=7"),
            headers: &headers,
        };
        for (key, text) in [
            ("host", &b"www.example.com"[..]),
            ("path", b"/a"),
            ("client_ip", &[10, 0, 0, 1]),
            ("header:X-User", b"ann"),
            ("cookie:session", b"s1"),
            ("query:id", b"7"),
        ] {
            assert_eq!(PickKey::of(&key.parse().unwrap(), &facts), PickKey(Some(hash(text))), "{key}");
        }
        for absent in ["header:X-Other", "cookie:sess", "query:i"] {
            assert_eq!(PickKey::of(&absent.parse().unwrap(), &facts), PickKey::NONE, "{absent}");
        }
    }

    #[test]
    fn the_hash_stays_as_it_is() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    }
}

//! What requests are told apart by.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    net::IpAddr,
    str::FromStr,
};

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    matcher,
    middleware::{Builder, Exchange, jwt::SUBJECT},
    value::{FieldName, OneOrMany, Span, Spanned, TextOr},
};

/// What separates counts, as written: one value or several together.
pub type Written = OneOrMany<Spanned<TextOr<KeyText, KeyMap>>>;

/// A value of the request that separates counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyText {
    ClientIp,
    Header(http::HeaderName),
    Cookie(Box<str>),
    Host,
    Route,
    Tenant,
    /// The authenticated user.
    User,
    /// A claim of the token that jwt verified.
    Claim(Box<str>),
}

/// The same with settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LimitKey")]
pub enum KeyMap {
    /// The client's address
    ClientIp(ClientIp),
}

/// The client's address.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LimitByClientIp")]
pub struct ClientIp {
    /// The prefix length of IPv6 addresses that counts as one client, 1 to 128. Default 64.
    #[serde(default)]
    pub v6_prefix: Option<Spanned<u8>>,
}

/// What requests are told apart by. Nothing: they all count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct By(Box<[Aspect]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Aspect {
    ClientIp { v6_prefix: u8 },
    Header(http::HeaderName),
    Cookie(Box<str>),
    Host,
    Route,
    Tenant,
    User,
    Claim(Box<str>),
}

/// A request's key: a hash with a seed that only this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// What providers commonly give to one customer, and what one machine chooses its addresses from (RFC 6177).
const V6_PREFIX: u8 = 64;

crate::value::text_value!(
    KeyText,
    "limit-key",
    "client_ip, header:NAME, cookie:NAME, host, route, tenant, user or claim:NAME.",
    "client_ip",
    "header:X-API-Key",
    "claim:sub"
);

impl FromStr for KeyText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(Self::ClientIp),
            None if text == "host" => Ok(Self::Host),
            None if text == "route" => Ok(Self::Route),
            None if text == "tenant" => Ok(Self::Tenant),
            None if text == "user" => Ok(Self::User),
            Some(("claim", name)) if !name.is_empty() => Ok(Self::Claim(name.into())),
            Some(("header", name)) => name.parse::<FieldName>().map(|name| Self::Header(name.0)),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.into())),
            _ => Err(format!(
                "{text:?} is no key: client_ip, header:NAME, cookie:NAME, host, route, tenant, user or claim:NAME"
            )),
        }
    }
}

impl By {
    /// All requests count together.
    pub fn all_together() -> Self {
        Self::default()
    }

    pub fn client_ip() -> Self {
        Self([Aspect::ClientIp { v6_prefix: V6_PREFIX }].into())
    }

    /// For a part of this chain, which is asked for what others have to find out before it.
    pub fn compile(written: &Written, chain: &Builder<'_>, diagnostics: &mut Diagnostics) -> Self {
        let mut places = HashMap::new();
        for key in written.iter() {
            let what = match &key.value {
                TextOr::Text(text) => text.clone(),
                TextOr::Map(KeyMap::ClientIp(_)) => KeyText::ClientIp,
            };
            if let Some(problem) = lacking(&what, chain, key.span) {
                diagnostics.push(problem);
            }
            if let Some(first) = places.insert(what, key.span) {
                let problem = Diagnostic::error(Code::NoEffect, key.span, "the same key stands twice");
                diagnostics.push(problem.reason("the second time").label(first, "the first time"));
            }
        }
        Self(written.iter().map(|key| Aspect::compile(&key.value, diagnostics)).collect())
    }

    pub fn is_all_together(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of what the request has of it. What it lacks is a key too.
    pub(super) fn key(&self, exchange: &Exchange, seed: &impl BuildHasher) -> Key {
        let mut hasher = seed.build_hasher();
        self.write(exchange, &mut hasher);
        Key(hasher.finish())
    }

    /// Whether all that it takes is found out already.
    pub(super) fn is_known(&self, exchange: &Exchange) -> bool {
        self.0.iter().all(|aspect| aspect.is_known(exchange))
    }

    /// Hashes what the request has of it.
    pub(super) fn write(&self, exchange: &Exchange, hasher: &mut impl Hasher) {
        self.0.iter().for_each(|aspect| aspect.write(exchange, hasher));
    }

    #[cfg(test)]
    pub(crate) fn for_tests(keys: &[&str]) -> Self {
        Self(keys.iter().map(|text| Aspect::of(&text.parse().unwrap(), V6_PREFIX)).collect())
    }
}

impl Key {
    /// Where all requests are one.
    pub(super) const NONE: Self = Self(0);

    /// The key of something else than a request.
    pub(super) fn of(bytes: &[u8], seed: &impl BuildHasher) -> Self {
        Self(seed.hash_one(bytes))
    }

    /// Which of so many shards it lies in.
    pub(super) fn shard(self, shards: usize) -> usize {
        self.0 as usize % shards
    }
}

impl Aspect {
    fn compile(written: &TextOr<KeyText, KeyMap>, diagnostics: &mut Diagnostics) -> Self {
        let client_ip = match written {
            TextOr::Text(text) => return Self::of(text, V6_PREFIX),
            TextOr::Map(KeyMap::ClientIp(client_ip)) => client_ip,
        };
        let Some(bits) = client_ip.v6_prefix else { return Self::of(&KeyText::ClientIp, V6_PREFIX) };
        if !(1..=128).contains(&bits.value) {
            let message = format!("{bits} is no length of a prefix: an IPv6 address has 128 bits");
            diagnostics.push(Diagnostic::error(Code::BadValue, bits.span, message).help("1 to 128"));
        }
        Self::of(&KeyText::ClientIp, bits.clamp(1, 128))
    }

    fn of(text: &KeyText, v6_prefix: u8) -> Self {
        match text {
            KeyText::ClientIp => Self::ClientIp { v6_prefix },
            KeyText::Header(name) => Self::Header(name.clone()),
            KeyText::Cookie(name) => Self::Cookie(name.clone()),
            KeyText::Host => Self::Host,
            KeyText::Route => Self::Route,
            KeyText::Tenant => Self::Tenant,
            KeyText::User => Self::User,
            KeyText::Claim(name) => Self::Claim(name.clone()),
        }
    }

    /// Whether it is found out already. Who a request is from is found out on its way.
    fn is_known(&self, exchange: &Exchange) -> bool {
        match self {
            Self::User => exchange.user.is_some() || exchange.claim(SUBJECT).is_some(),
            Self::Claim(name) => exchange.claim(name).is_some(),
            _ => true,
        }
    }

    fn write(&self, exchange: &Exchange, hasher: &mut impl Hasher) {
        let fields = &exchange.head.headers;
        let routed = &exchange.routed;
        match self {
            Self::ClientIp { v6_prefix } => match exchange.client_ip.to_canonical() {
                IpAddr::V4(ip) => ip.hash(hasher),
                IpAddr::V6(ip) => (ip.to_bits() >> (128 - u32::from(*v6_prefix))).hash(hasher),
            },
            Self::Header(name) => {
                let values = || fields.get_all(name).iter().map(|value| value.as_bytes());
                values().count().hash(hasher);
                values().for_each(|value| value.hash(hasher));
            }
            Self::Cookie(name) => {
                let lines = fields.get_all(header::COOKIE).iter();
                let mut found = lines.filter_map(|line| matcher::cookie(line.as_bytes(), name.as_bytes()));
                found.next().hash(hasher);
            }
            Self::Host => routed.host.hash(hasher),
            // Routes have names of their own within their host alone.
            Self::Route => (&routed.host, &routed.route).hash(hasher),
            Self::Tenant => routed.tenant.hash(hasher),
            Self::User => {
                exchange.user.as_ref().map(|user| user.as_bytes()).hash(hasher);
                exchange.claim(SUBJECT).hash(hasher);
            }
            Self::Claim(name) => exchange.claim(name).hash(hasher),
        }
    }
}

/// What nobody before finds out.
fn lacking(key: &KeyText, chain: &Builder<'_>, span: Span) -> Option<Diagnostic> {
    if chain.is_torn_before(span) {
        return None;
    }
    let (message, help) = match key {
        KeyText::Claim(name) if !chain.ask_for_claim(name) => (
            "no jwt stands before this, so that nobody has a claim",
            "put jwt before it, further out or earlier in the list",
        ),
        KeyText::User if !chain.asks_who() => (
            "nothing before this asks who a request is from, so that nobody is a user",
            "put basic_auth, api_key or jwt before it, further out or earlier in the list",
        ),
        _ => return None,
    };
    Some(Diagnostic::error(Code::NoEffect, span, message).help(help))
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    /// Whether two requests, as these make of a plain one, are the same to the key.
    fn same(key: &str, a: impl FnOnce(&mut Exchange), b: impl FnOnce(&mut Exchange)) -> bool {
        let (by, seed) = (By::for_tests(&[key]), RandomState::new());
        let [mut one, mut other] = [(); 2].map(|()| Exchange::for_tests("GET", "/"));
        a(&mut one);
        b(&mut other);
        by.key(&one, &seed) == by.key(&other, &seed)
    }

    fn ip(text: &str) -> impl FnOnce(&mut Exchange) {
        move |exchange| exchange.client_ip = text.parse().unwrap()
    }

    fn field(name: &'static str, value: &'static str) -> impl FnOnce(&mut Exchange) {
        move |exchange| {
            exchange.head.headers.append(name, value.parse().unwrap());
        }
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_them() {
        assert!(!same("client_ip", ip("10.0.0.1"), ip("10.0.0.2")));
        assert!(same("client_ip", ip("10.0.0.1"), ip("::ffff:10.0.0.1")));
        assert!(same("client_ip", ip("2001:db8::1"), ip("2001:db8::ffff:1")));
        assert!(!same("client_ip", ip("2001:db8::1"), ip("2001:db8:0:1::1")));
        for (bits, expected) in [(1, true), (48, true), (64, false), (128, false)] {
            let by = By([Aspect::ClientIp { v6_prefix: bits }].into());
            let seed = RandomState::new();
            let key = |text: &str| {
                let mut exchange = Exchange::for_tests("GET", "/");
                exchange.client_ip = text.parse().unwrap();
                by.key(&exchange, &seed)
            };
            assert_eq!(key("2001:db8::1") == key("2001:db8:0:1::1"), expected, "{bits}");
        }
    }

    #[test]
    fn users_are_told_apart_and_those_that_nobody_knows_are_one() {
        let user = |name: &'static str| {
            move |exchange: &mut Exchange| {
                exchange.user = Some(Box::new(http::HeaderValue::from_static(name)))
            }
        };
        assert!(!same("user", user("ann"), user("bob")) && same("user", user("ann"), user("ann")));
        assert!(!same("user", |_| {}, user("")), "nobody is not somebody without a name");
        assert!(same("user", |_| {}, |_| {}) && same("claim:sub", |_| {}, user("ann")));
    }

    #[test]
    fn fields_and_cookies_are_compared_whole() {
        assert!(!same("header:X-Key", field("x-key", "a"), field("x-key", "b")));
        assert!(same("header:X-Key", field("x-key", "a"), field("x-key", "a")));
        assert!(!same("header:X-Key", |_| {}, field("x-key", "")), "none is not an empty one");
        assert!(same("header:X-Key", |_| {}, field("x-other", "a")), "those without are one");
        assert!(same("cookie:id", field("cookie", "a=1; id=7"), field("cookie", "id=7; b=2")));
        assert!(!same("cookie:id", field("cookie", "id=7"), field("cookie", "id=8")));
    }
}

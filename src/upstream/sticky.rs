//! Sticky sessions: a signed cookie names the endpoint that a client stays at, until some time. An endpoint is known by a code
//! that is made of its address and the key, so that a cookie tells nothing of it and survives every change of the others.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use ring::{hmac, rand::SystemRandom};

use super::shared::Shared;
use crate::{
    http::cookie::Attributes,
    value::{Address, Name, Secret},
};

/// What an upstream's sticky sessions are configured by.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cookie: Box<str>,
    /// The path and the domain that browsers send it to.
    pub scope: (Box<str>, Option<Box<str>>),
    pub ttl: Duration,
    /// Without one a key is generated.
    pub key: Option<Secret>,
    pub attributes: Attributes,
}

/// The sticky sessions of an upstream.
#[derive(Debug)]
pub struct Sticky {
    settings: Settings,
    signer: Signer,
}

/// What an endpoint is known by in cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointCode([u8; CODE]);

/// What a valid cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub endpoint: EndpointCode,
    /// The second since the epoch from which on it is no longer valid.
    until: u64,
}

/// Why a cookie is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is none of these cookies.
    Malformed,
    /// It was signed by another key or for another upstream, or it was changed.
    Signature,
    Expired,
}

/// Signs and verifies the cookies of one upstream.
#[derive(Debug)]
pub struct Signer {
    key: Arc<hmac::Key>,
    upstream: Name,
}

const TIME: usize = 8;
const CODE: usize = 16;
const TAG: usize = 32;
const SAID: usize = TIME + CODE;
/// Bytes of a cookie before they are written as text, and then.
const WHOLE: usize = SAID + TAG;
const WRITTEN: usize = (WHOLE * 4).div_ceil(3);

// === impl Settings ===

impl Settings {
    /// What signs the cookies of this upstream. A key that is generated is the same as long as the process has the upstream.
    pub(super) fn signer(&self, upstream: &Name, shared: &Shared) -> Signer {
        let key = match &self.key {
            Some(Secret(key)) => Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())),
            None => shared.sticky_key.get_or_init(|| Arc::new(generate())).clone(),
        };
        Signer { key, upstream: upstream.clone() }
    }
}

fn generate() -> hmac::Key {
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
    key.expect("the system has a source of random numbers")
}

// === impl Sticky ===

impl Sticky {
    pub(super) fn new(settings: Settings, upstream: &Name, shared: &Shared) -> Self {
        Self { signer: settings.signer(upstream, shared), settings }
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.settings.cookie
    }

    /// Whether browsers take its cookies and the other's for the same.
    pub fn has_cookie_of(&self, other: &Self) -> bool {
        (&self.settings.cookie, &self.settings.scope) == (&other.settings.cookie, &other.settings.scope)
    }

    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// Whether its key is configured, so that others have it too.
    pub fn has_configured_key(&self) -> bool {
        self.settings.key.is_some()
    }

    /// What a cookie's value says now.
    pub fn read(&self, value: &[u8], now: SystemTime) -> Result<Ticket, Rejected> {
        self.signer.read(value, seconds(now))
    }

    /// Whether a new cookie is to replace it: half of its time is over, or it lasts for longer than is configured now.
    pub fn is_stale(&self, ticket: &Ticket, now: SystemTime) -> bool {
        let (left, ttl) = (ticket.until.saturating_sub(seconds(now)), self.ttl().as_secs());
        left.saturating_mul(2) < ttl || left > ttl
    }

    /// The field that gives the client a cookie for this endpoint.
    pub fn set_cookie(&self, endpoint: EndpointCode, now: SystemTime, is_https: bool) -> Option<HeaderValue> {
        let until = seconds(now) + self.ttl().as_secs();
        let value = self.signer.write(&Ticket { endpoint, until });
        self.settings.attributes.set_cookie(self.cookie(), &value, is_https)
    }
}

// === impl Signer ===

impl Signer {
    /// For the fuzzer and tests: one with a fixed key.
    pub fn with_key(key: &[u8; 32], upstream: Name) -> Self {
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)), upstream }
    }

    /// What an endpoint at this address is known by.
    pub fn code(&self, address: &Address) -> EndpointCode {
        let tag = self.sign("portolan endpoint", address.to_string().as_bytes());
        let mut code = [0; CODE];
        code.copy_from_slice(&tag.as_ref()[..CODE]);
        EndpointCode(code)
    }

    /// What a cookie for the endpoint at this address says, valid until a second since the epoch.
    pub fn ticket(&self, address: &Address, until: u64) -> Ticket {
        Ticket { endpoint: self.code(address), until }
    }

    /// The value of a cookie.
    pub fn write(&self, ticket: &Ticket) -> String {
        let mut whole = [0; WHOLE];
        whole[..TIME].copy_from_slice(&ticket.until.to_be_bytes());
        whole[TIME..SAID].copy_from_slice(&ticket.endpoint.0);
        let tag = self.sign(COOKIE, &whole[..SAID]);
        whole[SAID..].copy_from_slice(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(whole)
    }

    /// What the value of a cookie says at a second since the epoch.
    pub fn read(&self, value: &[u8], now: u64) -> Result<Ticket, Rejected> {
        let mut whole = [0; WHOLE];
        // Of one length: what is longer is not looked at.
        let decoded = match value.len() {
            WRITTEN => BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut whole).ok(),
            _ => None,
        };
        if decoded != Some(WHOLE) {
            return Err(Rejected::Malformed);
        }
        let (said, tag) = whole.split_at(SAID);
        let message = self.message(COOKIE, said);
        if hmac::verify(&self.key, &message, tag).is_err() {
            return Err(Rejected::Signature);
        }
        let (mut until, mut code) = ([0; TIME], [0; CODE]);
        until.copy_from_slice(&said[..TIME]);
        code.copy_from_slice(&said[TIME..]);
        let ticket = Ticket { endpoint: EndpointCode(code), until: u64::from_be_bytes(until) };
        if ticket.until <= now { Err(Rejected::Expired) } else { Ok(ticket) }
    }

    fn sign(&self, purpose: &str, said: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &self.message(purpose, said))
    }

    /// No purpose and no name has a NUL in it: what is signed is read in one way.
    fn message(&self, purpose: &str, said: &[u8]) -> Vec<u8> {
        [purpose.as_bytes(), self.upstream.as_str().as_bytes(), said].join(&0)
    }
}

const COOKIE: &str = "portolan cookie";

// === impl Rejected ===

impl Rejected {
    pub const ALL: [Self; 3] = [Self::Malformed, Self::Signature, Self::Expired];

    pub fn cause(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Expired => "expired",
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared::new(std::time::Instant::now())
    }
    use crate::http::cookie::Secure;

    fn signer(key: u8, upstream: &str) -> Signer {
        Signer::with_key(&[key; 32], upstream.parse().unwrap())
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn ticket(signer: &Signer, until: u64) -> Ticket {
        signer.ticket(&address("10.0.0.1:80"), until)
    }

    #[test]
    fn a_cookie_is_read_as_it_was_written_until_its_time() {
        let signer = signer(1, "app");
        let ticket = ticket(&signer, 1000);
        let value = signer.write(&ticket);
        assert_eq!((value.len(), value.contains("10.0")), (WRITTEN, false));
        assert_eq!(signer.read(value.as_bytes(), 999), Ok(ticket));
        assert_eq!(signer.read(value.as_bytes(), 1000), Err(Rejected::Expired));
    }

    #[test]
    fn what_was_changed_or_is_of_others_is_rejected() {
        let own = signer(1, "app");
        let value = own.write(&ticket(&own, 1000));
        for place in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(own.read(&changed, 0).is_err(), "at {place}");
        }
        for other in [signer(2, "app"), signer(1, "other")] {
            assert_eq!(other.read(value.as_bytes(), 0), Err(Rejected::Signature));
            assert_ne!(other.code(&address("10.0.0.1:80")), own.code(&address("10.0.0.1:80")));
        }
        let longer = format!("{value}A");
        let padded = format!("{}=", &value[..WRITTEN - 1]);
        for garbage in
            ["", "x", &value[1..], &longer, &padded, &"!".repeat(WRITTEN), &"é".repeat(WRITTEN / 2)]
        {
            assert_eq!(own.read(garbage.as_bytes(), 0), Err(Rejected::Malformed), "{garbage}");
        }
    }

    #[test]
    fn a_cookie_is_renewed_past_half_of_its_time() {
        let settings = Settings {
            cookie: "r".into(),
            scope: ("/".into(), None),
            ttl: Duration::from_secs(100),
            key: None,
            attributes: Attributes::new("; Path=/", Secure::Auto),
        };
        let sticky = Sticky::new(settings, &"app".parse().unwrap(), &shared());
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let ticket = Ticket { endpoint: sticky.signer.code(&address("10.0.0.1:80")), until: 1100 };
        for (second, stale) in [(999, true), (1000, false), (1050, false), (1051, true), (1099, true)] {
            assert_eq!(sticky.is_stale(&ticket, at(second)), stale, "{second}");
        }
        let field = sticky.set_cookie(ticket.endpoint, at(1000), true).unwrap();
        let value = field.to_str().unwrap().strip_prefix("r=").unwrap();
        let value = value.strip_suffix("; Path=/; Secure").unwrap();
        assert_eq!(sticky.read(value.as_bytes(), at(1000)), Ok(ticket));
    }

    #[test]
    fn a_generated_key_stays_while_the_upstream_does() {
        let settings = Settings {
            cookie: "r".into(),
            scope: ("/".into(), None),
            ttl: Duration::from_secs(100),
            key: None,
            attributes: Attributes::new("", Secure::Auto),
        };
        let (own, name): (_, crate::value::Name) = (shared(), "app".parse().unwrap());
        let value = |signer: Signer| signer.write(&ticket(&signer, 9));
        let first = value(settings.signer(&name, &own));
        assert_eq!(value(settings.signer(&name, &own)), first);
        assert_ne!(value(settings.signer(&name, &shared())), first);
    }
}

//! Sticky sessions, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    http::cookie::{SameSite, Secure},
    value::{CookieName, CookiePath, DnsName, Duration, Secret, Spanned},
};

/// Sticky sessions: a signed cookie keeps each client at the endpoint that answered it first, while this endpoint is usable. The
/// cookie does not disclose the endpoint's address and is not sent upstream.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// The cookie's name. Upstreams that serve the same host need different names. Default PORTOLAN_ROUTE.
    pub cookie: Option<Spanned<CookieName>>,
    /// How long a cookie is valid, 1s to 365d. A cookie past half of this time is renewed. Default 1h.
    pub ttl: Option<Spanned<Duration>>,
    /// The key that signs cookies, at least 32 bytes. Several instances need the same one. Default: a random key that is made at
    /// start, so that cookies are not valid after a restart or at another instance.
    pub key: Option<Spanned<Secret>>,
    /// The path at and below which browsers send the cookie. Default "/".
    pub path: Option<Spanned<CookiePath>>,
    /// The domain whose hosts get the cookie. Default: the requested host alone.
    pub domain: Option<Spanned<DnsName>>,
    /// Whether browsers send the cookie over https alone. Default auto: if the request came over https.
    pub secure: Option<Spanned<Secure>>,
    /// Whether scripts cannot read the cookie. Default true.
    pub http_only: Option<bool>,
    /// Whether browsers send the cookie with requests that other sites cause. Default lax.
    pub same_site: Option<Spanned<SameSite>>,
}

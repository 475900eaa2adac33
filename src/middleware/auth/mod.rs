//! What the middleware that asks who a client is has in common.

mod credential;
mod public;
mod register;
mod seen;
mod vouched;

use http::{HeaderName, HeaderValue, header};

pub use credential::{Found, Source, conceal};
pub use public::Public;
pub use register::{Line, lines};
pub use seen::{Seal, Seen, Tag};
pub use vouched::{Vouched, take_away};

use super::{Context, Exchange, Refusal};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    value::Spanned,
};

/// The realm where none is given.
const REALM: &str = "portolan";

/// Where credentials stand: a proxy is told its own, apart from those for the origin (RFC 9110 section 11.7.2).
pub fn authorization(exchange: &Exchange) -> &'static HeaderName {
    match exchange.to_proxy {
        true => &header::PROXY_AUTHORIZATION,
        false => &header::AUTHORIZATION,
    }
}

/// Asks for credentials: 401, or 407 where they are for a proxy (RFC 9110 sections 15.5.2 and 15.5.8).
pub fn unauthorized(exchange: &Exchange, challenge: &HeaderValue) -> Refusal {
    let reason = match exchange.to_proxy {
        true => Reason::ProxyUnauthorized,
        false => Reason::Unauthorized,
    };
    challenged(exchange, challenge, reason)
}

/// Refuses for a reason, with a challenge.
pub fn challenged(exchange: &Exchange, challenge: &HeaderValue, reason: Reason) -> Refusal {
    let field = match exchange.to_proxy {
        true => header::PROXY_AUTHENTICATE,
        false => header::WWW_AUTHENTICATE,
    };
    Refusal::new(reason).with(field, challenge.clone())
}

/// What WWW-Authenticate says: a scheme, the realm and further parameters (RFC 9110 section 11.6.1).
pub fn challenge(
    scheme: &str,
    realm: Option<&Spanned<String>>,
    parameters: &str,
    cx: &mut Context<'_>,
) -> HeaderValue {
    let written = realm.map_or(REALM, |realm| realm.as_str());
    if let Some(realm) = realm.filter(|realm| realm.is_empty() || realm.chars().any(char::is_control)) {
        let message = "a realm is a text of at least one character, without control characters";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, realm.span, message));
    }
    let quoted = written.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("{scheme} realm=\"{quoted}\"{parameters}");
    // What cannot stand in a field was reported.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

//! What the middleware that asks who a client is has in common.

mod credential;
mod public;
mod register;
mod seen;

use http::{HeaderName, HeaderValue, header};

pub use credential::{Found, Source, conceal};
pub use public::Public;
pub use register::{Line, lines};
pub use seen::{Seal, Seen, Tag};

use super::{Context, Exchange, Refusal, header_edits};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::field_name::Field,
    value::{FieldName, Spanned},
};

/// The realm where none is given.
const REALM: &str = "portolan";

/// A field that tells the upstream who a client is. What the client itself sends in it, in whatever spelling, is removed
/// before anything else is done.
pub fn identity_field(field: &Spanned<FieldName>, cx: &mut Context<'_>) -> Field {
    header_edits::refuse_ours(&field.value, field.span, cx);
    Field::new(field.value.0.clone())
}

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

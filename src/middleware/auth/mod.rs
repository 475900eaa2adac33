//! What the middleware that asks who a client is has in common.

mod credential;
mod public;
mod register;
mod seen;
mod vouched;

use http::HeaderValue;

pub use credential::{Found, Source, conceal};
pub use public::Public;
pub use register::{Line, lines};
pub use seen::{Seal, Seen, Tag};
pub use vouched::{Vouched, take_away};

use super::Context;
use crate::{
    diagnostic::{Code, Diagnostic},
    value::Spanned,
};

/// The realm where none is given.
const REALM: &str = "portolan";

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

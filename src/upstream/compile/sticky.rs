//! Sticky sessions, compiled: what browsers would not keep is an error.

use std::time::Duration;

use super::refuse;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    http::cookie::{Attributes, SameSite, Secure},
    upstream::{config, sticky::Settings},
    value::{Secret, Spanned, TextOr},
};

const COOKIE: &str = "PORTOLAN_ROUTE";
const TTL: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Bytes of a key: as many as its signatures have (RFC 2104 section 3).
const SHORTEST_KEY: usize = 32;

/// `None` where an error was reported.
pub fn sticky(written: &config::sticky::Sticky, out: &mut Diagnostics) -> Option<Settings> {
    let ttl = ttl(written, out);
    let key = written.key.as_ref().map(|key| self::key(key, out));
    let secure = secure(written, out);
    let cookie = written.cookie.as_ref().map_or(COOKIE, |name| name.value.as_str());
    let ttl = ttl?;
    let path = written.path.as_ref().map_or("/", |path| path.value.as_str());
    let domain = written.domain.as_ref().map(|domain| domain.value.without_root());
    let text = format!(
        "; Path={path}{}; Max-Age={}{}{}",
        domain.map(|domain| format!("; Domain={domain}")).unwrap_or_default(),
        ttl.as_secs(),
        if written.http_only.unwrap_or(true) { "; HttpOnly" } else { "" },
        written.same_site.map_or_else(SameSite::default, |same_site| same_site.value).attribute(),
    );
    Some(Settings {
        cookie: cookie.into(),
        scope: (path.into(), domain.map(Into::into)),
        ttl,
        key: super::given(key)?,
        attributes: Attributes::new(text, secure?),
    })
}

/// A weight of 0 needs cookies: without them the endpoint would get no request at all.
pub fn check_weights(config: &config::Config, out: &mut Diagnostics) -> Option<()> {
    if config.sticky.is_some() {
        return Some(());
    }
    let mut sound = Some(());
    for endpoint in config.endpoints.iter() {
        if let TextOr::Map(config::EndpointMap { weight: Some(Spanned { value: 0, span }), .. }) =
            &endpoint.value
        {
            let message =
                "an endpoint with weight 0 gets no requests: it keeps only clients of sticky sessions";
            let problem = Diagnostic::error(Code::NoEffect, *span, message);
            sound = refuse(out, problem.help("remove the endpoint, or add sticky: {} to the upstream"));
        }
    }
    sound
}

fn ttl(written: &config::sticky::Sticky, out: &mut Diagnostics) -> Option<Duration> {
    let Some(ttl) = written.ttl else { return Some(TTL) };
    if !(SHORTEST..=LONGEST).contains(&ttl.get()) {
        let message = format!("ttl must be from 1s to 365d (got {})", ttl.value);
        return refuse(out, Diagnostic::error(Code::BadValue, ttl.span, message));
    }
    Some(ttl.get())
}

fn key(written: &Spanned<Secret>, out: &mut Diagnostics) -> Option<Secret> {
    let length = written.value.0.len();
    if length < SHORTEST_KEY {
        let message = format!("key must have at least {SHORTEST_KEY} bytes (got {length})");
        let problem = Diagnostic::error(Code::BadValue, written.span, message);
        return refuse(out, problem.help("openssl rand -base64 32 makes one"));
    }
    Some(written.value.clone())
}

/// Browsers reject `SameSite=None` and the prefixes of names without `Secure` (RFC 6265bis section 4.1.3).
fn secure(written: &config::sticky::Sticky, out: &mut Diagnostics) -> Option<Secure> {
    let name = written.cookie.as_ref();
    let prefixed = |prefix: &str| name.filter(|name| name.value.as_str().starts_with(prefix));
    let (host, any) = (prefixed("__Host-"), prefixed("__Host-").or(prefixed("__Secure-")));
    let of_no_site = written.same_site.filter(|same_site| same_site.value == SameSite::None);
    let mut sound = Some(());
    let mut reject = |span, label, message: &str, help: &str| {
        let problem = Diagnostic::error(Code::BadValue, span, message).label(label, "written here");
        sound = refuse(out, problem.help(help));
    };
    if let Some(never) = written.secure.filter(|secure| secure.value == Secure::Never) {
        let help = "remove secure: false";
        if let Some(same_site) = of_no_site {
            let message = "browsers reject a cookie with same_site: none that is not secure";
            reject(never.span, same_site.span, message, help);
        }
        if let Some(name) = any {
            let message =
                "browsers reject a cookie whose name begins with __Host- or __Secure- that is not secure";
            reject(never.span, name.span, message, help);
        }
    }
    if let Some(name) = host {
        let message = "browsers reject a cookie whose name begins with __Host- that has a domain or another path than \"/\"";
        if let Some(domain) = &written.domain {
            reject(domain.span, name.span, message, "remove domain, or give the cookie another name");
        }
        if let Some(path) = written.path.as_ref().filter(|path| path.value.as_str() != "/") {
            reject(path.span, name.span, message, "remove path, or give the cookie another name");
        }
    }
    sound?;
    match written.secure.map_or_else(Secure::default, |secure| secure.value) {
        Secure::Auto if of_no_site.is_some() || any.is_some() => Some(Secure::Always),
        secure => Some(secure),
    }
}

//! Tells browsers what a page will need before its upstream answers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Next, OnRequest};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::connection::Protocol,
    value::Spanned,
};

pub const ADDS_UP: bool = false;

/// Sends 103 with Link (RFC 8297) before the upstream is asked, to GET by HTTP/2. Clients of HTTP/1.1 get none: there are
/// some that take it for the answer, and browsers do not use it there (RFC 8297 section 3).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EarlyHints")]
pub struct Config {
    /// Values of Link (RFC 8288), as "</app.css>; rel=preload; as=style".
    pub links: Spanned<Vec<Spanned<String>>>,
}

struct EarlyHints {
    fields: Arc<HeaderMap>,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.links.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, config.links.span, "nothing is hinted at");
        cx.diagnostics.push(problem.help("links: [\"</app.css>; rel=preload; as=style\"]"));
    }
    let mut fields = HeaderMap::new();
    for link in config.links.iter().filter_map(|link| value(link, cx)) {
        fields.append(header::LINK, link);
    }
    chain.on_request(Arc::new(EarlyHints { fields: Arc::new(fields) }));
}

/// `<TARGET>; rel=...`, as far as it takes to be one.
fn value(link: &Spanned<String>, cx: &mut Context<'_>) -> Option<HeaderValue> {
    let target = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let reason = match target {
        None => "its target stands between < and >",
        Some(("", _)) => "its target is empty",
        Some((_, parameters)) if !has_rel(parameters) => "rel says what the target is for",
        Some(_) => match HeaderValue::from_str(link) {
            Ok(value) => return Some(value),
            Err(_) => "a character stands in it that no field may have",
        },
    };
    let message = format!("{:?} is no link", link.value);
    let problem = Diagnostic::error(Code::BadValue, link.span, message).reason(reason);
    cx.diagnostics.push(problem.help("as \"</app.css>; rel=preload; as=style\""));
    None
}

fn has_rel(parameters: &str) -> bool {
    let names = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    names.into_iter().any(|(name, value)| name.trim().eq_ignore_ascii_case("rel") && !value.trim().is_empty())
}

impl OnRequest for EarlyHints {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        // Extended CONNECT asks for a tunnel, in which nothing is loaded.
        let is_get = exchange.method == Method::GET && !exchange.connects;
        if exchange.connection.protocol != Protocol::Http1 && is_get {
            exchange.early_hints = Some(self.fields.clone());
        }
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::Connection;

    fn hints(protocol: Protocol, method: &str, connects: bool) -> bool {
        let part = EarlyHints { fields: Arc::default() };
        let mut exchange = Exchange::for_tests(method, "/");
        let connection = Arc::get_mut(&mut exchange.connection).expect("nobody else has it");
        let Connection { protocol: spoken, .. } = connection;
        *spoken = protocol;
        exchange.connects = connects;
        assert!(matches!(part.on_request(&mut exchange), Next::Continue));
        exchange.early_hints.is_some()
    }

    #[test]
    fn hints_are_for_pages() {
        assert!(hints(Protocol::Http2, "GET", false) && hints(Protocol::Http3, "GET", false));
        assert!(!hints(Protocol::Http1, "GET", false));
        assert!(!hints(Protocol::Http2, "HEAD", false) && !hints(Protocol::Http2, "POST", false));
        assert!(!hints(Protocol::Http2, "GET", true), "extended CONNECT");
    }
}

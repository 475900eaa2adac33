//! Refuses requests by method.

use std::sync::Arc;

use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    matcher,
    value::{self, Spanned},
};

pub const ADDS_UP: bool = false;

/// Refuses requests of other methods with 405 and Allow (RFC 9110 section 15.5.6). GET lets HEAD in; OPTIONS is let in
/// where it is listed, or answered before by `cors`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Methods")]
pub struct Config {
    /// The methods that are let in, as [GET, POST].
    pub allow: Spanned<Vec<Spanned<value::Method>>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct Methods {
    methods: matcher::Methods,
    allow: HeaderValue,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.allow.is_empty() {
        let problem = Diagnostic::error(Code::BadValue, config.allow.span, "no method is let in");
        cx.diagnostics.push(problem.help("leave it out to let in all"));
        return;
    }
    let part = Methods::new(config.allow.iter().map(|method| method.0.clone()));
    chain.guard(config.mode, Arc::new(part));
}

impl Methods {
    fn new(listed: impl IntoIterator<Item = http::Method>) -> Self {
        let methods = matcher::Methods::new(listed);
        let allow = methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ");
        Self {
            methods,
            allow: HeaderValue::try_from(allow).expect("methods are tokens, which are visible ASCII"),
        }
    }
}

impl OnRequest for Methods {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        match self.methods.contains(&exchange.method) {
            true => Next::Continue,
            false => Refusal::new(Reason::MethodNotAllowed).with(header::ALLOW, self.allow.clone()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_told_what_is() {
        let part = Methods::new([http::Method::POST, http::Method::GET]);
        for method in ["GET", "HEAD", "POST"] {
            assert!(
                matches!(part.on_request(&mut Exchange::for_tests(method, "/")), Next::Continue),
                "{method}"
            );
        }
        for method in ["DELETE", "OPTIONS", "get"] {
            let mut exchange = Exchange::for_tests(method, "/");
            let Next::Refuse(refusal) = part.on_request(&mut exchange) else { panic!("{method} is let in") };
            assert_eq!(refusal.fields[header::ALLOW], "POST, GET, HEAD");
        }
    }
}

//! Sends the client elsewhere (RFC 9110 section 15.4).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::LOCATION};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{proxy::template, target};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    http::{authority::names_host, target::encoded},
    value::{Spanned, Status, Template, Variable, Variables},
};

/// Sends the client elsewhere.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redirect")]
pub struct Config {
    /// A template of the Location. The request's query is kept unless it has a "?".
    pub to: Spanned<String>,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default)]
    pub status: Option<Spanned<Status>>,
}

/// The action, ready to run.
#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub to: Template,
}

/// Compiles the action for a path with these captures. `None` where an error was reported.
pub fn compile(config: &Config, captures: &[&str], diagnostics: &mut Diagnostics) -> Option<Redirect> {
    let to = match config.to.is_empty() {
        true => {
            diagnostics.push(Diagnostic::error(
                Code::BadTemplate,
                config.to.span,
                "a redirect goes somewhere",
            ));
            None
        }
        false => template(&config.to.value, config.to.span, captures, diagnostics),
    };
    if let Some(to) = to.as_ref().and_then(Template::literal).filter(|to| !names_host(to)) {
        let message = format!("{to:?} names no host to redirect to");
        let help = "https://www.example.com/path, or a path alone for the same host";
        diagnostics.push(Diagnostic::error(Code::BadTemplate, config.to.span, message).help(help));
    }
    let status = status(config.status.as_ref(), diagnostics);
    Some(Redirect { status: status?, to: to? })
}

/// A redirect's status; 308 keeps method and body and is kept by caches (RFC 9110 section 15.4.9).
pub fn status(written: Option<&Spanned<Status>>, diagnostics: &mut Diagnostics) -> Option<StatusCode> {
    let Some(written) = written else { return Some(StatusCode::PERMANENT_REDIRECT) };
    if matches!(written.value.0.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Some(written.value.0);
    }
    let message = format!("{} is no status of a redirect", written.value.0.as_u16());
    let help = "301 and 308 are for good, 302 and 307 for now, 303 for the answer to a POST; \
                307 and 308 keep the method";
    diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message).help(help));
    None
}

impl Redirect {
    /// The answer; `None` where what the request has makes no location: a host that it does not name, for one.
    pub fn answer(&self, variables: &impl Variables) -> Option<Response<Bytes>> {
        let location = self.location(variables);
        if !self.to.fills_authority(variables) || !names_host(&location) {
            return None;
        }
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = self.status;
        let location = HeaderValue::try_from(location);
        answer.headers_mut().insert(LOCATION, location.expect("what cannot stand in a field was escaped"));
        Some(answer)
    }

    fn location(&self, variables: &impl Variables) -> String {
        let mut to = String::new();
        self.to.render(variables, &mut to);
        // A fragment comes last (RFC 3986 section 3).
        let fragment = to.find('#').map(|at| to.split_off(at));
        target::escape(&mut to);
        if !self.to.has_query() {
            let mut query = String::new();
            variables.variable(Variable::RequestQuery, &mut query);
            if !query.is_empty() {
                to.push('?');
                // A URI reference holds less than a query that came (RFC 3986 section 3.4).
                match encoded(query.as_bytes()) {
                    None => to.push_str(&query),
                    Some(encoded) => to.push_str(&String::from_utf8_lossy(&encoded)),
                }
            }
        }
        if let Some(fragment) = fragment {
            let mut text = fragment[1..].to_owned();
            target::escape(&mut text);
            to.push('#');
            to.push_str(&text);
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::target::testing::{Fixed, spanned};

    fn compiled(to: &str, status: Option<&str>) -> Option<Redirect> {
        let status = status.map(|status| spanned(status.parse().unwrap()));
        let config = Config { to: spanned(to.into()), status };
        compile(&config, &["rest"], &mut Diagnostics::default())
    }

    #[track_caller]
    fn location(to: &str, query: Option<&str>) -> String {
        let variables = Fixed { path: "/old/a", query, captures: &["a"] };
        let answer = compiled(to, None).unwrap().answer(&variables).unwrap();
        assert_eq!(answer.status(), StatusCode::PERMANENT_REDIRECT);
        answer.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_query_is_kept_unless_the_template_has_one() {
        assert_eq!(location("/new/{rest}", None), "/new/a");
        assert_eq!(location("/new/{rest}", Some("x=1")), "/new/a?x=1");
        assert_eq!(location("/new?from={rest}", Some("x=1")), "/new?from=a");
        assert_eq!(location("/new", Some("x=\"<`>\"&{y}")), "/new?x=%22%3C%60%3E%22&{y}");
        assert_eq!(location("/new#{rest}", Some("x=1")), "/new?x=1#a");
        assert_eq!(
            location("https://www.{request.host}{request.path}", None),
            "https://www.example.com/old/a"
        );
        assert_eq!(location("/a b", None), "/a%20b");
    }

    #[test]
    fn a_location_without_a_host_is_none() {
        let variables = Fixed { path: "/old/a", query: None, captures: &[""] };
        for to in ["https://{rest}/", "https://{rest}:8443/", "//{rest}/x", "https://{rest}.example.com/"] {
            assert!(compiled(to, None).unwrap().answer(&variables).is_none(), "{to}");
        }
        assert!(compiled("/{rest}", None).unwrap().answer(&variables).is_some());
        let variables = Fixed { path: "/old/a", query: None, captures: &["evil.test@"] };
        assert!(compiled("https://{rest}.example.com/", None).unwrap().answer(&variables).is_none());
    }

    #[test]
    fn only_redirecting_statuses_are_taken() {
        assert_eq!(compiled("/", Some("303")).unwrap().status, StatusCode::SEE_OTHER);
        for wrong in ["200", "300", "304", "306", "404"] {
            assert!(compiled("/", Some(wrong)).is_none(), "{wrong}");
        }
        assert!(compiled("", None).is_none() && compiled("/{x}", None).is_none());
    }
}

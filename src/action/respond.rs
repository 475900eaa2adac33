//! Answers with what the configuration says.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    http::media_type,
    value::{FieldName, FilePath, Map, Span, Spanned, Status},
};

/// Answers with what stands here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Respond")]
pub struct Config {
    /// Default 200.
    pub status: Option<Spanned<Status>>,
    /// The body, as it stands. With neither body nor file, a status of 400 and above gets the configured error format.
    pub body: Option<Spanned<String>>,
    /// A file with the body, read when the configuration is loaded.
    pub file: Option<Spanned<FilePath>>,
    /// Header fields. Content-Type defaults to "text/plain; charset=utf-8", for a file by its ending.
    pub headers: Map<FieldName, Spanned<String>>,
}

/// The action, ready to run.
#[derive(Debug)]
pub struct Respond {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `None`: the configured error format says what stands in it.
    pub body: Option<Bytes>,
}

/// Compiles the action. `file` gives a file's bytes and reports itself what cannot be read. `None` where
/// an error was reported.
pub fn compile(
    config: &Config,
    file: impl FnOnce(&Spanned<FilePath>) -> Option<Arc<[u8]>>,
    diagnostics: &mut Diagnostics,
) -> Option<Respond> {
    let status = config.status.as_ref().map_or(StatusCode::OK, |status| status.0);
    let fits = body_fits(config, status, diagnostics);
    let headers = headers(&config.headers, diagnostics);
    let (body, media_type) = match (&config.body, &config.file) {
        (Some(body), _) => (Some(Some(Bytes::from(body.value.clone()))), Some(media_type::PLAIN)),
        (None, Some(path)) => {
            let content = file(path).map(|content| Some(Bytes::copy_from_slice(&content)));
            (content, Some(media_type::of(&path.0)))
        }
        (None, None) if status.as_u16() >= 400 => (Some(None), None),
        (None, None) => (Some(Some(Bytes::new())), None),
    };
    let mut headers = headers?;
    if let Some(media_type) = media_type {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
    }
    fits.then_some(Respond { status, headers, body: body? })
}

impl Respond {
    /// The answer; where `body` is `None` it still wants one.
    pub fn answer(&self) -> Response<Bytes> {
        let mut answer = Response::new(self.body.clone().unwrap_or_default());
        *answer.status_mut() = self.status;
        answer.headers_mut().clone_from(&self.headers);
        answer
    }
}

fn body_fits(config: &Config, status: StatusCode, diagnostics: &mut Diagnostics) -> bool {
    let written: Option<Span> =
        config.body.as_ref().map(|body| body.span).or(config.file.as_ref().map(|file| file.span));
    if let (Some(body), Some(file)) = (&config.body, &config.file) {
        let problem = Diagnostic::error(Code::BadValue, file.span, "a response has one body")
            .reason("this one is the second")
            .label(body.span, "the first");
        diagnostics.push(problem);
        return false;
    }
    match written {
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
        Some(span) if matches!(status.as_u16(), 204 | 205 | 304) => {
            let message = format!("a response with status {} has no body", status.as_u16());
            diagnostics.push(Diagnostic::error(Code::NoEffect, span, message));
            false
        }
        _ => true,
    }
}

/// Fields that frame a message: they follow from the body and the connection.
const FRAMING: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

fn headers(written: &Map<FieldName, Spanned<String>>, diagnostics: &mut Diagnostics) -> Option<HeaderMap> {
    let mut headers = Some(HeaderMap::new());
    for line in written {
        let name = &line.name.value.0;
        let problem = match HeaderValue::from_str(&line.value) {
            Ok(value) if !FRAMING.contains(name) => {
                if let Some(headers) = &mut headers {
                    headers.append(name.clone(), value);
                }
                continue;
            }
            Ok(_) => {
                let message = format!("{name} follows from the body and the connection");
                Diagnostic::error(Code::NoEffect, line.name.span, message)
            }
            Err(_) => {
                let message = "a field's value holds characters that must not stand in one";
                Diagnostic::error(Code::BadValue, line.value.span, message)
            }
        };
        diagnostics.push(problem);
        headers = None;
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{action::target::testing::spanned, value::Entry};

    fn compiled(config: &Config) -> Option<Respond> {
        compile(config, |_| Some((*b"<p>").into()), &mut Diagnostics::default())
    }

    fn status(status: &str) -> Option<Spanned<Status>> {
        Some(spanned(status.parse().unwrap()))
    }

    fn body() -> Option<Spanned<String>> {
        Some(spanned("ok".into()))
    }

    fn page() -> Option<Spanned<FilePath>> {
        Some(spanned("a/page.html".parse().unwrap()))
    }

    fn field(name: &str, value: &str) -> Map<FieldName, Spanned<String>> {
        Map(vec![Entry { name: spanned(name.parse().unwrap()), value: spanned(value.into()) }])
    }

    #[test]
    fn the_body_is_given_read_or_left_to_the_error_format() {
        let text = compiled(&Config { body: body(), ..Config::default() }).unwrap().answer();
        assert_eq!((text.status().as_u16(), &text.body()[..]), (200, &b"ok"[..]));
        assert_eq!(text.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let file = compiled(&Config { file: page(), status: status("503"), ..Config::default() }).unwrap();
        assert_eq!(file.body.as_deref(), Some(&b"<p>"[..]));
        assert_eq!(file.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(compiled(&Config { status: status("404"), ..Config::default() }).unwrap().body, None);
        assert_eq!(compiled(&Config::default()).unwrap().body.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_content_type_given_is_kept() {
        let config = Config { body: body(), headers: field("Content-Type", "a/b"), ..Config::default() };
        assert_eq!(compiled(&config).unwrap().headers[CONTENT_TYPE], "a/b");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            Config { body: body(), file: page(), ..Config::default() },
            Config { body: body(), status: status("204"), ..Config::default() },
            Config { headers: field("Content-Length", "3"), ..Config::default() },
            Config { headers: field("X-A", "a\nb"), ..Config::default() },
        ] {
            assert!(compiled(&wrong).is_none(), "{wrong:?}");
        }
    }
}

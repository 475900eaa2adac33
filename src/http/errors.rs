//! What answers that the proxy makes itself look like.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::SystemTime};

use bytes::Bytes;
use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, MapAccess, Visitor},
};

use super::{accept::Accept, media_type};
use crate::value::{FilePath, Spanned, Status, Timestamp};

/// `{ format: json }`, and pages for single statuses: `{ 404: pages/404.html }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub format: Option<Format>,
    pub pages: Vec<(Spanned<Status>, Spanned<FilePath>)>,
}

/// The form of error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ErrorFormat")]
pub enum Format {
    /// {"error","message","status","request_id","timestamp"}
    #[default]
    Json,
    /// A small page
    Html,
    /// One line of text
    Plain,
    /// One of these, by the request's Accept; JSON where it wants several alike or says nothing
    Negotiate,
}

/// Compiled: what an error's body looks like.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    pub format: Format,
    /// Pages for single statuses, which go before the format.
    pub pages: BTreeMap<StatusCode, Page>,
}

/// A body with its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub body: Bytes,
    pub content_type: &'static str,
}

/// What there is to say of one error.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence<'a> {
    pub status: StatusCode,
    /// The stable word for it.
    pub error: &'a str,
    pub message: &'a str,
    /// What is wrong with the request, one by one, where that is said.
    pub violations: &'a [Violation],
    pub request_id: Option<&'a str>,
    pub at: SystemTime,
    /// What the client wants, where the form depends on it.
    pub accept: Option<&'a Accept>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    #[serde(rename = "in")]
    pub place: Place,
    /// A JSON pointer (RFC 6901) to the value meant.
    pub path: Box<str>,
    pub message: Box<str>,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Path,
    Query,
    Body,
}

impl Violation {
    pub fn new(place: Place, path: &str, message: &str) -> Self {
        Self { place, path: path.into(), message: message.into() }
    }
}

impl Errors {
    /// Whether an error's form depends on what the client wants.
    pub fn negotiate(&self) -> bool {
        self.format == Format::Negotiate
    }

    /// What stands here, and around it what stands outside.
    pub fn within(format: Option<Format>, pages: BTreeMap<StatusCode, Page>, outer: &Self) -> Self {
        let outer_pages = outer.pages.iter().map(|(status, page)| (*status, page.clone()));
        let pages = outer_pages.chain(pages).collect();
        Self { format: format.unwrap_or(outer.format), pages }
    }

    pub fn page(&self, occurrence: &Occurrence<'_>) -> Page {
        if let Some(page) = self.pages.get(&occurrence.status) {
            return page.clone();
        }
        let (body, content_type) = match self.format {
            Format::Json => (json(occurrence), media_type::JSON),
            Format::Html => (html(occurrence), media_type::HTML),
            Format::Plain => (format!("{}\n", occurrence.message), media_type::PLAIN),
            Format::Negotiate => return Self::in_form(wanted(occurrence.accept)).page(occurrence),
        };
        Page { body: body.into(), content_type }
    }

    fn in_form(format: Format) -> Self {
        Self { format, pages: BTreeMap::new() }
    }
}

fn wanted(accept: Option<&Accept>) -> Format {
    const FORMATS: [Format; 3] = [Format::Json, Format::Html, Format::Plain];
    const TYPES: [&str; 3] = ["application/json", "text/html", "text/plain"];
    FORMATS[accept.map_or(0, |accept| accept.choose(&TYPES))]
}

fn json(occurrence: &Occurrence<'_>) -> String {
    let Occurrence { status, error, message, violations, request_id, at, accept: _ } = occurrence;
    let mut body = serde_json::json!({
        "error": error,
        "message": message,
        "status": status.as_u16(),
        "request_id": request_id,
        "timestamp": Timestamp(*at).to_string(),
    });
    if !violations.is_empty() {
        body["violations"] = serde_json::json!(violations);
    }
    body.to_string()
}

fn html(occurrence: &Occurrence<'_>) -> String {
    let status = occurrence.status.as_u16();
    let title = occurrence.status.canonical_reason().unwrap_or("Error");
    let message = escape(occurrence.message);
    let id = occurrence.request_id.map(|id| format!("<p><small>{}</small></p>\n", escape(id)));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status} {title}</title>\n\
         <h1>{status} {title}</h1>\n<p>{message}</p>\n{}</html>\n",
        id.unwrap_or_default()
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Errors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What errors look like: a format, and pages for single statuses.",
            "type": "object",
            "properties": { "format": generator.subschema_for::<Format>() },
            "patternProperties": { "^[2-5][0-9][0-9]$": generator.subschema_for::<FilePath>() },
            "additionalProperties": false,
        })
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lines;

        impl<'de> Visitor<'de> for Lines {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of format and statuses")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let mut config = Config::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    if *key == "format" {
                        config.format = Some(map.next_value()?);
                        continue;
                    }
                    let status = key.value.parse().map_err(serde::de::Error::custom)?;
                    config.pages.push((Spanned::new(status, key.span), map.next_value()?));
                }
                Ok(config)
            }
        }

        deserializer.deserialize_map(Lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCCURRENCE: Occurrence<'_> = Occurrence {
        status: StatusCode::NOT_FOUND,
        error: "no_route",
        message: "No route matches this path.",
        violations: &[],
        request_id: Some("<7>"),
        at: SystemTime::UNIX_EPOCH,
        accept: None,
    };

    fn errors(format: Format) -> Errors {
        Errors { format, pages: BTreeMap::new() }
    }

    fn text(page: &Page) -> &str {
        std::str::from_utf8(&page.body).unwrap()
    }

    #[test]
    fn each_format_says_what_happened() {
        let json = errors(Format::Json).page(&OCCURRENCE);
        assert_eq!(
            text(&json),
            r#"{"error":"no_route","message":"No route matches this path.","status":404,"request_id":"<7>","timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
        let html = errors(Format::Html).page(&OCCURRENCE);
        assert!(text(&html).contains("<h1>404 Not Found</h1>") && text(&html).contains("&lt;7&gt;"));
        assert_eq!(text(&errors(Format::Plain).page(&OCCURRENCE)), "No route matches this path.\n");
        let mut headers = http::HeaderMap::new();
        headers.insert("accept", "text/html, */*;q=0.5".parse().unwrap());
        let accept = Accept::of(&headers);
        let wanted = Occurrence { accept: Some(&accept), ..OCCURRENCE };
        assert_eq!(errors(Format::Negotiate).page(&wanted), html);
        assert_eq!(errors(Format::Negotiate).page(&OCCURRENCE), json);
    }

    #[test]
    fn a_page_goes_before_the_format_and_the_inner_before_the_outer() {
        let page = |body: &'static str| Page { body: body.into(), content_type: media_type::HTML };
        let outer_pages =
            BTreeMap::from([(StatusCode::NOT_FOUND, page("outer")), (StatusCode::BAD_GATEWAY, page("502"))]);
        let outer = Errors { format: Format::Html, pages: outer_pages };
        let inner = Errors::within(None, BTreeMap::from([(StatusCode::NOT_FOUND, page("inner"))]), &outer);
        assert_eq!(text(&inner.page(&OCCURRENCE)), "inner");
        assert_eq!((inner.format, inner.pages.len()), (Format::Html, 2));
        assert_eq!(Errors::within(Some(Format::Plain), BTreeMap::new(), &outer).format, Format::Plain);
    }
}

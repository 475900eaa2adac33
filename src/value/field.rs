//! HTTP's own words where a configuration uses them: field names, methods, status codes; and file paths.

use std::{path::PathBuf, str::FromStr};

/// A header field's name, in any case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldName(pub http::HeaderName);

/// A method's name, in upper case as methods are written (RFC 9110 section 9.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub http::Method);

/// A final status code, 200 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub http::StatusCode);

/// A path to a file, relative to the file that it is written in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilePath(pub PathBuf);

super::text_value!(FieldName, "field-name", "A header field's name.", "X-Request-ID");
super::text_value!(Method, "method", "A request method.", "GET", "POST");
super::text_value!(Status, "status", "A final status code, 200 to 599.", "404");
super::text_value!(FilePath, "path", "A path, relative to the file that it is written in.", "certs/a.pem");

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no header field name"))
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!("methods are case-sensitive: {} is meant?", text.to_uppercase()));
        }
        text.parse().map(Self).map_err(|_| format!("{text:?} is no method"))
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = text.parse().ok().filter(|code| (200..600).contains(code));
        let code = code.and_then(|code| http::StatusCode::from_u16(code).ok());
        code.map(Self).ok_or_else(|| format!("{text:?} is no final status code (200 to 599)"))
    }
}

impl FromStr for FilePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a path is empty".into()),
            path if path.contains('\0') => Err("a path holds a NUL byte".into()),
            path => Ok(Self(path.into())),
        }
    }
}

//! Requests with what is expected of them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::document::Fields;
use crate::value::{Method, Name, Spanned, Status};

/// A request and what is expected of it. Routing, rewriting and local answers are tried; the chain is not run.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    pub request: Request,
    pub expect: Spanned<Expect>,
}

/// A request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestRequest")]
pub struct Request {
    /// Default GET.
    #[serde(default)]
    pub method: Option<Method>,
    /// An absolute URL: the scheme and port choose the listener, the host the host.
    pub url: Spanned<String>,
    /// Header fields.
    #[serde(default)]
    pub headers: Fields,
    /// The client's address. Default 127.0.0.1.
    #[serde(default)]
    pub client_ip: Option<std::net::IpAddr>,
    /// The listener, where the URL does not say it.
    #[serde(default)]
    pub listener: Option<Spanned<Name>>,
}

/// What is expected. Every key given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TestExpect")]
pub struct Expect {
    /// The host chosen.
    pub host: Option<Spanned<Name>>,
    /// The route chosen.
    pub route: Option<Spanned<Name>>,
    /// The upstream that it goes to.
    pub upstream: Option<Spanned<Name>>,
    /// The path and query sent upstream.
    pub rewrite: Option<Spanned<String>>,
    /// The status of a local answer.
    pub status: Option<Spanned<Status>>,
    /// Fields of a local answer.
    pub headers: Fields,
    /// The body of a local answer.
    pub body: Option<Spanned<String>>,
}

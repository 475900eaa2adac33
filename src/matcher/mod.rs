//! What requests are told apart by: path patterns, and conditions on what else they carry.

mod client_ip;
mod conditions;
mod cookie;
mod header;
mod method;
pub mod path;
mod query;
mod text;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;

#[cfg(test)]
pub(crate) use self::conditions::tests::conditions;
pub use self::{
    conditions::{Conditions, Source, Verdict},
    cookie::cookie,
    method::Methods,
};
use crate::value::{FieldName, Map, Spanned, TextOr};

/// Conditions on header fields.
pub type Fields = Map<FieldName, Spanned<Condition>>;

/// Conditions on query parameters or cookies.
pub type Texts = Map<String, Spanned<Condition>>;

/// A text that the value must equal, or a map that says more.
pub type Condition = TextOr<String, ConditionMap>;

/// Exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Condition")]
pub enum ConditionMap {
    /// Whether it is there at all
    Present(bool),
    /// A regular expression that matches somewhere in the value
    Regex(Spanned<String>),
}

/// What conditions look at in a request.
pub trait Facts {
    /// The method that the route is found by: for a CORS preflight the one that it asks for.
    fn method(&self) -> &Method;

    /// The values of all lines of a field, in their order.
    fn header(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;

    /// The query as it came, without its "?".
    fn query(&self) -> Option<&str>;

    /// The client, after the trusted proxies.
    fn client_ip(&self) -> IpAddr;

    /// Whether it is one that is made to a proxy: CONNECT, or one whose target is a URI (RFC 9112 section 3.2.2).
    fn is_to_proxy(&self) -> bool;
}

/// A request's head as conditions see it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
    pub client_ip: IpAddr,
    pub to_proxy: bool,
}

impl Facts for Head<'_> {
    fn method(&self) -> &Method {
        self.method
    }

    fn header(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(name).into_iter().map(|value| value.as_bytes())
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    fn is_to_proxy(&self) -> bool {
        self.to_proxy
    }
}

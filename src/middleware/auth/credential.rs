//! Where in a request a secret stands: found, taken out before the request goes on, kept out of logs.

use std::{borrow::Cow, str::FromStr};

use http::{HeaderName, Uri, header};
use percent_encoding::percent_decode;

use super::authorization;
use crate::{
    http::{cookie, field_name::Field, target},
    middleware::Exchange,
    value::FieldName,
};

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Header(HeaderName),
    Query(Box<str>),
    Cookie(Box<str>),
}

crate::value::text_value!(
    Source,
    "credential-source",
    "Where a secret stands: header:NAME, query:NAME or cookie:NAME.",
    "header:X-API-Key",
    "cookie:token"
);

/// What stands there. What stands there twice is nothing: who comes after us might take the other one.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(Cow<'a, [u8]>),
    Several,
}

impl Source {
    pub fn find<'a>(&self, exchange: &'a Exchange) -> Found<'a> {
        let headers = &exchange.head.headers;
        match self {
            Self::Header(name) => {
                let name = for_whom(name, exchange);
                Found::of(headers.get_all(name).iter().map(|value| Cow::Borrowed(value.as_bytes())))
            }
            Self::Cookie(name) => Found::of(cookie::values(headers, name).map(Cow::Borrowed)),
            Self::Query(name) => {
                let pairs = exchange.query.iter().flat_map(|query| query.split('&'));
                Found::of(pairs.filter_map(|pair| parameter(pair, name)).map(decoded))
            }
        }
    }

    /// Removes the fields that a server may read as the credential's own: what was not looked at must not pass for it.
    pub fn remove_lookalikes(&self, exchange: &mut Exchange) {
        if let Self::Header(name) = self
            && exchange.lookalikes.any()
        {
            let field = Field::new(for_whom(name, exchange).clone());
            field.remove_lookalikes(&mut exchange.head.headers, exchange.lookalikes);
        }
    }

    /// Takes it out of what goes upstream.
    pub fn take_out(&self, exchange: &mut Exchange) {
        match self {
            Self::Header(name) => {
                let field = Field::new(for_whom(name, exchange).clone());
                field.remove(&mut exchange.head.headers, exchange.lookalikes);
            }
            Self::Cookie(name) => cookie::remove(&mut exchange.head.headers, name),
            Self::Query(name) => take_parameter(name, exchange),
        }
    }
}

impl<'a> Found<'a> {
    fn of(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => name.parse::<FieldName>().map(|name| Self::Header(name.0)),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.into())),
            _ => Err(format!("{text:?} is no place of a secret: header:NAME, query:NAME or cookie:NAME")),
        }
    }
}

/// What says Authorization to an origin is in Proxy-Authorization to a proxy.
fn for_whom<'a>(name: &'a HeaderName, exchange: &Exchange) -> &'a HeaderName {
    match name == header::AUTHORIZATION {
        true => authorization(exchange),
        false => name,
    }
}

/// A request's target or a URL, with the values of these parameters of its query blotted out.
pub fn conceal<'a>(url: &'a [u8], parameters: &[Box<str>]) -> Cow<'a, [u8]> {
    if parameters.is_empty() {
        return Cow::Borrowed(url);
    }
    let query = url.iter().position(|byte| *byte == b'?');
    let Some((path, query)) = query.map(|at| url.split_at(at + 1)) else { return Cow::Borrowed(url) };
    let mut shown = path.to_vec();
    for (nth, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if nth > 0 {
            shown.push(b'&');
        }
        let pair_end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let name = decoded_bytes(&pair[..pair_end]);
        match parameters.iter().any(|secret| secret.as_bytes() == &*name) {
            true => {
                shown.extend_from_slice(&pair[..pair_end]);
                shown.extend_from_slice(b"=***");
            }
            false => shown.extend_from_slice(pair),
        }
    }
    Cow::Owned(shown)
}

/// The value, as it came, of a parameter that has this name.
fn parameter<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
    (*decoded(given) == *name.as_bytes()).then_some(value)
}

fn take_parameter(name: &str, exchange: &mut Exchange) {
    let Some(query) = &exchange.query else { return };
    let rest: Vec<&str> = query.split('&').filter(|pair| parameter(pair, name).is_none()).collect();
    let rest = Some(rest.join("&")).filter(|rest| !rest.is_empty());
    let path = exchange.head.uri.path();
    let target = rest.as_ref().map_or_else(|| path.to_owned(), |rest| format!("{path}?{rest}"));
    if target::set(&mut exchange.head, target).is_err() {
        // A part of what was a target is one: rather nothing than the credential.
        exchange.head.uri = Uri::default();
    }
    exchange.query = rest;
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    decoded_bytes(text.as_bytes())
}

/// Borrowed where nothing is encoded.
fn decoded_bytes(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(target: &str, fields: &[(&'static str, &str)]) -> Exchange {
        let mut exchange = Exchange::for_tests("GET", target);
        for (name, value) in fields {
            exchange.head.headers.append(*name, value.parse().unwrap());
        }
        exchange
    }

    fn one(text: &str) -> Found<'_> {
        Found::One(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn each_place_is_looked_in() {
        let request =
            exchange("/a?x=1&k%65y=a%2Bb", &[("x-key", "h"), ("cookie", "a=1; key=c"), ("cookie", "b=2")]);
        for (source, value) in [("header:X-Key", "h"), ("query:key", "a+b"), ("cookie:key", "c")] {
            assert_eq!(source.parse::<Source>().unwrap().find(&request), one(value), "{source}");
        }
        for source in ["header:X-Other", "query:a", "cookie:x"] {
            assert_eq!(source.parse::<Source>().unwrap().find(&request), Found::Nothing, "{source}");
        }
    }

    #[test]
    fn what_stands_twice_is_not_taken() {
        let request = exchange(
            "/?key=1&key=2",
            &[("x-key", "1"), ("x-key", "1"), ("cookie", "key=1"), ("cookie", "key=2")],
        );
        for source in ["header:X-Key", "query:key", "cookie:key"] {
            assert_eq!(source.parse::<Source>().unwrap().find(&request), Found::Several, "{source}");
        }
    }

    #[test]
    fn it_is_taken_out_and_the_rest_stays() {
        let mut request = exchange("/a?x=1&key=s&y=%20", &[("cookie", "a=1; key=s"), ("cookie", "b=2")]);
        for source in ["query:key", "cookie:key"] {
            source.parse::<Source>().unwrap().take_out(&mut request);
        }
        assert_eq!(request.head.uri, "/a?x=1&y=%20");
        assert_eq!(request.query.as_deref(), Some("x=1&y=%20"));
        assert_eq!(request.head.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        let mut alone = exchange("/a?key=s", &[("cookie", "key=s")]);
        for source in ["query:key", "cookie:key"] {
            source.parse::<Source>().unwrap().take_out(&mut alone);
        }
        assert_eq!(alone.head.uri, "/a");
        assert!(alone.query.is_none() && alone.head.headers.is_empty());
    }

    #[test]
    fn logs_do_not_show_it() {
        let secret = ["key".into(), "t".into()];
        let shown = |url: &str| String::from_utf8(conceal(url.as_bytes(), &secret).into_owned()).unwrap();
        assert_eq!(shown("/a?x=1&key=s&%6Bey=s&keys=2&t"), "/a?x=1&key=***&%6Bey=***&keys=2&t=***");
        assert_eq!(shown("/key=s"), "/key=s");
        assert!(matches!(conceal(b"/a?key=s", &[]), Cow::Borrowed(_)));
    }
}

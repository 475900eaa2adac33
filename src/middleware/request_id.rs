//! Gives every request an id that its log line, its response and its upstream share.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, response};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::{NoContext, Timestamp, Uuid};

use super::{Builder, Context, Exchange, Next, OnRequest, OnResponse, header_edits::refuse_ours};
use crate::{
    http::field_name::Field,
    value::{FieldName, Spanned},
};

pub const ADDS_UP: bool = false;

/// Gives every request an id: the client's where it is trusted, or a new UUID version 7 (RFC 9562).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RequestId")]
pub struct Config {
    /// The field that carries it, on the request sent upstream and on the response. Default X-Request-ID.
    pub header: Option<Spanned<FieldName>>,
    /// Whether an id that the client sent is kept, if it is 1 to 128 letters, digits, '-', '_', '.', ':' or '/'.
    /// Default false.
    pub trust: bool,
}

struct RequestId {
    header: Field,
    trust: bool,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if let Some(name) = &config.header {
        refuse_ours(name, name.span, cx);
    }
    let header =
        config.header.as_ref().map_or(HeaderName::from_static("x-request-id"), |name| name.value.0.clone());
    let part = Arc::new(RequestId { header: Field::new(header), trust: config.trust });
    chain.on_request(part.clone());
    chain.on_every_response(part);
}

impl OnRequest for RequestId {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let given = self.trust.then(|| exchange.head.headers.get(self.header.name())).flatten();
        let id = given.filter(|id| acceptable(id)).cloned().unwrap_or_else(new_id);
        self.header.set(&mut exchange.head.headers, id.clone(), exchange.lookalikes);
        exchange.request_id = Some(id);
        Next::Continue
    }
}

impl OnResponse for RequestId {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        // A request that was answered further out has had none made yet.
        let id = exchange.request_id.get_or_insert_with(new_id);
        head.headers.insert(self.header.name().clone(), id.clone());
    }
}

/// What may stand in logs and headers as it is.
fn acceptable(id: &HeaderValue) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(b);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

fn new_id() -> HeaderValue {
    // Without the counter that would order those of one millisecond: all threads share a lock for it.
    let id = Uuid::new_v7(Timestamp::now(NoContext));
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    // With an owner, copies of it need no allocation.
    let text = Bytes::from_owner(text);
    let mut id =
        HeaderValue::from_maybe_shared(text).expect("hexadecimal digits and hyphens are a field value");
    // HPACK and QPACK leave it out of their tables then, where what never comes again displaces what does.
    id.set_sensitive(true);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(trust: bool, given: &str) -> String {
        let part = RequestId { header: Field::new(HeaderName::from_static("x-id")), trust };
        let mut exchange = Exchange::for_tests("GET", "/");
        exchange.head.headers.insert("x-id", given.parse().unwrap());
        assert!(matches!(part.on_request(&mut exchange), Next::Continue));
        let mut head = http::Response::new(()).into_parts().0;
        part.on_response(&mut exchange, &mut head);
        assert_eq!(head.headers["x-id"], exchange.head.headers["x-id"]);
        head.headers["x-id"].to_str().unwrap().to_owned()
    }

    #[test]
    fn an_id_is_kept_where_it_is_trusted_and_fit() {
        assert_eq!(id_of(true, "abc-1"), "abc-1");
        for (trust, given) in [(false, "abc-1"), (true, "a b"), (true, "a\"b"), (true, &"x".repeat(129))] {
            let id = id_of(trust, given);
            assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{given:?}");
        }
    }

    #[test]
    fn a_response_to_a_request_that_was_not_entered_has_an_id_too() {
        let part = RequestId { header: Field::new(HeaderName::from_static("x-id")), trust: false };
        let mut exchange = Exchange::for_tests("GET", "/");
        let mut head = http::Response::new(()).into_parts().0;
        part.on_response(&mut exchange, &mut head);
        assert_eq!(exchange.request_id.as_ref(), head.headers.get("x-id"));
    }
}

//! Edits the response's header fields.

use std::sync::Arc;

use http::response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, OnResponse, header_edits::Edits};
use crate::value::{FieldName, Map, Spanned};

pub const ADDS_UP: bool = true;

/// Edits the response's header fields: removes, then sets, then adds. Values are templates.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ResponseHeaders")]
pub struct Config {
    /// Fields with the value that they shall have, whatever they had.
    pub set: Map<FieldName, Spanned<String>>,
    /// Fields that get a further value.
    pub add: Map<FieldName, Spanned<String>>,
    /// Fields that are taken away.
    pub remove: Vec<Spanned<FieldName>>,
}

struct ResponseHeaders(Edits);

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    let edits = Edits::compile(&config.set, &config.add, &config.remove, cx);
    chain.on_response(Arc::new(ResponseHeaders(edits)));
}

impl OnResponse for ResponseHeaders {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        self.0.apply_to_response(exchange, &mut head.headers);
    }
}

//! Edits the request's header fields.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Next, OnRequest,
    header_edits::{Edits, refuse_lookalikes},
};
use crate::value::{FieldName, Map, Spanned};

pub const ADDS_UP: bool = true;

/// Edits the request's header fields: removes, then sets, then adds. Values are templates. A field is removed and set in
/// all spellings that servers read alike, as X_User and X.User for X-User.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RequestHeaders")]
pub struct Config {
    /// Fields with the value that they shall have, whatever they had.
    pub set: Map<FieldName, Spanned<String>>,
    /// Fields that get a further value.
    pub add: Map<FieldName, Spanned<String>>,
    /// Fields that are taken away.
    pub remove: Vec<Spanned<FieldName>>,
}

struct RequestHeaders(Edits);

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    let edits = Edits::compile(&config.set, &config.add, &config.remove, cx);
    refuse_lookalikes(&config.set, &config.add, cx);
    chain.on_request(Arc::new(RequestHeaders(edits)));
}

impl OnRequest for RequestHeaders {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        self.0.apply_to_request(exchange);
        Next::Continue
    }
}

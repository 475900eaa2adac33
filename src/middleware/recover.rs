//! Answers 500 where handling a request panics. The catching itself is the engine's (`proxy::recover`):
//! it stands around the whole exchange, this kind says that it shall.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context};

pub const ADDS_UP: bool = false;

/// Answers 500 where handling a request panics, with the request's id; the panic is logged, and the process
/// and the connection's other streams live on. Without it a panic ends the connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Recover")]
pub struct Config {}

pub fn install(_: &Config, _: &mut Context<'_>, chain: &mut Builder<'_>) {
    chain.recover();
}

//! Reads small request bodies before an upstream is taken.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context};
use crate::{
    diagnostic::{Code, Diagnostic},
    value::{Size, Spanned},
};

pub const ADDS_UP: bool = false;

/// Reads a request's body whole before an upstream is taken, so that slow clients hold none of its connections. A larger
/// one goes on as it comes: at once where Content-Length says so, else from `size` on. A body that stalls for the
/// listener's `body_idle`, or takes longer than the route's `total`, is answered 408.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Buffer")]
pub struct Config {
    /// The most that is held of a request, as 64KiB or 1MiB. Default 64KiB.
    pub size: Spanned<Size>,
}

impl Default for Config {
    fn default() -> Self {
        Self { size: Spanned::new(Size(64 * 1024), Default::default()) }
    }
}

/// What was read of a request's body before its action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub data: Bytes,
    /// There is no more to come.
    pub is_whole: bool,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.size.0 == 0 {
        let problem = Diagnostic::error(Code::NoEffect, config.size.span, "nothing is held");
        cx.diagnostics.push(problem.help("leave buffer out: bodies go on as they come"));
    }
    chain.hold_bodies(config.size.0);
}

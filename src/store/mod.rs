//! What several Portolans share, kept outside of them.

mod address;
mod connection;
mod registry;
mod script;

use schemars::JsonSchema;
use serde::Deserialize;

pub use address::Address;
pub use connection::{Redis, Task, Unavailable};
pub use registry::Registry;
pub use script::Script;

use crate::value::{Duration, Spanned};

/// The Redis that several Portolans share (5 or later, or what speaks its protocol and runs its scripts). Only what asks
/// for it uses it: rate_limit with scope: shared.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redis")]
pub struct Config {
    /// Where it is: "redis://HOST:PORT", "redis://USER:PASSWORD@HOST:PORT/DATABASE" or "unix:/run/redis/redis.sock". One
    /// with a password is best read from a file, as "${file:redis.url}".
    pub url: Spanned<Address>,
    /// How long a request waits for its answer at most. One that takes longer counts as gone until it answers in time
    /// again. Default 100ms.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
    /// What the names of all keys begin with, visible ASCII. Default "portolan:".
    #[serde(default)]
    pub prefix: Option<Spanned<String>>,
}

/// A Redis with all that is known of it: every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub address: Address,
    /// How long an answer may take.
    pub timeout: std::time::Duration,
    /// What the names of all keys begin with.
    pub prefix: Box<str>,
}

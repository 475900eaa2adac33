//! What several Portolans share, kept outside of them.

mod address;
mod connection;
mod registry;
mod script;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub use address::Address;
pub use connection::{Redis, Task, Unavailable};
pub use registry::Registry;
pub use script::Script;

use crate::value::{Duration, FilePath, Spanned};

/// The Redis that several Portolans share (5 or later, or what speaks its protocol and runs its scripts). Only what asks
/// for it uses it: rate_limit with scope: shared.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redis")]
pub struct Config {
    /// Where it is: "redis://HOST:PORT", "redis://USER:PASSWORD@HOST:PORT/DATABASE", the same with "rediss://" for TLS, or
    /// "unix:/run/redis/redis.sock". One with a password is best read from a file, as "${file:redis.url}".
    pub url: Spanned<Address>,
    /// A PEM file with the authorities that its certificate is held against, for rediss://, read again when it changes.
    /// Default: the system's.
    #[serde(default)]
    pub ca: Option<Spanned<FilePath>>,
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
    /// Who is trusted there, in PEM; without it the system's authorities.
    pub authorities: Option<Arc<[u8]>>,
    /// How long an answer may take.
    pub timeout: std::time::Duration,
    /// What the names of all keys begin with.
    pub prefix: Box<str>,
}

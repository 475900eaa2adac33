//! What the process says about itself, on stderr. Level and format change while it runs.

mod paced;

use std::io::{self, IsTerminal};

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt,
    layer::{Layered, SubscriberExt},
    reload,
};

pub use self::paced::CLIENTS;
use self::paced::Paced;

/// What the process logs about itself, on stderr.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Log")]
pub struct Config {
    /// error, warn, info (default), debug or trace.
    pub level: Level,
    /// text (default) or json.
    pub format: Format,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LogLevel")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LogFormat")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// The process's log, once it is set up.
#[derive(Clone)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    output: reload::Handle<Output, Filtered>,
}

type Filtered = Layered<Paced, Layered<reload::Layer<Targets, Registry>, Registry>>;
type Output = Box<dyn Layer<Filtered> + Send + Sync>;

/// Libraries that speak more than operators want: the engine under us reports every client that goes, which
/// is the access log's to tell. They are one step quieter than asked for.
const TALKATIVE: [&str; 3] = ["pingora", "notify", "hyper"];
/// Libraries that warn of what a client does: an attacker would fill the log. What all libraries still say is bounded.
const ON_CLIENTS: [&str; 3] = ["rustls", "quinn", "h2"];

// === impl Log ===

impl Log {
    /// Sets the log up for the whole process; the second time it fails.
    pub fn start(config: &Config) -> Result<Self, String> {
        let (filter, filter_handle) = reload::Layer::new(filter(config.level));
        let (output, output_handle) = reload::Layer::new(output(config.format));
        let subscriber = tracing_subscriber::registry().with(filter).with(Paced::default()).with(output);
        tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())?;
        tracing_log::LogTracer::init().map_err(|error| error.to_string())?;
        let log = Self { filter: filter_handle, output: output_handle };
        log.quicken(config.level);
        Ok(log)
    }

    /// Goes on with these settings.
    pub fn apply(&self, config: &Config) {
        // It fails only where the subscriber is gone, and the process's is never gone.
        let _ = self.filter.reload(filter(config.level));
        let _ = self.output.reload(output(config.format));
        self.quicken(config.level);
    }

    /// Spares libraries the making of records that the filter would throw away.
    fn quicken(&self, level: Level) {
        log::set_max_level(match level {
            Level::Error => log::LevelFilter::Error,
            Level::Warn => log::LevelFilter::Warn,
            Level::Info => log::LevelFilter::Info,
            Level::Debug => log::LevelFilter::Debug,
            Level::Trace => log::LevelFilter::Trace,
        });
    }
}

fn filter(level: Level) -> Targets {
    let (own, talkative) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        Level::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let of_clients = if level <= Level::Info { LevelFilter::ERROR } else { talkative };
    Targets::new()
        .with_default(own)
        .with_targets(TALKATIVE.map(|target| (target, talkative)))
        .with_targets(ON_CLIENTS.map(|target| (target, of_clients)))
}

fn output(format: Format) -> Output {
    let layer = fmt::layer().with_writer(io::stderr);
    match format {
        Format::Text => layer.with_ansi(colour()).with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Colour is for terminals, and for people who have not said no to it (no-color.org).
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use tracing::Level as Severity;

    use super::*;

    #[test]
    fn libraries_are_quieter_than_asked_for() {
        let info = filter(Level::Info);
        assert!(info.would_enable("portolan::server", &Severity::INFO));
        assert!(!info.would_enable("portolan::server", &Severity::DEBUG));
        assert!(info.would_enable("pingora_core::protocols", &Severity::WARN));
        assert!(!info.would_enable("pingora_core::protocols", &Severity::INFO));
        assert!(!info.would_enable("h2::proto::ping_pong", &Severity::WARN));
        assert!(filter(Level::Trace).would_enable("h2::codec", &Severity::TRACE));
    }
}

//! What came of reading a configuration.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use crate::{
    diagnostic::{self, Diagnostics, Sources, Style},
    value::Timestamp,
};

/// Why the configuration was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Start,
    Files,
    Signal,
    Command,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is live.
    Applied,
    /// Nothing has changed, and nothing was touched.
    Unchanged,
    /// It has errors; what was live before goes on.
    Refused,
}

/// What is told about it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub result: Outcome,
    pub cause: Cause,
    /// The process that read it.
    pub pid: u32,
    /// The root of the configuration that it runs.
    pub configuration: String,
    /// The generation that is live now.
    pub generation: u64,
    /// The hash of what was read.
    pub hash: String,
    pub time: String,
    pub duration_ms: u64,
    pub errors: usize,
    pub warnings: usize,
    pub diagnostics: Value,
    /// The tenants whose parts others write; nothing where it is refused.
    pub tenants: Value,
    /// The diagnostics for people.
    pub text: String,
}

impl Report {
    pub fn new(
        (cause, result): (Cause, Outcome),
        (generation, hash): (u64, String),
        (diagnostics, sources): (&Diagnostics, &Sources),
        duration: Duration,
    ) -> Self {
        Self {
            result,
            cause,
            pid: std::process::id(),
            configuration: String::new(),
            generation,
            hash,
            time: Timestamp(SystemTime::now()).to_string(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            errors: diagnostics.errors(),
            warnings: diagnostics.warnings(),
            diagnostics: diagnostic::json(diagnostics, sources),
            tenants: Value::Null,
            text: diagnostic::text(diagnostics, sources, Style::Plain).trim_end().to_owned(),
        }
    }

    /// Writes it to the log.
    pub fn log(&self) {
        let Self { generation, duration_ms, .. } = self;
        let (cause, hash) = (self.cause.word(), self.short_hash());
        if self.warnings > 0 && self.errors == 0 && self.result == Outcome::Applied {
            tracing::warn!("the configuration has warnings\n{}", self.text);
        }
        if self.errors > 0 && self.result == Outcome::Applied {
            let broken = self.broken_tenants().join(", ");
            tracing::error!("the delegated files of {broken} are wrong\n{}", self.text);
        }
        match self.result {
            Outcome::Applied => tracing::info!(cause, generation, hash, duration_ms, "configuration applied"),
            // A file that was touched is no news.
            Outcome::Unchanged => tracing::debug!(cause, generation, "configuration unchanged"),
            Outcome::Refused => tracing::error!(
                cause,
                generation,
                errors = self.errors,
                "configuration refused, what was live before goes on\n{}",
                self.text
            ),
        }
    }

    /// The tenants that do not serve by their files as they are, and by what instead.
    fn broken_tenants(&self) -> Vec<String> {
        let all = self.tenants.as_array().into_iter().flatten();
        let broken = all.filter(|tenant| tenant["state"] != "current");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        broken.map(|tenant| format!("{} ({})", word(&tenant["name"]), word(&tenant["state"]))).collect()
    }

    fn short_hash(&self) -> &str {
        self.hash.get(..12).unwrap_or(&self.hash)
    }
}

impl Outcome {
    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl Cause {
    /// Whether a person asked: then it is applied even where nothing has changed.
    pub fn is_asked_for(self) -> bool {
        matches!(self, Self::Start | Self::Signal | Self::Command)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Files => "files",
            Self::Signal => "signal",
            Self::Command => "command",
        }
    }
}

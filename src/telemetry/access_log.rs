//! A line for each request: what it says, what it looks like, where it goes. Writing one never waits.

mod combined;
mod json;
mod record;
mod sink;

use std::{cell::RefCell, fmt, io::Write, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

pub use record::Record;
pub use sink::{Destination, OpenError, Sinks};

use crate::value::{Spanned, TextOr};
use sink::Sink;

/// `false`, or where lines go and what they look like.
pub type Setting = TextOr<Off, Config>;

/// The access log turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "AccessLogOff")]
pub enum Off {
    #[serde(rename = "false")]
    Off,
}

/// Where lines go and what they look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AccessLog")]
pub struct Config {
    /// json (default) or combined.
    pub format: Format,
    /// stdout (default), stderr, or a file's path.
    pub to: Option<Spanned<String>>,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AccessLogFormat")]
pub enum Format {
    /// One JSON object
    #[default]
    Json,
    /// Apache's combined format
    Combined,
}

/// Where a request's line goes and in which form. Cheap to clone; requests share it.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    sink: Arc<Sink>,
}

thread_local! {
    /// The line being made, so that making one allocates nothing.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A longer line's memory is given back.
const LONGEST_KEPT: usize = 64 << 10;

// === impl AccessLog ===

impl AccessLog {
    /// Queues the line. Where the queue is full, as with a reader that has stopped, it is dropped and counted.
    pub fn write(&self, record: &Record<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.format.write(line, record);
            line.push(b'\n');
            self.sink.queue(line);
            if line.capacity() > LONGEST_KEPT {
                *line = Vec::new();
            }
        });
    }
}

// === impl Format ===

impl Format {
    fn write(self, line: &mut Vec<u8>, record: &Record<'_>) {
        match self {
            Self::Json => json::write(line, record),
            Self::Combined => combined::write(line, record),
        }
    }
}

fn put(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a Vec takes all that is written");
}

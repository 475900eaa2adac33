//! A line for each request: which ones, what it says, what it looks like, where it goes. Writing one never waits.

mod combined;
mod json;
mod output;
mod put;
mod record;
mod selection;
mod sink;
mod template;

use std::{cell::RefCell, num::NonZeroU16, sync::Arc};

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

pub use output::{Destination, Rotation};
pub use record::Record;
pub use selection::{Chosen, Selection};
pub use sink::{OpenError, Sinks};
pub use template::Template;

use crate::value::{Duration, Percent, Size, Spanned, TextOr};
use sink::Sink;

/// `false`, or which requests are logged, where to, and how.
pub type Setting = TextOr<Off, Config>;

/// The access log turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "AccessLogOff")]
pub enum Off {
    #[serde(rename = "false")]
    Off,
}

/// Which requests are logged, where to, and what their lines look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AccessLog")]
pub struct Config {
    /// json (default), combined, or a template, as "{client.ip} {request.method} {response.status} {duration_ms}".
    pub format: Option<Spanned<String>>,
    /// stdout (default), stderr, a file's path, syslog, or "syslog:PATH" for a socket other than /dev/log.
    pub to: Option<Spanned<String>>,
    /// How many of the requests are logged that are neither `slow` nor `errors`, by chance, as 10%. Default: all of them,
    /// or none where `slow` or `errors` is written.
    pub sample: Option<Spanned<Percent>>,
    /// Logs every request that takes at least so long, as 500ms.
    pub slow: Option<Spanned<Duration>>,
    /// true: logs every request with a status of 400 or more, or with a `reason`. Default false.
    pub errors: Option<Spanned<bool>>,
    /// Renames the file before it grows beyond a size. Default: it grows.
    pub rotate: Option<Spanned<Rotate>>,
}

/// When a file is renamed, to FILE.1 and so on, and how many of those are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AccessLogRotate")]
pub struct Rotate {
    /// What the file does not grow beyond, as 100MiB; at least 1KiB.
    pub size: Spanned<Size>,
    /// How many files are kept beside the one that is written. Default 5.
    pub keep: Option<NonZeroU16>,
}

/// What a line looks like. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Format {
    /// One JSON object
    #[default]
    Json,
    /// Apache's combined format
    Combined,
    Template(Arc<Template>),
}

/// Which requests are logged, in which form, and how files are rotated that the lines go to.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub selection: Selection,
    pub format: Format,
    pub rotation: Option<Rotation>,
}

/// Where a request's line goes and in which form. Cheap to clone; requests share it.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Lines,
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
    /// Which requests are logged.
    pub fn selection(&self) -> Selection {
        self.lines.selection
    }

    /// The request's fields that a record has to have, beside Referer and User-Agent.
    pub fn fields(&self) -> &[HeaderName] {
        match &self.lines.format {
            Format::Template(template) => template.fields(),
            Format::Json | Format::Combined => &[],
        }
    }

    /// Queues the line. Where the queue is full, as with a reader that has stopped, it is dropped and counted.
    pub fn write(&self, record: &Record<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.lines.format.write(line, record);
            line.push(b'\n');
            self.sink.queue(line, self.lines.rotation);
            if line.capacity() > LONGEST_KEPT {
                *line = Vec::new();
            }
        });
    }
}

// === impl Format ===

impl Format {
    fn write(&self, line: &mut Vec<u8>, record: &Record<'_>) {
        match self {
            Self::Json => json::write(line, record),
            Self::Combined => combined::write(line, record),
            Self::Template(template) => template.write(line, record),
        }
    }
}

/// As Apache does since 2.0.46: nothing that a client sends can end a field that stands in quotes, or a line.
fn escaped(line: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            0x20..0x7f => line.push(*byte),
            _ => put::text(line, format_args!("\\x{byte:02x}")),
        }
    }
}

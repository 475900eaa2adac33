//! What scopes say about the access log.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::context::Context;
use crate::{
    diagnostic::{Code, Diagnostic},
    telemetry::access_log::{
        AccessLog, Config, Destination, Format, Lines, Rotate, Rotation, Selection, Setting, Template,
    },
    value::{Percent, Span, Spanned, TextOr, fits_a_socket},
};

/// What one scope says about the access log: nothing, off, or where to.
pub(super) type OwnLog = Option<Option<AccessLog>>;

/// How files are rotated, and where that is said of each: all who write to one say the same.
pub(super) type Rotations = RefCell<HashMap<Destination, (Option<Rotation>, Span)>>;

/// A file of one block is too small to be any use.
const LEAST_ROTATED: u64 = 1024;
const KEEP: std::num::NonZeroU16 = std::num::NonZeroU16::new(5).expect("5 is not zero");

/// Compiles a scope's access log.
pub(super) fn access_log(cx: &Context<'_>, written: Option<&Spanned<Setting>>) -> OwnLog {
    let Spanned { value, span } = written?;
    let TextOr::Map(config) = value else { return Some(None) };
    let (to, format) = (destination(cx, config.to.as_ref()), format(cx, config.format.as_ref()));
    let selection = selection(cx, config);
    let to = to?;
    let rotation = rotation(cx, config.rotate.as_ref(), &to);
    agree(cx, &to, rotation, config.rotate.as_ref().map_or(*span, |rotate| rotate.span));
    let lines = Lines { selection, format: format?, rotation };
    Some(Some(cx.registries.access_logs.log(&to, lines)))
}

/// What is logged where nobody says anything.
pub(super) fn default(cx: &Context<'_>) -> AccessLog {
    cx.registries.access_logs.log(&Destination::Stdout, Lines::default())
}

fn destination(cx: &Context<'_>, written: Option<&Spanned<String>>) -> Option<Destination> {
    let Some(written) = written else { return Some(Destination::Stdout) };
    let (make, path): (fn(_) -> _, _) = match written.as_str() {
        "stdout" => return Some(Destination::Stdout),
        "stderr" => return Some(Destination::Stderr),
        "syslog" => return Some(Destination::syslog()),
        text => match text.strip_prefix("syslog:") {
            Some(path) => (Destination::Syslog, path),
            None => (Destination::File, text),
        },
    };
    let made = path.parse().map(|path| make(cx.path(&Spanned::new(path, written.span))));
    let reached = made.and_then(|made| match &made {
        Destination::Syslog(path) => fits_a_socket(path).map(|()| made),
        _ => Ok(made),
    });
    reached.map_err(|reason| cx.report.error(Code::BadValue, written.span, "no place to log to", reason)).ok()
}

fn format(cx: &Context<'_>, written: Option<&Spanned<String>>) -> Option<Format> {
    let Some(written) = written else { return Some(Format::default()) };
    match written.as_str() {
        "json" => Some(Format::Json),
        "combined" => Some(Format::Combined),
        text => match Template::parse(text) {
            Ok(template) => Some(Format::Template(Arc::new(template))),
            Err(error) => {
                cx.report.push(Diagnostic::bad_template(written.span, &error));
                None
            }
        },
    }
}

fn selection(cx: &Context<'_>, config: &Config) -> Selection {
    let errors = config.errors.is_some_and(|errors| errors.value);
    let slow = config.slow.map(|slow| slow.get());
    let notable = errors || slow.is_some();
    if let Some(sample) = config.sample {
        let problem = match sample.value {
            Percent(0) if !notable => Some(("nothing is logged", "false turns the access log off")),
            Percent(100) if notable => {
                Some(("all is logged, slow and errors or not", "sample is how many of the others are logged"))
            }
            _ => None,
        };
        if let Some((message, help)) = problem {
            cx.report.push(Diagnostic::error(Code::NoEffect, sample.span, message).help(help));
        }
    }
    if let Some(slow) = config.slow.filter(|slow| slow.get().is_zero()) {
        cx.report.push(Diagnostic::error(Code::NoEffect, slow.span, "every request takes as long as that"));
    }
    let sample = match config.sample {
        Some(sample) => sample.value,
        None if notable => Percent(0),
        None => Percent(100),
    };
    Selection { slow, errors, sample }
}

fn rotation(cx: &Context<'_>, written: Option<&Spanned<Rotate>>, to: &Destination) -> Option<Rotation> {
    let Spanned { value: rotate, span } = written?;
    if !matches!(to, Destination::File(_)) {
        let message = format!("{to} is no file: there is nothing to rotate");
        cx.report.push(Diagnostic::error(Code::NoEffect, *span, message));
    }
    if rotate.size.0 < LEAST_ROTATED {
        let message = format!("{} is too small a file", rotate.size);
        cx.report.push(Diagnostic::error(Code::BadValue, rotate.size.span, message).help("1KiB or more"));
    }
    Some(Rotation { size: rotate.size.0, keep: rotate.keep.unwrap_or(KEEP) })
}

fn agree(cx: &Context<'_>, to: &Destination, rotation: Option<Rotation>, span: Span) {
    if !matches!(to, Destination::File(_)) {
        return;
    }
    let mut rotations = cx.rotations.borrow_mut();
    let (other, there) = *rotations.entry(to.clone()).or_insert((rotation, span));
    if other != rotation {
        let message = "the same file is rotated in another way here";
        let problem = Diagnostic::error(Code::BadValue, span, message).label(there, "than here");
        cx.report.push(problem.help("all who write to one file say the same of it"));
    }
}

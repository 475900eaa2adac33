//! What scopes say about errors and the access log.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;

use super::context::Context;
use crate::{
    config::document::File,
    diagnostic::{Code, Diagnostic},
    http::{
        errors::{Config, Errors, Format, Page},
        media_type,
    },
    telemetry::access_log::{AccessLog, Destination, Setting},
    value::{Spanned, Status, TextOr},
};

/// What one scope says about errors.
pub(super) struct OwnErrors {
    format: Option<Format>,
    pages: BTreeMap<StatusCode, Page>,
}

/// What one scope says about the access log: nothing, off, or where to.
pub(super) type OwnLog = Option<Option<AccessLog>>;

/// What errors look like where nobody else says anything.
pub(super) fn default_errors(cx: &Context<'_>) -> Arc<Errors> {
    OwnErrors::within(errors(cx, cx.document.defaults.errors.as_ref()).as_ref(), &Arc::default())
}

/// Compiles a scope's errors, reading its pages.
pub(super) fn errors(cx: &Context<'_>, written: Option<&Config>) -> Option<OwnErrors> {
    let written = written?;
    let pages = written.pages.iter().filter_map(|(status, file)| page(cx, status, file)).collect();
    Some(OwnErrors { format: written.format, pages })
}

impl OwnErrors {
    pub fn within(own: Option<&Self>, outer: &Arc<Errors>) -> Arc<Errors> {
        match own {
            None => outer.clone(),
            Some(own) => Arc::new(Errors::within(own.format, own.pages.clone(), outer)),
        }
    }
}

fn page(cx: &Context<'_>, status: &Spanned<Status>, file: &File) -> Option<(StatusCode, Page)> {
    if status.0.as_u16() < 400 {
        let message = format!("{} is no error: no answer of Portolan's own has it", status.0.as_u16());
        cx.report.push(Diagnostic::error(Code::NoEffect, status.span, message));
        return None;
    }
    let body = bytes::Bytes::copy_from_slice(&cx.read(file)?);
    Some((status.0, Page { body, content_type: media_type::of(&file.0) }))
}

/// Compiles a scope's access log.
pub(super) fn access_log(cx: &Context<'_>, written: Option<&Spanned<Setting>>) -> OwnLog {
    let TextOr::Map(config) = &written?.value else { return Some(None) };
    let to = match config.to.as_ref() {
        None => Destination::Stdout,
        Some(to) => destination(cx, to)?,
    };
    Some(Some(cx.registries.access_logs.log(&to, config.format)))
}

fn destination(cx: &Context<'_>, written: &Spanned<String>) -> Option<Destination> {
    match written.as_str() {
        "stdout" => Some(Destination::Stdout),
        "stderr" => Some(Destination::Stderr),
        path => match path.parse() {
            Ok(path) => Some(Destination::File(cx.path(&Spanned::new(path, written.span)))),
            Err(reason) => {
                cx.report.error(Code::BadValue, written.span, "no place to log to", reason);
                None
            }
        },
    }
}

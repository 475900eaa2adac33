//! What scopes say about errors.

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
    value::{Spanned, Status},
};

/// What one scope says about errors.
pub(super) struct OwnErrors {
    format: Option<Format>,
    pages: BTreeMap<StatusCode, Page>,
}

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

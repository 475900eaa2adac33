//! What concerns the process as a whole.

use std::{thread, time::Duration};

use super::context::Context;
use crate::{
    config::document::Admin,
    diagnostic::{Code, Diagnostic},
    snapshot::{ADMIN_PATHS, Process},
    value::Bind,
};

pub(super) struct Settings {
    pub process: Process,
    pub drain_timeout: Duration,
    pub admin: Option<Bind>,
    pub metrics_path: String,
}

const DRAIN: Duration = Duration::from_secs(30);

pub(super) fn compile(cx: &Context<'_>) -> Settings {
    let document = cx.document;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = document.process.threads.map_or_else(cores, |threads| threads.get().into());
    Settings {
        process: Process { threads },
        drain_timeout: document.drain_timeout.map_or(DRAIN, |timeout| timeout.get()),
        admin: document.admin.as_ref().and_then(|admin| address(cx, admin)),
        metrics_path: metrics_path(cx),
    }
}

fn address(cx: &Context<'_>, admin: &Admin) -> Option<Bind> {
    let bind = &admin.bind.value;
    let is_ours = bind.socket_addr().is_none_or(|address| address.ip().is_loopback());
    if !is_ours {
        let message = "administration from other machines is not supported yet";
        let help =
            "an address of this machine alone is \"127.0.0.1:9901\" or \"unix:/run/portolan/admin.sock\"";
        cx.report.push(Diagnostic::error(Code::NotSupportedYet, admin.bind.span, message).help(help));
        return None;
    }
    Some(bind.clone())
}

fn metrics_path(cx: &Context<'_>) -> String {
    let Some(written) = &cx.document.metrics.path else { return "/metrics".to_owned() };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let problem = if ADMIN_PATHS.contains(&written.as_str()) {
        "the administration shows something else there"
    } else if !written.starts_with('/') || !written.bytes().all(plain) {
        "a path starts with \"/\" and goes on with letters, digits, \"/\", \"-\", \".\", \"_\" and \"~\""
    } else {
        return written.value.clone();
    };
    let message = format!("the metrics cannot be at {:?}", written.value);
    cx.report.error(Code::BadValue, written.span, message, problem);
    String::new()
}

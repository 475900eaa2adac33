//! What concerns the process as a whole.

use std::{path::PathBuf, thread, time::Duration};

use super::context::Context;
use crate::{
    config::document::Admin,
    diagnostic::{Code, Diagnostic},
    snapshot::Process,
    value::Bind,
};

pub(super) struct Settings {
    pub process: Process,
    pub drain_timeout: Duration,
    pub admin: Option<PathBuf>,
}

const DRAIN: Duration = Duration::from_secs(30);

pub(super) fn compile(cx: &Context<'_>) -> Settings {
    let document = cx.document;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = document.process.threads.map_or_else(cores, |threads| threads.get().into());
    Settings {
        process: Process { threads },
        drain_timeout: document.drain_timeout.map_or(DRAIN, |timeout| timeout.get()),
        admin: document.admin.as_ref().and_then(|admin| socket(cx, admin)),
    }
}

fn socket(cx: &Context<'_>, admin: &Admin) -> Option<PathBuf> {
    match &admin.bind.value {
        Bind::Unix(path) => Some(path.clone()),
        Bind::Any(_) | Bind::Tcp(_) => {
            let message = "administration over TCP is not supported yet";
            let help = "a unix socket is: \"unix:/run/portolan/admin.sock\"";
            cx.report.push(Diagnostic::error(Code::NotSupportedYet, admin.bind.span, message).help(help));
            None
        }
    }
}

//! What concerns the process as a whole.

use std::{thread, time::Duration};

use super::context::Context;
use crate::{
    config::document::Admin,
    diagnostic::{Code, Diagnostic},
    snapshot::{ADMIN_PATHS, Process},
    value::{Bind, Secret, Spanned},
};

pub(super) struct Settings {
    pub process: Process,
    pub drain_timeout: Duration,
    pub admin: Option<Bind>,
    pub admin_token: Option<Secret>,
    pub metrics_path: String,
}

/// Of a token: as long as nobody finds it by trying.
const SHORTEST_TOKEN: usize = 16;
const DRAIN: Duration = Duration::from_secs(30);

pub(super) fn compile(cx: &Context<'_>) -> Settings {
    let document = cx.document;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = document.process.threads.map_or_else(cores, |threads| threads.get().into());
    let admin = document.admin.as_ref();
    let token = admin.and_then(|admin| admin.token.as_ref());
    admin.inspect(|admin| check_address(cx, admin));
    token.inspect(|token| check_token(cx, token));
    Settings {
        process: Process { threads },
        drain_timeout: document.drain_timeout.map_or(DRAIN, |timeout| timeout.get()),
        admin: admin.map(|admin| admin.bind.value.clone()),
        admin_token: token.map(|token| token.value.clone()),
        metrics_path: metrics_path(cx),
    }
}

/// Whoever reaches it could reload and look at everything.
fn check_address(cx: &Context<'_>, admin: &Admin) {
    if admin.token.is_none() && !admin.bind.is_of_this_machine() {
        let message = "administration from other machines needs a token";
        let help = "token: \"${file:/etc/portolan/admin.token}\"; an address of this machine alone, which needs none, is \
                    \"127.0.0.1:9901\" or \"unix:/run/portolan/admin.sock\"";
        cx.report.push(Diagnostic::error(Code::MissingKey, admin.bind.span, message).help(help));
    }
}

fn check_token(cx: &Context<'_>, token: &Spanned<Secret>) {
    let text = &token.value.0;
    let message = if text.len() < SHORTEST_TOKEN {
        "a token of fewer than 16 characters is found by trying"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "a token is made of visible ASCII characters, without spaces"
    } else {
        return;
    };
    let help = "openssl rand -hex 32 makes one";
    cx.report.push(Diagnostic::error(Code::BadValue, token.span, message).help(help));
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

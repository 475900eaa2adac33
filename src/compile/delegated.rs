//! What delegated files are held to as a whole: the tenant that they belong to, and the host names that they may
//! have.

use std::collections::HashMap;

use super::context::Context;
use crate::{
    config::delegated::Grant,
    diagnostic::{Code, Diagnostic},
    routing::HostPattern,
    value::{Name, Span},
};

/// The host names that each tenant may have.
pub(super) struct Allowed<'a>(HashMap<&'a str, Vec<HostPattern>>);

/// Looks at what the include says; the files' own part is looked at with all others.
pub(super) fn allowed<'a>(cx: &Context<'a>) -> Allowed<'a> {
    let grants = cx.document.delegated.iter().map(|delegated| &delegated.grant);
    let allowed = grants.map(|grant| {
        cx.names.tenants.find(&grant.tenant, &cx.report);
        if grant.hosts.is_empty() {
            let message = format!("{} may have no host names", grant.tenant);
            cx.report.push(
                Diagnostic::error(Code::MissingKey, grant.tenant.span, message).help("hosts: [acme.example]"),
            );
        }
        check_allowed(cx, grant);
        let patterns = grant.hosts.iter().filter_map(|written| super::hosts::pattern(cx, written));
        (grant.tenant.as_str(), patterns.collect())
    });
    Allowed(allowed.collect())
}

/// Reports what stands in `allow_upstreams` without being denied, or without being to be had.
fn check_allowed(cx: &Context<'_>, grant: &Grant) {
    for allowed in grant.allow_upstreams.iter().filter(|allowed| !allowed.can_be_allowed()) {
        let message = format!("allow_upstreams has no effect for {}", allowed.value);
        let reason = "it allows loopback addresses and unix sockets only";
        let help = "remove it: other addresses are allowed unless deny_upstreams has them; link-local addresses and \
                    the admin API are always denied to delegated files";
        cx.report.push(Diagnostic::error(Code::NoEffect, allowed.span, message).reason(reason).help(help));
    }
}

impl Allowed<'_> {
    /// Reports a name that a tenant's host may not have.
    pub fn check(&self, cx: &Context<'_>, host: &Name, pattern: &HostPattern, span: Span) {
        let Some((tenant, _)) = host.owned() else { return };
        let allowed = self.0.get(tenant).map(Vec::as_slice).unwrap_or_default();
        if allowed.iter().any(|allowed| allowed.covers(pattern)) {
            return;
        }
        let names: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let message = format!("{tenant} may not have the host name {pattern}");
        let problem = Diagnostic::error(Code::ForbiddenHost, span, message);
        let help = (!names.is_empty()).then(|| format!("its include allows {}", names.join(", ")));
        cx.report.push(problem.maybe_help(help));
    }
}

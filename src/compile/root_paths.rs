//! Warns of `path: /` where every path was meant: nginx and Traefik match all below a prefix, a pattern here is exact.

use std::collections::BTreeMap;

use super::{context::Context, hosts, route};
use crate::{
    diagnostic::{Code, Diagnostic},
    snapshot::Action,
    value::Span,
};

/// The paths by which an upstream, or a host's redirects, are reached.
#[derive(Default)]
struct Reached {
    /// Where "/" stands first.
    root: Option<Span>,
    /// By some other path too.
    otherwise: bool,
}

/// Warns where "/" is the only path that leads to an upstream, or that a host has for a redirect.
pub(super) fn warn(cx: &Context<'_>, hosts: &[hosts::Draft<'_>]) {
    let mut upstreams = BTreeMap::<String, Reached>::new();
    for host in hosts {
        let mut redirects = Reached::default();
        for route in &host.routes {
            for (upstream, _) in route.action.upstreams() {
                upstreams.entry(upstream.name.to_string()).or_default().note(route);
            }
            match &route.action {
                Action::Redirect(_) => redirects.note(route),
                _ => redirects.otherwise = true,
            }
        }
        redirects.warn(cx, "nothing below it is redirected");
    }
    for (upstream, reached) in upstreams {
        reached.warn(cx, &format!("nothing below it reaches upstream {upstream}"));
    }
}

// === impl Reached ===

impl Reached {
    fn note(&mut self, route: &route::Draft<'_>) {
        for (pattern, place) in route.patterns.iter().zip(&route.places) {
            match pattern.is_root() {
                true => self.root = self.root.or(Some(*place)),
                false => self.otherwise = true,
            }
        }
    }

    fn warn(self, cx: &Context<'_>, reason: &str) {
        let Some(root) = self.root.filter(|_| !self.otherwise) else { return };
        let problem = Diagnostic::warning(Code::ExactRoot, root, "\"/\" matches only the path \"/\"");
        cx.idle(problem.reason(reason).help("write \"/**\" to match every path"));
    }
}

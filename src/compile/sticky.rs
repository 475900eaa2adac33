//! Sticky sessions of the upstreams of one host: each needs a cookie of its own.

use std::{rc::Rc, sync::Arc};

use super::{context::Context, route::Draft as Route};
use crate::{
    diagnostic::{Code, Diagnostic},
    upstream::{Sticky, Upstream},
    value::{Name, Span, Spanned},
};

/// Warns of two upstreams of a host whose cookies browsers take for one: each request would replace the cookie of the other.
pub(super) fn warn_of_one_cookie(cx: &Context<'_>, host: &Spanned<Name>, routes: &[Rc<Route<'_>>]) {
    let mut seen: Vec<(&Upstream, &Sticky, Span)> = Vec::new();
    for (upstream, span) in routes.iter().flat_map(|route| upstreams(route)) {
        let Some(sticky) = upstream.sticky.as_deref() else { continue };
        if seen.iter().any(|(other, ..)| other.name == upstream.name) {
            continue;
        }
        if let Some((other, _, first)) = seen.iter().find(|(_, other, _)| other.has_cookie_of(sticky)) {
            let message = format!(
                "upstreams {} and {} of host {host} set the same cookie {}: each replaces the other's",
                other.name,
                upstream.name,
                sticky.cookie()
            );
            let problem = Diagnostic::warning(Code::NoEffect, span, message).label(*first, "the other");
            cx.report.push(problem.help("give each its own name: sticky: { cookie: NAME }"));
        }
        seen.push((upstream, sticky, span));
    }
}

/// The upstreams of a route, and where they are written.
fn upstreams<'r>(route: &'r Route<'_>) -> Vec<(&'r Arc<Upstream>, Span)> {
    let Some(written) = &route.config.proxy else { return Vec::new() };
    let sides = written.split.iter().flat_map(|split| &split.value).map(|entry| entry.upstream.span);
    let places = written.upstream.iter().map(|upstream| upstream.span).chain(sides);
    route.action.upstreams().into_iter().map(|(upstream, _)| upstream).zip(places).collect()
}

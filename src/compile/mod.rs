//! From what a person wrote to what is served. Pure but for [`Inputs`], which remembers what it was asked;
//! total: every problem comes back, and a snapshot where none of them is an error.

mod access_log;
mod alike;
mod answers;
#[cfg(test)]
mod cases;
mod certificates;
mod chains;
mod context;
mod delegated;
pub mod explain;
mod explain_split;
#[cfg(test)]
mod habits;
mod handshake;
mod hosts;
mod listeners;
mod names;
mod query;
mod redis;
mod root_paths;
mod route;
pub mod routes;
mod settings;
mod spans;
mod split;
mod sticky;
mod tables;
mod tests_section;
mod upstreams;

pub use explain::{Explanation, explain};
pub use query::{Query, QueryError};
pub use routes::{Row, rows};
pub use tests_section::{Outcome, Test, failed, run};

use std::sync::Arc;

use crate::{
    action::split as split_action,
    config::{Document, Inputs},
    diagnostic::{Diagnostics, Sources},
    middleware::{HeavyWork, Windows, basic_auth, jwt, limit},
    snapshot::Snapshot,
    store,
    telemetry::{access_log::Sinks, metrics::Metrics},
    tls::{SelfSigned, Tickets},
    trace, upstream,
    value::Clock,
};
use context::Context;

/// What outlives a snapshot and is handed from one to the next.
pub struct Registries {
    pub upstreams: upstream::Registry,
    pub splits: split_action::Registry,
    pub limits: limit::Registry,
    pub passwords: basic_auth::Registry,
    pub jwks: jwt::Registry,
    pub redis: store::Registry,
    pub self_signed: SelfSigned,
    pub tickets: Tickets,
    pub access_logs: Sinks,
    pub spans: trace::Registry,
    pub metrics: Arc<Metrics>,
    pub heavy_work: HeavyWork,
    pub windows: Windows,
    /// Where the admin API listens: delegated upstreams and forward targets do not lead there.
    pub admin: upstream::AdminAddresses,
}

impl Default for Registries {
    fn default() -> Self {
        let metrics = Arc::<Metrics>::default();
        Self {
            upstreams: upstream::Registry::new(Clock::machine(), None, metrics.clone()),
            splits: split_action::Registry::new(Clock::machine(), metrics.clone()),
            limits: limit::Registry::new(Clock::machine()),
            passwords: basic_auth::Registry::default(),
            jwks: jwt::Registry::new(Clock::machine()),
            redis: store::Registry::default(),
            self_signed: SelfSigned::default(),
            tickets: Tickets::default(),
            access_logs: Sinks::default(),
            spans: trace::Registry::new(metrics.spans()),
            metrics,
            heavy_work: HeavyWork::default(),
            windows: Windows::default(),
            admin: upstream::AdminAddresses::default(),
        }
    }
}

/// Compiles a document. There is no snapshot where a problem is an error, or was one for the loader.
pub fn compile(
    document: &Document,
    sources: &Sources,
    inputs: &Inputs,
    registries: &Registries,
) -> (Option<Snapshot>, Diagnostics) {
    let cx = Context::new(document, sources, inputs, registries);

    // What is referred to by name, each checked where it is defined.
    chains::check_loops(&cx);
    let certificates = certificates::compile(&cx);
    let upstreams = upstreams::compile(&cx, &certificates);

    // What refers to it. A listener is done when its hosts are known.
    let errors = answers::default_errors(&cx);
    let listeners = listeners::draft(&cx);
    let hosts = hosts::draft(&cx, &upstreams, &certificates, &listeners, &errors);
    let listeners = listeners::finish(&cx, listeners, &hosts, &certificates, &upstreams, &errors);

    root_paths::warn(&cx, &hosts);
    let tests = tests_section::compile(&cx, &listeners);
    let settings = settings::compile(&cx);
    cx.names.warn_of_unused(&cx);
    cx.redis.warn_if_unused(&cx);
    cx.warn_of_unused_resolvers();

    // Whatever was wrong is known by now: only then may a part be missing.
    let mut diagnostics = cx.report.into_diagnostics();
    diagnostics.retain(|problem| !document.left_out.may_have_caused(problem));
    let sound = document.left_out.is_empty() && !diagnostics.has_errors();
    let snapshot = sound.then(|| Snapshot {
        generation: 0,
        hash: inputs.hash(),
        loaded_at: std::time::SystemTime::now(),
        process: settings.process,
        drain_timeout: settings.drain_timeout,
        admin: settings.admin,
        admin_token: settings.admin_token,
        metrics_path: settings.metrics_path,
        log: document.log.clone(),
        listeners,
        upstreams: upstreams.into_built(),
        certificates: certificates.ends(),
        tests,
        watch: inputs.watched(),
    });
    (snapshot, diagnostics)
}

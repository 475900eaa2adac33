//! Discovery beside requests: its tasks, the first answers that a configuration waits for, and the files that list
//! endpoints.

use std::{path::PathBuf, time::Duration, time::SystemTime};

use serde_json::{Value, json};

use super::{
    tasks::{Kind, Tasks},
    watch::{Changes, Watcher},
};
use crate::{
    upstream::{
        self, Upstream,
        discovery::{Definition, Source},
    },
    value::Timestamp,
};

/// How long a configuration waits for the first answers, so that its first requests find endpoints.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// Starts the tasks of new sources, and waits a while for their first answers.
pub async fn begin(registry: &upstream::Registry, tasks: &Tasks) {
    let sources = registry.sources();
    for task in sources.iter().filter_map(Source::task) {
        tasks.spawn(Kind::Discovery, task.run());
    }
    let first_answers = async {
        for source in &sources {
            source.asked().await;
        }
    };
    // Those that take longer are waited for by nobody but their own routes.
    let _ = tokio::time::timeout(FIRST_ANSWERS, first_answers).await;
}

/// Watches the files that list endpoints from now on.
pub fn watch(watcher: &mut Watcher, registry: &upstream::Registry, asked: SystemTime) {
    let sources = registry.sources();
    let files: Vec<PathBuf> = sources.iter().filter_map(|source| file(source).cloned()).collect();
    if !files.is_empty() || watcher.watches() {
        watcher.renew(&files, asked);
    }
}

/// Has files of endpoints read again after every burst of changes.
pub async fn follow(mut changes: Changes, registry: upstream::Registry) {
    loop {
        changes.next().await;
        for source in registry.sources() {
            if file(&source).is_some() {
                source.refresh();
            }
        }
    }
}

fn file(source: &Source) -> Option<&PathBuf> {
    match source.definition() {
        Definition::File { path, .. } => Some(path),
        Definition::Dns(_) | Definition::Srv(_) => None,
    }
}

/// How an upstream's sources do.
pub fn json(upstream: &Upstream) -> Value {
    let source = |source: &std::sync::Arc<Source>| {
        let history = source.history();
        json!({
            "source": source.definition().to_string(),
            "endpoints": source.found().len(),
            "last_success": history.last_success.map(|time| Timestamp(time).to_string()),
            "failures": history.failures,
            "error": history.problem,
        })
    };
    upstream.sources().iter().map(source).collect()
}

/// The endpoints that were found but are denied to the upstream.
pub fn denied(upstream: &Upstream) -> Value {
    let denied = upstream.denied().into_iter();
    denied.map(|(address, reason)| json!({ "address": address, "reason": reason })).collect()
}

/// The sources that have no answer that can be used, with the upstreams that wait for it.
pub fn complaints(upstream: &Upstream) -> impl Iterator<Item = Value> {
    let name = upstream.name.clone();
    let failing = upstream.sources().into_iter().filter(|source| source.history().failures_in_a_row > 0);
    failing.map(move |source| {
        let source = source.definition().to_string();
        json!({ "cause": "discovery_failed", "upstream": name.as_str(), "source": source })
    })
}

//! The splits of the routes that serve, for those who administer the process.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    action::split::{Side, Split},
    snapshot::{Action, Snapshot},
};

/// The splits of a snapshot, by where they are written.
pub(super) fn splits(snapshot: &Snapshot) -> Vec<Arc<Split>> {
    let hosts = snapshot.listeners.values().flat_map(|listener| listener.table.hosts());
    let splits = hosts.flat_map(|host| host.routes()).filter_map(|route| match &route.payload.action {
        Action::Split(split) => Some((split.site.clone(), split.clone())),
        _ => None,
    });
    splits.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Shows whoever looks at the metrics how canaries do.
pub(super) fn show(splits: &[Arc<Split>]) {
    let sides = splits.iter().flat_map(|split| &split.sides);
    sides.filter_map(|side| side.canary.as_ref()).for_each(|(_, state)| state.show());
}

pub(super) fn json(split: &Split) -> Value {
    json!({ "name": &*split.site, "sides": split.sides.iter().map(side).collect::<Value>() })
}

fn side(side: &Side) -> Value {
    let canary = side.canary.as_ref().map(|(_, state)| {
        let counts = state.counts();
        json!({
            "state": state.phase().word(),
            "seconds_left": state.left().map(|left| left.as_secs_f64().ceil() as u64),
            "requests": counts.total,
            "failures": counts.failures,
        })
    });
    json!({
        "name": side.name.as_str(),
        "upstream": side.proxy.upstream.name.as_str(),
        "weight": side.weight,
        "canary": canary,
    })
}

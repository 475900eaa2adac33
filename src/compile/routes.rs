//! The routes of a snapshot, one row for each pattern, in the order in which they are tried.

use serde::Serialize;

use crate::{
    routing::Listed,
    snapshot::{Action, Host, Listener, Route, Snapshot},
};

/// One pattern of one route on one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub listener: String,
    pub host: String,
    /// The names that the host answers to.
    pub names: Vec<String>,
    pub pattern: String,
    /// Empty: all.
    pub methods: Vec<String>,
    /// In words, methods included; empty: none.
    pub conditions: String,
    pub route: String,
    pub action: String,
    /// The kinds of the chain, outermost first.
    pub chain: Vec<&'static str>,
}

/// The rows of a snapshot: listeners and hosts by name, routes as they are tried.
pub fn rows(snapshot: &Snapshot) -> Vec<Row> {
    snapshot.listeners.values().flat_map(|listener| of_listener(listener)).collect()
}

fn of_listener(listener: &Listener) -> Vec<Row> {
    let redirect = listener.redirect.as_ref().map(|redirect| {
        let route = &redirect.route;
        Row {
            listener: listener.name.to_string(),
            host: "-".into(),
            names: vec!["*".into()],
            pattern: "/**".into(),
            methods: Vec::new(),
            conditions: String::new(),
            route: route.names.route.to_string(),
            action: action(&route.action),
            chain: chain(route),
        }
    });
    let hosts = listener.table.hosts().iter().zip(&*listener.hosts);
    let hosted =
        hosts.flat_map(|(laid_out, host)| laid_out.listed().map(move |listed| row(listener, host, &listed)));
    redirect.into_iter().chain(hosted).collect()
}

fn row(listener: &Listener, host: &Host, listed: &Listed<'_, Route>) -> Row {
    let route = &listed.route.payload;
    Row {
        listener: listener.name.to_string(),
        host: host.name.to_string(),
        names: host.names.iter().map(ToString::to_string).collect(),
        pattern: listed.pattern.to_string(),
        methods: listed.route.conditions.methods().iter().map(ToString::to_string).collect(),
        conditions: listed.route.conditions.to_string(),
        route: route.names.route.to_string(),
        action: action(&route.action),
        chain: chain(route),
    }
}

fn chain(route: &Route) -> Vec<&'static str> {
    route.chain.parts().iter().map(|part| part.kind).collect()
}

/// An action in a few words.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Proxy(proxy) => format!("proxy {}", proxy.upstream.name),
        Action::Split(split) => split.to_string(),
        Action::Redirect(redirect) => format!("redirect {}", redirect.status.as_u16()),
        Action::Respond(respond) => format!("respond {}", respond.status.as_u16()),
        Action::Forward(_) => "forward".into(),
        Action::Unmatched => "none".into(),
    }
}

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use super::{
    Format,
    output::{self, Exit, print},
    socket::Process,
};
use crate::admin::client::Question;

/// Shows how the running process does
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    process: Process,
    /// How it is shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Status {
    pub fn run(self) -> Exit {
        let status = match self.process.ask(Question::Status) {
            Ok(status) => status,
            Err(exit) => return exit,
        };
        match self.format {
            Format::Json => output::json(&status),
            Format::Text => print(text(&status)),
        }
        Exit::Success
    }
}

fn text(status: &Value) -> String {
    let word = |key: &str| status[key].as_str().unwrap_or("-").to_owned();
    let hash = word("hash");
    let mut text = format!(
        "portolan {}, process {}, {} for {}\n",
        word("version"),
        status["pid"],
        word("state"),
        duration(status["uptime_seconds"].as_u64().unwrap_or(0)),
    );
    line(&mut text, "configuration", &word("configuration"));
    line(&mut text, "generation", &format!("{}, since {}", status["generation"], word("loaded_at")));
    line(&mut text, "hash", hash.get(..12).unwrap_or(&hash));
    line(&mut text, "hosts", &status["hosts"].to_string());
    line(&mut text, "connections", &status["connections"].to_string());
    if let Some(reason) = status["watching"]["reason"].as_str() {
        let interval = &status["watching"]["interval_seconds"];
        line(&mut text, "files", &format!("polled every {interval}s: {reason}"));
    }
    for listener in list(&status["listeners"]) {
        let addresses = words(&listener["addresses"]);
        let protocols = words(&listener["protocols"]);
        let name = format!("listener {}", listener["name"].as_str().unwrap_or_default());
        line(&mut text, &name, &format!("{addresses} ({protocols}), {} open", listener["connections"]));
    }
    for upstream in list(&status["upstreams"]) {
        let name = format!("upstream {}", upstream["name"].as_str().unwrap_or_default());
        line(&mut text, &name, &state_of_upstream(upstream));
        for endpoint in list(&upstream["endpoints"]) {
            let address = endpoint["address"].as_str().unwrap_or_default();
            let state = state_of_endpoint(endpoint);
            line(
                &mut text,
                &format!("  {address}"),
                &format!("{state}, {} in flight", endpoint["in_flight"]),
            );
        }
        for source in list(&upstream["discovery"]) {
            let name = format!("  {}", source["source"].as_str().unwrap_or_default());
            line(&mut text, &name, &discovery(source));
        }
        for denied in list(&upstream["denied"]) {
            let word = |key: &str| denied[key].as_str().unwrap_or_default();
            line(
                &mut text,
                &format!("  {}", word("address")),
                &format!("found, but denied: {}", word("reason")),
            );
        }
    }
    for split in list(&status["splits"]) {
        line(&mut text, &format!("split {}", split["name"].as_str().unwrap_or_default()), "");
        for side in list(&split["sides"]) {
            line(
                &mut text,
                &format!("  {}", side["name"].as_str().unwrap_or_default()),
                &state_of_side(side),
            );
        }
    }
    for tenant in list(&status["tenants"]) {
        let name = format!("tenant {}", tenant["name"].as_str().unwrap_or_default());
        line(&mut text, &name, tenants(tenant));
    }
    for (to, lines) in status["access_log_lost"].as_object().into_iter().flatten().filter(|(_, n)| **n != 0) {
        line(&mut text, &format!("access log {to}"), &format!("{lines} lines were lost"));
    }
    for tenant in list(&status["tenants"]).filter(|tenant| tenant["state"] != "current") {
        let word = |key: &str| tenant[key].as_str().unwrap_or_default();
        let (name, since, problems) = (word("name"), word("since"), word("text"));
        put(&mut text, format_args!("\nThe files of tenant {name} are wrong since {since}:\n\n{problems}\n"));
    }
    if let Some(error) = status["last_error"].as_object() {
        let time = error.get("time").and_then(Value::as_str).unwrap_or_default();
        let problems = error.get("text").and_then(Value::as_str).unwrap_or_default();
        put(
            &mut text,
            format_args!("\nThe configuration was refused at {time}:\n\n{}\n", problems.trim_end()),
        );
    }
    text
}

fn state_of_upstream(upstream: &Value) -> String {
    let circuit = upstream["circuit"].as_str().filter(|circuit| *circuit != "closed");
    let circuit = circuit.map(|circuit| format!("circuit {}", circuit.replace('_', " ")));
    let panic = (upstream["panic"] == true).then(|| "panic: all endpoints are used".to_owned());
    let sticky = upstream["sticky"]["cookie"].as_str().map(|cookie| format!("sticky by cookie {cookie}"));
    let hedge = match &upstream["hedge_after_ms"] {
        Value::Number(after) => Some(format!("hedges after {after}ms")),
        Value::Null if upstream.get("hedge_after_ms").is_some() => {
            Some("hedges none before enough response times are known".to_owned())
        }
        _ => None,
    };
    let limit = upstream["in_flight_limit"].as_u64();
    let limit = limit.map(|limit| format!("{} of {limit} in flight", upstream["in_flight"]));
    circuit.into_iter().chain(panic).chain(sticky).chain(limit).chain(hedge).collect::<Vec<_>>().join(", ")
}

fn state_of_endpoint(endpoint: &Value) -> String {
    let health = if endpoint["healthy"] == true { "healthy" } else { "unhealthy" };
    let drained = match (&endpoint["drained"], &endpoint["drained_of_sticky_clients"]) {
        (_, Value::Bool(true)) => ", drained of sticky clients too",
        (Value::Bool(true), Value::Bool(false)) => ", drained, keeps sticky clients",
        (Value::Bool(true), _) => ", drained",
        _ => "",
    };
    let ejected = endpoint["ejected_seconds"].as_u64();
    let ejected = ejected.map(|left| format!(", ejected for {left}s")).unwrap_or_default();
    let failed = endpoint["check_failure"].as_str();
    let failed = failed.map(|reason| format!(" (check failed: {reason})")).unwrap_or_default();
    format!("{health}{failed}{drained}{ejected}, weight {}", endpoint["weight"])
}

fn state_of_side(side: &Value) -> String {
    let upstream = side["upstream"].as_str().unwrap_or_default();
    let canary = &side["canary"];
    let state = match (canary["state"].as_str(), canary["seconds_left"].as_u64()) {
        (None, _) => String::new(),
        (Some(_), Some(left)) => format!(", canary stepped back for {left}s"),
        (Some(state), None) => format!(", canary {state}"),
    };
    let failed = match canary["requests"].as_u64() {
        Some(requests @ 1..) => format!(", {} of {requests} requests failed", canary["failures"]),
        _ => String::new(),
    };
    format!("upstream {upstream}, weight {}{state}{failed}", side["weight"])
}

fn discovery(source: &Value) -> String {
    let found = format!("{} found", source["endpoints"]);
    let word = |key: &str| source[key].as_str();
    match (word("error"), word("last_success")) {
        (None, Some(_)) => found,
        (None, None) => "not answered yet".into(),
        (Some(error), None) => format!("none found: {error}"),
        (Some(error), Some(last)) => format!("{found}, last at {last}: {error}"),
    }
}

fn tenants(tenant: &Value) -> &'static str {
    match tenant["state"].as_str() {
        Some("kept") => "its files are wrong, earlier ones serve",
        Some("absent") => "its files are wrong, it has no hosts",
        _ => "serves by its files",
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    put(text, format_args!("{}\n", format!("{name:<24} {value}").trim_end()));
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes all that is written");
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> String {
    list(value).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The two largest units of it.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_what_programs_see() {
        let status = json!({
            "version": "0.1.0", "pid": 7, "state": "serving", "uptime_seconds": 3700, "generation": 3,
            "hash": "0123456789abcdef", "configuration": "/etc/portolan/portolan.yaml", "loaded_at": "2026-01-31T23:59:59.000Z", "connections": 4,
            "watching": { "by": "polling", "interval_seconds": 2, "reason": "the limit is used up" },
            "listeners": [{ "name": "web", "addresses": [":80"], "protocols": ["h1", "h2c"], "connections": 4 }],
            "upstreams": [{ "name": "app", "circuit": "half_open", "panic": true, "endpoints": [
                { "address": "10.0.0.1:80", "weight": 1, "healthy": false, "check_failure": "NOT_SERVING", "in_flight": 2 },
                { "address": "10.0.0.2:80", "weight": 1, "healthy": true, "drained": true, "ejected_seconds": 7, "in_flight": 0 }] }],
            "tenants": [{ "name": "acme", "state": "kept", "since": "2026-01-31T00:00:00.000Z", "text": "error[a]" },
                { "name": "globex", "state": "current", "since": "2026-01-31T00:00:00.000Z", "text": "" }],
            "access_log_lost": { "stdout": 0, "/var/log/a": 5 },
            "last_error": { "time": "2026-02-01T00:00:00.000Z", "text": "error[unknown-key]", "diagnostics": [] },
        });
        let text = text(&status);
        for part in [
            "process 7, serving for 1h 1m",
            "configuration            /etc/portolan/portolan.yaml",
            "generation               3, since 2026-01-31T23:59:59.000Z",
            "listener web             :80 (h1, h2c), 4 open",
            "files                    polled every 2s: the limit is used up",
            "upstream app             circuit half open, panic: all endpoints are used",
            "unhealthy (check failed: NOT_SERVING), weight 1, 2 in flight",
            "healthy, drained, ejected for 7s, weight 1, 0 in flight",
            "5 lines were lost",
            "tenant acme              its files are wrong, earlier ones serve",
            "tenant globex            serves by its files",
            "The files of tenant acme are wrong since 2026-01-31T00:00:00.000Z:\n\nerror[a]",
            "refused at 2026-02-01",
            "error[unknown-key]",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("access log stdout"));
    }
}

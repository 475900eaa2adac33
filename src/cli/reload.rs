use clap::Args;
use serde_json::Value;

use super::{
    Format,
    output::{self, Exit, complain, print},
    socket::Process,
};
use crate::admin::client::Question;

/// Has the running process read its configuration again, and waits for the outcome
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    process: Process,
    /// How the outcome is shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Reload {
    pub fn run(self) -> Exit {
        let report = match self.process.ask(Question::Reload) {
            Ok(report) => report,
            Err(exit) => return exit,
        };
        match self.format {
            Format::Json => output::json(&report),
            Format::Text => show(&report),
        }
        match report["result"].as_str() {
            Some("refused") => Exit::Configuration,
            _ => Exit::Success,
        }
    }
}

fn show(report: &Value) {
    let text = report["text"].as_str().unwrap_or_default().trim_end();
    if !text.is_empty() {
        complain(text);
    }
    let (generation, took) = (&report["generation"], &report["duration_ms"]);
    let who = format!("process {}, {}", report["pid"], report["configuration"].as_str().unwrap_or("-"));
    match report["result"].as_str() {
        Some("refused") => {
            complain(format!("{who}: the configuration is refused; generation {generation} stays live"));
        }
        Some("unchanged") => print(format!("{who}: nothing has changed; generation {generation} stays live")),
        _ => print(format!("{who}: generation {generation} is live, after {took} ms")),
    }
    let tenants = report["tenants"].as_array().into_iter().flatten();
    for tenant in tenants.filter(|tenant| tenant["state"] != "current") {
        let name = tenant["name"].as_str().unwrap_or_default();
        complain(match tenant["state"].as_str() {
            Some("kept") => format!("the files of tenant {name} are wrong: earlier ones go on"),
            _ => format!("the files of tenant {name} are wrong: it has no hosts"),
        });
    }
}

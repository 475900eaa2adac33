//! The table of habitual spellings, `tests/cases/habits.txt`: each is accepted, or the diagnostic names the right form.

use std::path::Path;

use super::cases::compile_files;
use crate::{
    config::Inputs,
    diagnostic::{Style, text},
};

const TABLE: &str = include_str!("../../tests/cases/habits.txt");

/// A sound configuration with a spelling at a place of it.
fn configuration(place: &str, spelling: &str) -> String {
    let at = |wanted: &str, sound: &str| if place == wanted { spelling.to_owned() } else { sound.to_owned() };
    let comma = |wanted: &str| if place == wanted { format!(", {spelling}") } else { String::new() };
    let route = format!("path: \"/**\", {}", at("route", "proxy: app"));
    let routes = match spelling.strip_prefix("- ") {
        Some(item) if place == "routes" => format!("[{item}]"),
        _ => at("routes", &format!("{{ r: {{ {route} }} }}")),
    };
    let certificates = if spelling.starts_with("tls:") && place == "listener" {
        "certificates: { c: { self_signed: [a.example] } }"
    } else {
        ""
    };
    format!(
        "{root}\n{certificates}\nlisteners: {{ web: {{ bind: \":80\"{listener} }}, other: {{ bind: \":81\" }} }}\n\
         hosts: {{ www: {{ names: [a.example]{host}, routes: {routes} }} }}\n\
         upstreams: {{ {upstreams} }}\n",
        root = at("root", ""),
        listener = comma("listener"),
        host = comma("host"),
        upstreams = at("upstreams", &format!("app: {{ endpoints: [\"127.0.0.1:1\"]{} }}", comma("upstream"))),
    )
}

#[test]
fn every_habitual_spelling_is_accepted_or_explained() {
    let mut rows = 0;
    let mut wrong = Vec::new();
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = row.splitn(3, " | ").collect();
        let [place, spelling, answer] = parts[..] else { panic!("{row}: PLACE | SPELLING | ANSWER") };
        rows += 1;
        let tree = configuration(place, spelling);
        let inputs = Inputs::memory([("portolan.yaml", tree.as_str())], [("", ""); 0]);
        let (snapshot, diagnostics, sources) = compile_files(Path::new("portolan.yaml"), &inputs);
        let said = text(&diagnostics, &sources, Style::Plain);
        let is_right = match answer {
            "accepted" => snapshot.is_some() && !diagnostics.has_errors(),
            part => diagnostics.has_errors() && said.contains(part),
        };
        if !is_right {
            wrong.push(format!("{row}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {rows}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 120);
}

//! Commands as people type them, and the codes by which scripts read them.

use super::support::{Outcome, Tree, portolan};

const GOOD: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["127.0.0.1:9", "127.0.0.1:10"] } }
hosts:
  www:
    names: [www.example.com]
    middleware: [{ request_id: {} }]
    routes:
      item: { path: "/items/{id}", methods: [GET], headers: { X-Beta: 1 }, proxy: { upstream: app, rewrite: "/v2/{id}" } }
      old: { path: "/old/{rest...}", redirect: { to: "/new/{rest}" } }
tests:
  - request: { url: "http://www.example.com/items/7", headers: { X-Beta: 1 }, listener: web }
    expect: { host: www, route: item, upstream: app, rewrite: /v2/7 }
"#;

/// Runs a command beside a file `portolan.yaml` of this text.
fn run(yaml: &str, arguments: &[&str]) -> Outcome {
    let tree = Tree::new();
    tree.write("portolan.yaml", yaml);
    portolan(&tree.path(""), arguments)
}

#[test]
fn a_good_tree_checks_out() {
    let outcome = run(GOOD, &["check", "portolan.yaml"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn every_problem_is_shown_in_one_run() {
    let bad =
        GOOD.replace("endpoints", "endponits").replace("upstream: app, rewrite", "upstream: ap, rewrite");
    let bad = bad.replace("redirect: { to", "redirect: { status: 200, to");
    let outcome = run(&bad, &["check", "portolan.yaml"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    for part in ["endponits", "endpoints", "portolan.yaml:3"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains('\x1b'), "colour only on a terminal");
}

#[test]
fn problems_are_shown_to_machines_too() {
    let outcome = run(
        &GOOD.replace("proxy: { upstream: app", "proxy: { upstream: ap"),
        &["check", "--format", "json", "portolan.yaml"],
    );
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON on stdout");
    let text = value.to_string();
    for part in ["unknown-name", "\"line\":9", "app"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let outcome = run(GOOD, &["check", "nowhere.yaml"]);
    assert!(outcome.code > 0 && format!("{outcome:?}").contains("nowhere.yaml"), "{outcome:?}");
    let outcome = run(GOOD, &["run", "nowhere.yaml"]);
    assert!(outcome.code > 0, "{outcome:?}");
}

#[test]
fn words_that_are_no_command_are_a_usage_error() {
    for arguments in [&["chekc"][..], &["check", "--nothing"]] {
        let outcome = run(GOOD, arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn without_a_command_it_runs() {
    let broken = GOOD.replace("path: \"/old", "pth: \"/old");
    let (bare, run) = (run(&broken, &[]), run(&broken, &["run"]));
    assert_eq!((bare.code, &bare.stderr), (1, &run.stderr));
    assert!(bare.stderr.contains("did you mean `path`"), "{bare:?}");
}

#[test]
fn the_tests_of_a_tree_run() {
    let good = run(GOOD, &["test", "portolan.yaml"]);
    assert_eq!(good.code, 0, "{good:?}");
    let bad = run(&GOOD.replace("rewrite: /v2/7", "rewrite: /v3/7"), &["test", "portolan.yaml"]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(format!("{bad:?}").contains("/v2/7"), "what came instead: {bad:?}");
}

#[test]
fn explain_shows_the_way_of_a_request() {
    let outcome = run(GOOD, &["explain", "GET", "http://www.example.com/items/7", "-H", "X-Beta: 1"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for part in ["web", "www", "item", "id", "7", "request_id", "app", "/v2/7", "127.0.0.1:9"] {
        assert!(outcome.stdout.contains(part), "{part} in {}", outcome.stdout);
    }
    let miss = run(GOOD, &["explain", "GET", "http://www.example.com/items/7"]);
    for part in ["item", "X-Beta"] {
        assert!(miss.stdout.to_lowercase().contains(&part.to_lowercase()), "{part} in {}", miss.stdout);
    }
}

#[test]
fn routes_shows_the_table() {
    let outcome = run(GOOD, &["routes", "portolan.yaml"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for part in ["www.example.com", "/items/{id}", "item", "app"] {
        assert!(outcome.stdout.contains(part), "{part} in {}", outcome.stdout);
    }
}

#[test]
fn schema_is_a_json_schema() {
    let outcome = run(GOOD, &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(schema["properties"]["listeners"].is_object());
}

#[test]
fn init_writes_a_tree_that_checks_out() {
    let tree = Tree::new();
    let outcome = portolan(&tree.path(""), &["init", "mine"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let check = portolan(&tree.path("mine"), &["check", "portolan.yaml"]);
    assert_eq!(check.code, 0, "{check:?}");
    let again = portolan(&tree.path(""), &["init", "mine"]);
    assert!(again.code > 0, "what is there is not overwritten: {again:?}");
}

#[test]
fn version_completions_and_man_page() {
    let version = run(GOOD, &["version"]);
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    for shell in ["bash", "zsh", "fish"] {
        let outcome = run(GOOD, &["completions", shell]);
        assert!(outcome.code == 0 && outcome.stdout.contains("portolan"), "{outcome:?}");
    }
    let man = run(GOOD, &["man"]);
    assert!(man.code == 0 && man.stdout.contains(".TH"), "{man:?}");
}

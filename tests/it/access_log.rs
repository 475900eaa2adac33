//! One line for each request, and nothing lost of it.

use super::support::{Origin, Proxy, Tree, config, to, until};

#[test]
fn a_line_says_what_became_of_a_request() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    proxy
        .client()
        .send("GET /a/b?c=d HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: tests\r\n\r\n")
        .response();
    let line = proxy.access_line_of("/a/b");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["status"], 200);
    assert_eq!(line["route"], "all");
    assert_eq!(line["upstream"], "origin");
    assert_eq!(line["endpoint"], origin.address().to_string());
    assert_eq!(line["listener"], "web");
    assert!(line.get("reason").is_none_or(serde_json::Value::is_null), "{line}");
}

#[test]
fn answers_of_our_own_carry_their_reason() {
    let proxy = Proxy::start(&to(&[&"127.0.0.1:1"]));
    assert_eq!(proxy.client().get("/x").status, 502);
    assert_eq!(proxy.access_line_of("/x")["reason"], "connect_refused");
}

#[test]
fn it_is_turned_off_where_that_is_said() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      quiet: { path: /quiet, respond: { body: ok }, access_log: false }
      loud: { path: /loud, respond: { body: ok } }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    client.get("/quiet");
    client.get("/loud");
    proxy.access_line_of("/loud");
    assert!(proxy.access_log().iter().all(|line| line["path"] != "/quiet"));
}

#[test]
fn the_combined_form_goes_to_a_file() {
    let origin = Origin::saying("hello");
    let yaml = format!("{}access_log: {{ format: combined, to: access.log }}\n", to(&[&origin.address()]));
    let proxy = Proxy::start(&yaml);
    proxy
        .client()
        .send("GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: te\"sts\r\nReferer: http://b/\r\n\r\n")
        .response();
    until("a line", || proxy.tree().read("access.log").ends_with('\n'));
    let line = proxy.tree().read("access.log");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("\"GET /a HTTP/1.1\" 200 5 \"http://b/\""), "{line}");
    assert!(!line.contains("te\"sts"), "what a client sends is escaped: {line}");
}

#[test]
fn a_client_cannot_forge_lines() {
    let proxy = Proxy::start(&to(&[&"127.0.0.1:1"]));
    let mut client = proxy.client();
    client.send(b"GET /forged HTTP/1.1\r\nHost: a\r\nUser-Agent: \"}{\\n\xff\r\n\r\n").response();
    proxy.access_line_of("/forged");
}

#[test]
fn a_reader_that_does_not_read_blocks_no_request() {
    // A pipe that nobody empties, at the place of the log file.
    let tree = Tree::new();
    let made = std::process::Command::new("mkfifo").arg(tree.path("pipe")).status().unwrap();
    assert!(made.success());
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(tree.path("pipe")).unwrap();
    let origin = Origin::saying("hello");
    let yaml = config("BASEaccess_log: { to: pipe }\n", &[("BASE", &to(&[&origin.address()]))]);
    let proxy = Proxy::start_in(tree, &yaml);
    let mut client = proxy.client();
    for n in 0..3000 {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
    }
}

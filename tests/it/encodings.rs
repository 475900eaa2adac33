//! Text files that the configuration names, as editors save them: with a byte order mark, with lines that end in CR LF,
//! and in encodings that are refused.

use super::support::{Outcome, Proxy, Tree, portolan};

const MAIN: &str = r#"
include: part.yaml
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  www:
    names: ["*"]
    routes:
      open: { path: /open, middleware: [ip: { allow: [{ file: networks.txt }] }], respond: { body: "${file:word.txt}" } }
      users: { path: /users, middleware: [basic_auth: { file: users.txt }], respond: { body: in } }
      keys: { path: /keys, middleware: [api_key: { file: keys.txt, from: "header:X-Key" }], respond: { body: in } }
      tokens: { path: /tokens, middleware: [jwt: { jwks: jwks.json }], respond: {} }
      orders: { path: /orders, middleware: [validate: { query: query.json }], respond: { body: in } }
"#;

/// Text files by name. Password and key are "secret".
const FILES: [(&str, &str); 7] = [
    ("part.yaml", "# Größe\nprocess: { threads: 1 }\n"),
    ("networks.txt", "# Büro\n127.0.0.0/8\n::1\n"),
    ("word.txt", "wört\n"),
    ("users.txt", "# für alle\nann:$2y$04$8DnHYFmuNA1L0eW3O2EBoODVmcfXlA/XPFj44XBH/1WehrElwZ./W\n"),
    ("keys.txt", "# für alle\napp:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n"),
    (
        "jwks.json",
        "{\n\"keys\": [{\"kty\":\"OKP\",\"kid\":\"ü\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}\n",
    ),
    ("query.json", "{\n\"description\": \"Größe\", \"properties\": { \"n\": { \"type\": \"integer\" } } }\n"),
];

fn tree(save: impl Fn(&str, &str) -> Vec<u8>) -> Tree {
    let tree = Tree::new();
    tree.write("portolan.yaml", save("portolan.yaml", MAIN));
    FILES.iter().for_each(|(name, text)| {
        tree.write(name, save(name, text));
    });
    tree
}

fn check(tree: &Tree) -> Outcome {
    portolan(&tree.path(""), &["check", "portolan.yaml"])
}

fn marked(text: &str) -> Vec<u8> {
    format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes()
}

#[test]
fn marks_and_carriage_returns_are_no_part_of_what_is_read() {
    let tree = tree(|name, text| if name == "portolan.yaml" { text.into() } else { marked(text) });
    let proxy = Proxy::start_in(tree, &MAIN.replace("include: part.yaml\n", ""));
    let ask = |request: &str, field: &str| {
        let head = format!("GET {request} HTTP/1.1\r\nHost: a.test\r\n{field}\r\n");
        let response = proxy.client().send(head).response();
        (response.status, response.text())
    };
    assert_eq!(ask("/open", ""), (200, "wört".into()));
    assert_eq!(ask("/users", "Authorization: Basic YW5uOnNlY3JldA==\r\n").0, 200);
    assert_eq!(ask("/users", "Authorization: Basic YW5uOm90aGVy\r\n").0, 401);
    assert_eq!(ask("/keys", "X-Key: secret\r\n").0, 200);
    assert_eq!(ask("/keys", "X-Key: other\r\n").0, 401);
    assert_eq!((ask("/orders?n=1", "").0, ask("/orders?n=one", "").0), (200, 400));
}

#[test]
fn every_text_file_is_read_alike() {
    for save in [
        |text: &str| text.as_bytes().to_vec(),
        |text: &str| format!("\u{feff}{text}").into_bytes(),
        |text: &str| text.replace('\n', "\r\n").into_bytes(),
        marked,
    ] {
        let outcome = check(&tree(|_, text| save(text)));
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
    let toml = Tree::new();
    let text = "[listeners.web]\nbind = \"127.0.0.1:0\"\n[hosts.a]\nnames = [\"*\"]\n[hosts.a.routes.r]\npath = \"/\"\nrespond = {}\n";
    toml.write("portolan.toml", marked(text));
    let outcome = portolan(&toml.path(""), &["check", "portolan.toml"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn other_encodings_are_named_with_the_file_and_the_way_out() {
    let utf16 = |mark: &str, text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("{mark}{text}").encode_utf16().flat_map(bytes).collect()
    };
    let latin =
        |text: &str| -> Vec<u8> { text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect() };
    for name in FILES.map(|(name, _)| name).into_iter().chain(["portolan.yaml"]) {
        let text = FILES.iter().find(|(file, _)| *file == name).map_or(MAIN, |(_, text)| text);
        let mut cases = vec![
            (utf16("\u{feff}", text, u16::to_le_bytes), "UTF-16"),
            (utf16("\u{feff}", text, u16::to_be_bytes), "UTF-16"),
        ];
        if name != "portolan.yaml" {
            cases.push((latin(text), "is not UTF-8"));
        }
        if text.is_ascii() {
            cases.push((utf16("", text, u16::to_le_bytes), "UTF-16"));
        }
        for (bytes, said) in cases {
            let outcome = check(&tree(|file, text| if file == name { bytes.clone() } else { text.into() }));
            assert_eq!(outcome.code, 1, "{name} {said}: {outcome:?}");
            for part in ["error[not-utf8]", name, said, "as UTF-8"] {
                assert!(outcome.stderr.contains(part), "{part} of {name} in {}", outcome.stderr);
            }
        }
    }
}

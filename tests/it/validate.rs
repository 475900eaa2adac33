//! Requests that are not as a JSON Schema says.

use std::io::Write as _;

use serde_json::{Value, json};

use super::support::{Origin, Proxy, Response, Tree, config, until};

const CONFIG: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      orders:
        path: /orders
        middleware: [{ decompress: {} }, { validate: { body: schemas/order.json, max_size: 100KB, status: 422 } }]
        proxy: { upstream: origin }
      coded: { path: /coded, middleware: [{ validate: { body: schemas/order.json } }], proxy: { upstream: origin } }
      items:
        path: "/items/{id}"
        middleware: [{ validate: { query: schemas/paging.json, params: schemas/item.json } }]
        proxy: { upstream: origin }
      tried:
        path: /tried
        middleware: [{ validate: { body: schemas/order.json, max_size: 100B, mode: observe } }]
        proxy: { upstream: origin }
"#;

const ORDER: &str = r#"{
  "type": "object", "required": ["customer"], "additionalProperties": false,
  "properties": {
    "customer": { "type": "string", "pattern": "^[a-z]+$" },
    "items": { "type": "array", "items": { "type": "object", "properties": { "price": { "type": "number" } } } },
    "note": { "type": "string" }
  }
}"#;

fn start() -> (Origin, Proxy) {
    let origin = Origin::saying("taken");
    let tree = Tree::new();
    tree.write("schemas/order.json", ORDER);
    tree.write("schemas/paging.json", r#"{ "properties": { "page": { "type": "integer", "minimum": 1 } } }"#);
    tree.write("schemas/item.json", r#"{ "properties": { "id": { "type": "integer" } } }"#);
    let proxy = Proxy::start_in(tree, &config(CONFIG, &[("ORIGIN", &origin.address())]));
    (origin, proxy)
}

fn post_as(proxy: &Proxy, path: &str, fields: &str, body: &[u8]) -> Response {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    proxy.client().send([head.as_bytes(), body].concat()).response()
}

fn post(proxy: &Proxy, path: &str, body: &[u8]) -> Response {
    post_as(proxy, path, "Content-Type: application/json\r\n", body)
}

/// Where it is wrong, and in what.
fn wrong(response: &Response) -> Vec<(String, String)> {
    let body: Value = serde_json::from_slice(&response.message.body).expect("an error in JSON");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = body["violations"].as_array().unwrap().iter();
    all.map(|violation| (text(&violation["in"]), text(&violation["path"]))).collect()
}

#[test]
fn every_violation_of_a_body_is_named() {
    let (origin, proxy) = start();
    let right = br#"{ "customer": "ada", "items": [{ "price": 1.5 }] }"#;
    assert_eq!(post(&proxy, "/orders", right).text(), "taken");
    assert_eq!(origin.request().body, right);
    let response =
        post(&proxy, "/orders", br#"{ "customer": "ADA", "items": [{ "price": "secret" }], "x": 1 }"#);
    assert_eq!(response.status, 422);
    let body: Value = serde_json::from_slice(&response.message.body).unwrap();
    assert_eq!((&body["error"], &body["status"]), (&json!("invalid_request"), &json!(422)), "{body}");
    let mut all = wrong(&response);
    all.sort();
    let in_body = |path: &str| ("body".to_owned(), path.to_owned());
    assert_eq!(all, [in_body(""), in_body("/customer"), in_body("/items/0/price")]);
    assert!(!response.text().contains("secret"), "{}", response.text());
    assert_eq!(wrong(&post(&proxy, "/orders", b"{ no json")), [in_body("")]);
    assert_eq!(wrong(&post(&proxy, "/orders", b"")), [in_body("")], "there is none");
    assert_eq!(proxy.access_line(|line| line["status"] == 422)["reason"], "invalid_request");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn bodies_are_json_within_their_limit() {
    let (origin, proxy) = start();
    let right = br#"{ "customer": "ada" }"#;
    for (fields, status) in [
        ("Content-Type: application/vnd.order+json; v=1\r\n", 200),
        ("Content-Type: text/plain\r\n", 415),
        ("", 415),
    ] {
        let response = post_as(&proxy, "/orders", fields, right);
        assert_eq!(response.status, status, "{fields}");
        assert_eq!(response.field("accept"), (status == 415).then_some("application/json"));
    }
    let large = |length: usize| format!(r#"{{ "customer": "ada", "note": "{}" }}"#, "x".repeat(length));
    assert_eq!(
        post(&proxy, "/orders", large(90_000).as_bytes()).text(),
        "taken",
        "looked at beside the workers"
    );
    assert_eq!(post(&proxy, "/orders", large(100_000).as_bytes()).status, 413);
    let mut chunked = proxy.client();
    chunked.send("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let _ = chunked.try_send(format!("{:x}\r\n{}\r\n0\r\n\r\n", large(100_000).len(), large(100_000)));
    assert_eq!(chunked.response().status, 413);
    let wrong_and_large = large(90_000).replace("ada", "ADA");
    assert_eq!(wrong(&post(&proxy, "/orders", wrong_and_large.as_bytes())).len(), 1);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn coded_bodies_are_looked_at_decoded_or_not_at_all() {
    let (origin, proxy) = start();
    let gzip = |text: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    };
    let fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let (right, bad) = (gzip(br#"{ "customer": "ada" }"#), gzip(b"{}"));
    assert_eq!(post_as(&proxy, "/orders", fields, &right).text(), "taken");
    assert_eq!(origin.request().text(), r#"{ "customer": "ada" }"#);
    assert_eq!(post_as(&proxy, "/orders", fields, &bad).status, 422);
    let unseen = post_as(&proxy, "/coded", fields, &right);
    assert_eq!((unseen.status, unseen.field("accept-encoding")), (415, Some("identity")));
}

#[test]
fn parameters_of_query_and_path_are_looked_at() {
    let (_origin, proxy) = start();
    let mut client = proxy.client();
    for path in ["/items/7", "/items/7?page=2&other=%20", "/items/%37"] {
        assert_eq!(client.get(path).text(), "taken", "{path}");
    }
    let response = client.get("/items/seven?page=0");
    assert_eq!(response.status, 400);
    let named = |place: &str, path: &str| (place.to_owned(), path.to_owned());
    assert_eq!(wrong(&response), [named("path", "/id"), named("query", "/page")]);
}

#[test]
fn what_only_observes_lets_in_and_says_so() {
    let (origin, proxy) = start();
    let large = format!(r#"{{ "customer": "{}" }}"#, "x".repeat(200));
    assert_eq!(post(&proxy, "/tried?wrong", b"{}").text(), "taken");
    assert_eq!(post(&proxy, "/tried?large", large.as_bytes()).text(), "taken");
    assert_eq!(post_as(&proxy, "/tried?type", "", b"{}").text(), "taken");
    let observed = |query: &str| proxy.access_line(|line| line["query"] == query)["observed"].clone();
    assert_eq!(observed("wrong"), json!(["invalid_request"]));
    assert_eq!(observed("large"), json!(["body_too_large"]));
    assert_eq!(observed("type"), json!(["unsupported_media_type"]));
    assert!(origin.requests()[1].text() == large, "it went on whole");
}

#[test]
fn a_schema_is_read_again_when_it_changes() {
    let (_origin, mut proxy) = start();
    assert_eq!(post(&proxy, "/orders", br#"{ "customer": "ada" }"#).status, 200);
    let before = proxy.generation();
    proxy.write("schemas/order.json", r#"{ "required": ["total"] }"#);
    proxy.wait_past(before);
    assert_eq!(post(&proxy, "/orders", br#"{ "customer": "ada" }"#).status, 422);
    proxy.write("schemas/order.json", r#"{ "type": "no" }"#);
    until("the bad schema is seen", || proxy.log().contains("is no JSON Schema"));
    assert_eq!(post(&proxy, "/orders", br#"{ "total": 1 }"#).status, 200, "the last good one holds");
}

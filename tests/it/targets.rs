//! The bytes of a request target: the same set by every protocol, and the query goes on as it came.

use serde_json::json;

use super::{
    http3::start,
    support::{H2Client, H2Origin, Origin, Proxy, Reaction, config, eventually, to},
};

/// Every graphic ASCII character but `#`, which begins a fragment.
const QUERY: &str = "q=!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~%zz&query=up{job=\"prometheus\"}";
/// What may stand in a path, and the one spelling in which it goes on.
const PATH: (&str, &str) = ("/a\"<>[]^`{|}b", "/a%22%3C%3E%5B%5D%5E%60%7B%7C%7Db");

/// What ends a target or is no part of one.
const WRONG: [&str; 5] = ["/a?b#c", "/a#", "/a?caf\u{e9}", "/a?\u{7f}", "/a?\u{122}"];

/// The target that came to the origin last.
#[track_caller]
fn target(origin: &Origin) -> String {
    let requests =
        eventually("a request", || Some(origin.requests()).filter(|requests| !requests.is_empty()));
    let last = requests.last().unwrap();
    last.start.strip_prefix("GET ").unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned()
}

const H2C: &str = r#"listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      stripped: { path: "/strip/**", proxy: { upstream: origin, rewrite: { strip_prefix: /strip } } }
      moved: { path: "/old/{name}", redirect: { to: "/new/{name}" } }
      keyed: { path: "/keyed", proxy: { upstream: origin }, middleware: [{ api_key: { keys: KEYS, from: "query:key" } }] }
"#;

fn before(origin: &Origin) -> Proxy {
    let keys = "{ a: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b }";
    Proxy::start(&config(H2C, &[("ORIGIN", &origin.address()), ("KEYS", &keys)]))
}

fn h2_fields(path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]
        .map(|(name, value)| (name.into(), value.into()))
        .into()
}

#[test]
fn a_query_goes_on_as_it_came_over_http_1() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin);
    let mut client = proxy.client();
    for (asked, arrived) in [
        (format!("/x?{QUERY}"), format!("/x?{QUERY}")),
        (format!("{}?{QUERY}", PATH.0), format!("{}?{QUERY}", PATH.1)),
        (format!("/strip/x?{QUERY}"), format!("/x?{QUERY}")),
        ("/a/../b?\"".to_owned(), "/b?\"".to_owned()),
        (format!("http://localhost/y?{QUERY}"), format!("/y?{QUERY}")),
        (format!("/keyed?key=secret&{QUERY}"), format!("/keyed?{QUERY}")),
    ] {
        // Each on the same connections: both sides go on.
        for _ in 0..2 {
            assert_eq!(client.get(&asked).status, 200, "{asked}");
            assert_eq!(target(&origin), arrived);
        }
    }
    let sent = client.send(format!(
        "POST /p?{QUERY} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ));
    assert_eq!(sent.response().status, 200);
    let last = origin.requests().pop().unwrap();
    assert_eq!((last.start, last.body), (format!("POST /p?{QUERY} HTTP/1.1"), b"abc".to_vec()));
    let line = proxy.access_line_of("/x");
    assert_eq!(line["query"], QUERY, "{line}");
}

#[test]
fn a_redirect_has_a_query_that_a_uri_may_have() {
    let proxy = before(&Origin::saying("ok"));
    let answer = proxy.client().get("/old/a?b=\"<c>\"");
    assert_eq!(answer.field("location"), Some("/new/a?b=%22%3Cc%3E%22"));
}

#[test]
fn a_target_with_other_bytes_is_rejected_over_http_1() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin);
    for wrong in WRONG {
        assert_eq!(proxy.client().get(wrong).status, 400, "{wrong}");
    }
    assert_eq!(origin.bytes(), 0);
}

#[test]
fn the_same_set_holds_over_http_3() {
    let origin = Origin::saying("ok");
    let secure = start(&origin.address(), "[h3]", "");
    let answer = secure.ask_one(json!({ "path": format!("{}?{QUERY}", PATH.0) }));
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(target(&origin), format!("{}?{QUERY}", PATH.1));
    // The client cannot send characters beyond these.
    for wrong in WRONG.iter().filter(|wrong| wrong.chars().all(|character| character <= '\u{ff}')) {
        let answer = secure.ask_one(json!({ "path": wrong }));
        assert!(answer["status"].is_null() || answer["status"] == 400, "{wrong}: {answer}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn the_same_set_holds_over_http_2() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin);
    let mut client = H2Client::tcp(proxy.port("web"));
    let asked =
        [format!("/x?{QUERY}"), format!("{}?{QUERY}", PATH.0), "/plain".to_owned(), "/`?a".to_owned()];
    let arrived =
        [format!("/x?{QUERY}"), format!("{}?{QUERY}", PATH.1), "/plain".to_owned(), "/%60?a".to_owned()];
    for (stream, (asked, arrived)) in (1..).step_by(2).zip(asked.iter().zip(arrived)) {
        client.headers(stream, &h2_fields(asked), true);
        assert_eq!(client.reaction(stream).unwrap(), Reaction::Answered, "{asked}");
        assert_eq!(target(&origin), arrived);
    }
    let requests = origin.requests().len();
    for (stream, wrong) in (101..).step_by(2).zip(WRONG) {
        client.headers(stream, &h2_fields(wrong), true);
        let reaction = client.reaction(stream).unwrap();
        assert!(!matches!(reaction, Reaction::Ended(_)), "{wrong}: {reaction:?}");
    }
    assert_eq!(origin.requests().len(), requests);
}

/// HTTP/2 upstream, a query is sent in the form that a URI has.
#[test]
fn an_upstream_of_http_2_gets_what_a_uri_may_have() {
    let origin = H2Origin::with_trailers();
    let proxy = Proxy::start(&to(&[&origin.address()]).replace("endpoints:", "protocol: h2c, endpoints:"));
    assert_eq!(proxy.client().get("/x?a=\"<b>\"").field("x-path"), Some("/x?a=%22%3Cb%3E%22"));
}

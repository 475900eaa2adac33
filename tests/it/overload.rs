//! What takes processor time or memory that clients choose, and more of it than there is.

use std::thread::available_parallelism;

use super::{
    auth::{behind, status},
    support::{Client, Origin, Proxy, Response, until},
};

/// By `htpasswd -nbB -C 11 ann secret`.
const BCRYPT: &str = "$2y$11$Z2NnqqYxxxP/D0yUubPnru.oNuA5a6A7foraFPaMYQPTumMWbkdNK";

#[test]
fn a_flood_of_wrong_passwords_is_refused_and_soon_forgotten() {
    let origin = Origin::saying("");
    let part = format!("{{ basic_auth: {{ users: {{ ann: \"{BCRYPT}\" }}, public: /quick }} }}");
    let proxy = Proxy::start(&behind(&part, &origin));
    assert_eq!(status(&proxy, "/", &["-u", "ann:secret"]), "200");
    let places = available_parallelism().unwrap().get() * 33;
    let flood: Vec<Client> = (0..places + 20)
        .map(|nth| {
            let mut client = proxy.client();
            let credentials = base64(&format!("ann:{nth}"));
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n"));
            client
        })
        .collect();
    let line = proxy.access_line(|line| line["reason"] == "overloaded");
    assert_eq!((line["status"].as_u64(), line["cause"].as_str()), (Some(503), Some("heavy_work")), "{line}");
    assert_eq!(status(&proxy, "/quick", &[]), "200", "others do not wait for them");
    assert_eq!(status(&proxy, "/", &["-u", "ann:secret"]), "200", "nor does who was let in before");
    drop(flood);
    until("there is room again", || status(&proxy, "/", &["-u", "ann:Secret"]) == "401");
    let refused =
        proxy.metric(r#"portolan_middleware_decisions_total{decision="refused",kind="basic_auth"}"#);
    assert!(refused.is_some_and(|refused| refused >= 2.0), "{refused:?}");
}

#[test]
fn bodies_that_are_decoded_have_so_much_memory_together() {
    let origin = Origin::saying("taken");
    let proxy = Proxy::start(&behind("{ decompress: {} }", &origin));
    let begin = || {
        let mut client = proxy.client();
        client.send(
            "POST /held HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        client
    };
    let held: Vec<Client> = (0..64).map(|_| begin()).collect();
    until("all of them are on their way", || origin.connections() == held.len());
    assert_eq!(post(&proxy).status, 503);
    let line = proxy.access_line(|line| line["reason"] == "overloaded");
    assert_eq!(line["cause"], "decoders", "{line}");
    assert_eq!(proxy.client().get("/plain").text(), "taken");
    drop(held);
    until("what they had is free", || post(&proxy).status == 200);
    assert_eq!(origin.requests().last().unwrap().text(), "hi");
}

/// A small body in gzip.
fn post(proxy: &Proxy) -> Response {
    let body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\xc8\x04\0\xac\x2a\x93\xd8\x02\0\0\0";
    let head = format!(
        "POST /small HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    proxy.client().send(head).send(body).response()
}

fn base64(text: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(text)
}

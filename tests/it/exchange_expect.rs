//! `Expect: 100-continue` (RFC 9110 section 10.1.1) over the whole way: the origin's answer decides.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::{
    exchange::secure,
    support::{HyperH2, Origin, Proxy, Reply, Secure, to},
};

/// What a client got that holds back its body until it is asked for it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    /// Interim responses: the status and the field `x-from`.
    interim: Vec<(u16, Option<String>)>,
    status: u16,
    body: String,
}

impl Got {
    /// Asked for the body by this one, the client got the answer to it.
    fn asked(from: Option<&str>) -> Self {
        Self { interim: vec![(100, from.map(Into::into))], status: 200, body: "hello".into() }
    }

    fn rejected(status: u16) -> Self {
        Self { status, body: "no".into(), ..Self::default() }
    }
}

/// An origin that answers by path, and with the body where it gets one.
fn origin() -> Origin {
    Origin::serving_early(|exchange| {
        let path = exchange.request.start.split(' ').nth(1).unwrap().to_owned();
        match &*path {
            "/asks" => exchange.send("HTTP/1.1 100 Continue\r\nX-From: origin\r\nContent-Length: 9\r\n\r\n"),
            "/rejects" => {
                exchange.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
                return Reply::Keep;
            }
            "/unauthorized" => {
                exchange
                    .send("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
                return Reply::Close;
            }
            _ => {}
        }
        let length = exchange.request.field("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = Vec::new();
        while body.len() < length {
            match exchange.read_some() {
                piece if piece.is_empty() => return Reply::Close,
                piece => body.extend(piece),
            }
        }
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        exchange.send(body);
        Reply::Keep
    })
}

fn over_http1(port: u16, path: &str) -> Got {
    let mut client = super::support::Client::tcp(port);
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    let mut got = Got::default();
    loop {
        let response = client.response();
        if response.status >= 200 {
            return Got { status: response.status, body: response.text(), ..got };
        }
        got.interim.push((response.status, response.field("x-from").map(Into::into)));
        assert_eq!(response.field("content-length"), None);
        if response.status == 100 && got.interim.len() == 1 {
            client.send("hello");
        }
    }
}

fn over_http2(port: u16, path: &str) -> Got {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://a{path}"))
            .header("expect", "100-continue")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let (mut response, mut body) = sender.send_request(request, false).unwrap();
        let mut got = Got::default();
        let head = poll_fn(|cx| {
            while let Poll::Ready(Some(head)) = response.poll_informational(cx) {
                let head = head.unwrap();
                let from = head.headers().get("x-from").map(|from| from.to_str().unwrap().into());
                got.interim.push((head.status().as_u16(), from));
                if head.status() == 100 && got.interim.len() == 1 {
                    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
                }
            }
            Pin::new(&mut response).poll(cx)
        });
        let (head, mut received) = head.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = received.data().await {
            text.extend(data.unwrap());
        }
        Got { status: head.status.as_u16(), body: String::from_utf8(text).unwrap(), ..got }
    })
}

fn over_http3(secure: &Secure, path: &str) -> Got {
    let fields = json!([["expect", "100-continue"], ["content-length", "5"]]);
    let answer = secure.ask_one(
        json!({ "method": "POST", "path": path, "body": "hello", "expect": true, "fields": fields }),
    );
    let interim = answer["interim"].as_array().unwrap().iter().map(|head| {
        let fields = head[1].as_array().unwrap();
        let from = fields.iter().find(|field| field[0] == "x-from");
        (head[0].as_u64().unwrap() as u16, from.map(|field| field[1].as_str().unwrap().into()))
    });
    Got {
        interim: interim.collect(),
        status: answer["status"].as_u64().unwrap_or(0) as u16,
        body: answer["body"].as_str().unwrap().into(),
    }
}

/// What clients of each protocol get.
fn all(secure: &Secure, path: &str) -> [(&'static str, Got); 3] {
    let port = secure.proxy.port("web");
    [
        ("HTTP/1", over_http1(port, path)),
        ("HTTP/2", over_http2(port, path)),
        ("HTTP/3", over_http3(secure, path)),
    ]
}

/// What the origin saw of the expectation, once for each request.
fn expectations(origin: &Origin) -> Vec<Option<String>> {
    origin.requests().iter().map(|request| request.field("expect").map(Into::into)).collect()
}

#[test]
fn the_origin_asks_for_the_body() {
    let origin = origin();
    let secure = secure(&origin);
    for (client, got) in all(&secure, "/asks") {
        assert_eq!(got, Got::asked(Some("origin")), "{client}");
    }
    assert_eq!(expectations(&origin), [const { Some("100-continue") }; 3].map(|seen| seen.map(String::from)));
}

#[test]
fn an_origin_that_answers_at_once_gets_no_body() {
    let origin = origin();
    let secure = secure(&origin);
    for (path, status) in [("/rejects", 417), ("/unauthorized", 401)] {
        for (client, got) in all(&secure, path) {
            assert_eq!(got, Got::rejected(status), "{client}");
        }
    }
    // Nothing but heads reached it, and a connection that waits for a body is not used again.
    let heads: usize = origin.requests().iter().map(|request| request.raw.len()).sum();
    assert_eq!(origin.bytes(), heads);
    assert_eq!(origin.connections(), 6);
}

#[test]
fn an_origin_that_says_nothing_gets_the_body_after_a_second() {
    let origin = origin();
    let secure = secure(&origin);
    let asked = Instant::now();
    for (client, got) in all(&secure, "/silent") {
        assert_eq!(got, Got::asked(None), "{client}");
    }
    let took = asked.elapsed() / 3;
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(expectations(&origin), [const { Some("100-continue") }; 3].map(|seen| seen.map(String::from)));
}

#[test]
fn middleware_that_reads_the_body_asks_for_it() {
    let origin = origin();
    let secure = secure(&origin);
    for (client, got) in all(&secure, "/buffered") {
        assert_eq!(got, Got::asked(None), "{client}");
    }
    assert_eq!(expectations(&origin), [const { None::<String> }; 3]);
}

#[test]
fn an_http2_origin_decides_too() {
    let mut origin = HyperH2::run(&json!({}));
    let proxy = Proxy::start(&to(&[&origin.address()]).replace("endpoints:", "protocol: h2c, endpoints:"));
    for ask in [over_http1, over_http2] {
        let got = ask(proxy.port("web"), "/asks");
        assert_eq!((got.interim, got.status), (vec![(100, Some("origin".to_owned()))], 200));
        let seen: Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!((&seen["expect"], &seen["length"]), (&json!("100-continue"), &json!(5)));
        assert_eq!(seen, origin.next());
        let got = ask(proxy.port("web"), "/rejects");
        assert_eq!((got.interim, got.status, got.body.as_str()), (vec![], 417, "big"));
    }
}

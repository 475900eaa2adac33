//! Responses in a coding that the client takes.

use std::io::{Read, Write};

use super::support::{Client, Nginx, Origin, Proxy, Reply, Tree, config, curl, free_port, until};

fn with(compress: &str, origin: &dyn std::fmt::Display) -> Proxy {
    let yaml = r#"
defaults: { middleware: [{ compress: COMPRESS }] }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    Proxy::start(&config(yaml, &[("COMPRESS", &compress), ("ORIGIN", origin)]))
}

#[test]
fn curl_reads_what_was_compressed_for_it() {
    let page = "a line of some page\n".repeat(20_000);
    let nginx = Nginx::start(Tree::new(), free_port(), "", "default_type text/plain;");
    nginx.tree().write("root/page", &page);
    nginx.tree().write("root/small", "small");
    let proxy = with("{}", &nginx.address());
    let url = proxy.url("web", "/page");
    for (accept, coding) in [("gzip", "gzip"), ("br", "br"), ("zstd, gzip;q=0.5", "zstd"), ("identity", "")] {
        let accept = format!("Accept-Encoding: {accept}");
        let head = curl(&["-D", "-", "-o", "/dev/null", "-H", &accept, &url]).stdout.to_ascii_lowercase();
        assert!(head.contains("vary: accept-encoding"), "{accept}: {head}");
        assert_eq!(head.contains("content-length: 400000"), coding.is_empty(), "{accept}: {head}");
        assert_eq!(head.contains("etag: w/"), !coding.is_empty(), "{accept}: {head}");
        assert_eq!(
            head.contains(&format!("content-encoding: {coding}")),
            !coding.is_empty(),
            "{accept}: {head}"
        );
    }
    let features = curl(&["--version"]).stdout;
    for (coding, feature) in [("gzip", "libz"), ("br", "brotli"), ("zstd", "zstd")] {
        if features.contains(feature) {
            let accept = format!("Accept-Encoding: {coding}");
            assert!(curl(&["--compressed", "-H", &accept, &url]).stdout == page, "{coding}");
        }
    }
    let small = curl(&["-i", "--compressed", &proxy.url("web", "/small")]).stdout.to_ascii_lowercase();
    assert!(!small.contains("content-encoding") && small.ends_with("small"), "{small}");
    let head = curl(&["-I", "--compressed", &url]).stdout.to_ascii_lowercase();
    assert!(head.contains("vary: accept-encoding") && head.contains("content-length: 400000"), "{head}");
}

#[test]
fn what_is_coded_already_and_server_sent_events_are_left() {
    for fields in ["Content-Type: text/plain\r\nContent-Encoding: other", "Content-Type: text/event-stream"] {
        let body = "x".repeat(2000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n{fields}\r\n\r\n{body}");
        let origin = Origin::replying(answer.into_bytes().leak());
        let proxy = with("{}", &origin.address());
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        assert_eq!(client.response().text(), body, "{fields}");
    }
}

#[test]
fn a_compressed_stream_is_not_held_back() {
    let origin = Origin::serving(|exchange| {
        exchange
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        exchange.send("d\r\ndata: first\n\n\r\n");
        // It says no more until the client has gone.
        let _ = exchange.stream.read(&mut [0]);
        Reply::Close
    });
    for coding in ["gzip", "br", "zstd"] {
        let proxy = with(&format!("{{ event_streams: true, algorithms: [{coding}] }}"), &origin.address());
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
        assert_eq!(client.response_head().field("content-encoding"), Some(coding));
        let mut coded = Vec::new();
        until("the first event is there", || {
            coded.extend(chunk(&mut client));
            decoded(coding, &coded) == b"data: first\n\n"
        });
    }
}

/// What can be read of a body that has not ended.
fn decoded(coding: &str, coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => {
            let mut decoder = flate2::write::GzDecoder::new(&mut plain);
            decoder.write_all(coded).unwrap();
            decoder.flush().unwrap();
        }
        "br" => drop(brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain)),
        _ => drop(zstd::Decoder::new(coded).unwrap().read_to_end(&mut plain)),
    }
    plain
}

fn chunk(client: &mut Client) -> Vec<u8> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(client.read_exactly(1)[0]));
    }
    let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
    let mut data = client.read_exactly(size + 2);
    data.truncate(size);
    data
}

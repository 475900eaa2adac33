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
}

/// The fields of a response, but for its framing and its time.
fn metadata(head: &str) -> Vec<String> {
    let own = ["date:", "transfer-encoding:", "connection:"];
    let lines = head.lines().map(str::to_ascii_lowercase);
    let mut lines: Vec<_> = lines.filter(|line| !own.iter().any(|name| line.starts_with(name))).collect();
    lines.sort();
    lines
}

#[test]
fn heads_without_a_body_say_what_the_one_with_it_says() {
    // RFC 9110 sections 8.6, 9.3.2 and 15.4.5.
    let origin = Origin::serving(|exchange| {
        let fields =
            "ETag: \"v1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Digest: sha-256=:AA==:";
        let start = exchange.request.start.clone();
        let kind = if start.contains("/image") { "image/png" } else { "text/plain" };
        let held = exchange.request.fields.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("if-none-match") || name.eq_ignore_ascii_case("if-modified-since")
        });
        match (start.split(' ').next(), held) {
            (_, true) => exchange.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n")),
            (_, _) if start.contains("/nothing") => exchange.send(format!(
                "HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n{fields}\r\n\r\n"
            )),
            (_, _) if start.contains("/reset") => exchange.send(format!(
                "HTTP/1.1 205 Reset Content\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n{fields}\r\n\r\n0\r\n\r\n"
            )),
            (method, _) => {
                let body = if method == Some("HEAD") { String::new() } else { "x".repeat(3400) };
                exchange.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 3400\r\n{fields}\r\n\r\n{body}"
                ));
            }
        }
        Reply::Keep
    });
    let proxy = with("{}", &origin.address());
    let head = |path: &str, version: &str, arguments: &[&str]| {
        let url = proxy.url("web", path);
        let fixed = ["-D", "-", "-o", "/dev/null", version, &url];
        curl(&[&fixed[..], arguments].concat()).stdout.to_ascii_lowercase()
    };
    let gzip = ["-H", "Accept-Encoding: gzip"];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/text", "/image"] {
            for accept in [&gzip[..], &[]] {
                let got = head(path, version, accept);
                let headed = head(path, version, &[accept, &["-I"]].concat());
                assert_eq!(metadata(&headed), metadata(&got), "{version} {path} {accept:?}");
                let coded = path == "/text" && !accept.is_empty();
                for said in ["etag: w/\"v1\"", "content-encoding: gzip"] {
                    assert_eq!(headed.contains(said), coded, "{version} {path} {accept:?}: {headed}");
                }
                for said in ["content-length: 3400", "content-digest:", "etag: \"v1\""] {
                    assert_eq!(headed.contains(said), !coded, "{version} {path} {accept:?}: {headed}");
                }
                assert_eq!(headed.contains("vary: accept-encoding"), path == "/text", "{headed}");
            }
        }
        for (held, tag) in [
            ("If-None-Match: W/\"v1\"", "w/\"v1\""),
            ("If-None-Match: \"v0\", W/\"v1\"", "w/\"v1\""),
            ("If-None-Match: *", "w/\"v1\""),
            ("If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT", "w/\"v1\""),
            ("If-None-Match: \"v1\"", "\"v1\""),
        ] {
            for method in [&[][..], &["-I"]] {
                let coded = head("/text", version, &[&gzip[..], &["-H", held], method].concat());
                assert!(coded.contains(" 304") && coded.contains("vary: accept-encoding"), "{held}: {coded}");
                assert!(coded.contains(&format!("etag: {tag}\r")), "{version} {held}: {coded}");
                assert!(!coded.contains("content-encoding"), "{held}: {coded}");
                let plain = head("/text", version, &[&["-H", held], method].concat());
                assert!(plain.contains("etag: \"v1\"\r"), "{held}: {plain}");
            }
        }
        for path in ["/nothing", "/reset"] {
            let headed = head(path, version, &gzip);
            assert!(!headed.contains("content-encoding") && headed.contains("etag: \"v1\""), "{headed}");
        }
    }
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

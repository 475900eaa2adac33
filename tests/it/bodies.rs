//! Request bodies that are held, decoded and looked at before they go upstream.

use std::io::Write as _;

use super::support::{Origin, Proxy, Response, config, curl, until};

fn with(middleware: &str, origin: &Origin) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", timeouts: { body_idle: 500ms } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    middleware: [MIDDLEWARE]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      short: { path: /short, proxy: { upstream: origin }, timeouts: { total: 100ms } }
      local: { path: /local, respond: { body: here } }
"#;
    Proxy::start(&config(yaml, &[("MIDDLEWARE", &middleware), ("ORIGIN", &origin.address())]))
}

fn send(proxy: &Proxy, request: impl AsRef<[u8]>) -> Response {
    proxy.client().send(request).response()
}

#[test]
fn an_upstream_is_taken_when_a_small_body_is_whole() {
    let origin = Origin::saying("taken");
    let proxy = with("{ buffer: { size: 1KiB } }", &origin);
    let mut slow = proxy.client();
    slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    let mut chunked = proxy.client();
    chunked.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n");
    assert_eq!(proxy.client().get("/other").text(), "taken");
    assert_eq!(origin.connections(), 1, "the others wait for their bodies");
    assert_eq!(slow.send("56789").response().text(), "taken");
    assert_eq!(chunked.send("5\r\n56789\r\n0\r\n\r\n").response().text(), "taken");
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests[1..] {
        assert_eq!(request.text(), "0123456789");
        assert_eq!(request.field("content-length"), Some("10"), "its length is known: {}", request.start);
        assert_eq!(request.values("transfer-encoding"), [""; 0]);
    }
}

#[test]
fn a_larger_body_goes_on_as_it_comes() {
    let origin = Origin::serving(|exchange| {
        let length = exchange.request.body.len().to_string();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len()));
        super::support::Reply::Keep
    });
    let proxy = with("{ buffer: { size: 1KiB } }", &origin);
    let mut announced = proxy.client();
    announced.send("POST /announced HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n0");
    until("the announced one is on its way", || origin.connections() == 1);
    assert_eq!(announced.send(vec![b'x'; 1999]).response().text(), "2000");
    let before = origin.bytes();
    let (mut grown, piece) = (proxy.client(), format!("400\r\n{}\r\n", "x".repeat(1024)));
    grown.send("POST /grown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    grown.send(&piece).send("1\r\nx\r\n");
    until("the grown one is on its way", || origin.bytes() > before + 1024);
    assert_eq!(grown.send(&piece).send("0\r\n\r\n").response().text(), "2049");
    assert_eq!(origin.requests()[1].field("transfer-encoding"), Some("chunked"));
}

#[test]
fn a_body_that_stalls_takes_no_upstream() {
    let origin = Origin::saying("taken");
    let proxy = with("{ buffer: {} }", &origin);
    let response = send(&proxy, "POST /stalls HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(response.status, 408);
    assert_eq!(proxy.access_line_of("/stalls")["reason"], "body_timeout");
    let late = send(&proxy, "POST /short HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!((late.status, proxy.access_line_of("/short")["reason"].as_str()), (408, Some("body_timeout")));
    assert!(
        proxy.access_line_of("/short")["duration_ms"].as_f64()
            < proxy.access_line_of("/stalls")["duration_ms"].as_f64()
    );
    let mut gone = proxy.client();
    gone.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    drop(gone);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn who_waits_to_be_asked_is_asked_and_what_nobody_reads_is_not_held() {
    let origin = Origin::saying("taken");
    let proxy = with("{ buffer: {} }", &origin);
    let mut client = proxy.client();
    client.send("POST /asks HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response_head().status, 100);
    assert_eq!(client.send("hi").response().text(), "taken");
    let local = "POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(send(&proxy, local).text(), "here");
}

#[test]
fn bodies_of_http2_are_held_too() {
    let origin = Origin::saying("taken");
    let proxy = with("{ buffer: {} }", &origin);
    let run = curl(&["--http2-prior-knowledge", "-d", "0123456789", &proxy.url("web", "/h2")]);
    assert_eq!(run.stdout, "taken");
    assert_eq!(origin.request().text(), "0123456789");
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(data).unwrap();
    gzip.finish().unwrap()
}

fn br(data: &[u8]) -> Vec<u8> {
    let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    br.write_all(data).unwrap();
    br.into_inner()
}

fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn coded_bodies_go_upstream_decoded() {
    let text: Vec<u8> = (0..50_000u32).flat_map(|n| (n % 977).to_le_bytes()).collect();
    for middleware in ["{ decompress: {} }", "{ decompress: {} }, { buffer: { size: 1MiB } }"] {
        let origin = Origin::saying("taken");
        let proxy = with(middleware, &origin);
        let codings = [
            ("gzip", gzip(&text)),
            ("br", br(&text)),
            ("zstd", zstd::stream::encode_all(&text[..], 3).unwrap()),
        ];
        for (coding, coded) in &codings {
            let request = post("/", &format!("Content-Encoding: {coding}\r\nContent-Type: a/b\r\n"), coded);
            assert_eq!(send(&proxy, request).text(), "taken", "{coding}");
        }
        let requests = origin.requests();
        assert_eq!(requests.len(), 3);
        for request in &requests {
            assert!(request.body == text, "{}", request.start);
            assert_eq!(request.values("content-encoding"), [""; 0]);
            let length = middleware.contains("buffer").then(|| text.len().to_string());
            assert_eq!(request.field("content-length"), length.as_deref(), "known where it was held");
            assert_eq!(request.field("content-type"), Some("a/b"));
        }
    }
}

#[test]
fn codings_that_are_not_taken_and_bombs_are_refused() {
    let origin = Origin::saying("taken");
    let proxy = with(
        "{ body_limit: { size: 100KB } }, { decompress: { algorithms: [gzip], max_size: 3MB } }",
        &origin,
    );
    let bomb = gzip(&vec![0; 2_000_000]);
    let large = gzip(&(0..1_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect::<Vec<_>>());
    let small = gzip(&vec![0; 1_000_000]);
    for (path, coding, body, status, reason) in [
        ("/unknown", "deflate", &b"x"[..], 415, "unsupported_coding"),
        ("/left-out", "br", &br(b"x"), 415, "unsupported_coding"),
        ("/twice", "gzip, gzip", &gzip(&gzip(b"x")), 415, "unsupported_coding"),
        ("/none", "gzip", b"no gzip at all", 400, "bad_coding"),
        ("/cut", "gzip", &small[..small.len() - 9], 400, "bad_coding"),
        ("/bomb", "gzip", &bomb, 413, "decoded_too_large"),
        ("/long", "gzip", &large[..], 413, "body_too_large"),
    ] {
        let response = send(&proxy, post(path, &format!("Content-Encoding: {coding}\r\n"), body));
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.field("accept-encoding"), (status == 415).then_some("gzip"), "{path}");
        assert_eq!(proxy.access_line_of(path)["reason"], reason);
    }
    assert_eq!(send(&proxy, post("/small", "Content-Encoding: gzip\r\n", &small)).text(), "taken");
    assert_eq!(send(&proxy, post("/plain", "", b"as it is")).text(), "taken");
    let whole = origin.requests().into_iter().map(|request| request.body.len()).collect::<Vec<_>>();
    assert_eq!(whole, [1_000_000, 8]);
}

#[test]
fn decompressing_that_only_observes_refuses_nothing() {
    let origin = Origin::saying("taken");
    let proxy = with("{ decompress: { max_size: 10B, mode: observe } }", &origin);
    assert_eq!(send(&proxy, post("/unknown", "Content-Encoding: deflate\r\n", b"x")).text(), "taken");
    assert_eq!(
        send(&proxy, post("/large", "Content-Encoding: gzip\r\n", &gzip(&[b'x'; 100]))).text(),
        "taken"
    );
    assert_eq!(proxy.access_line_of("/unknown")["observed"][0], "unsupported_coding");
    assert_eq!(proxy.access_line_of("/large")["observed"][0], "decoded_too_large");
    let bodies: Vec<usize> = origin.requests().iter().map(|request| request.body.len()).collect();
    assert_eq!(bodies, [1, 100]);
    assert_eq!(origin.requests()[0].field("content-encoding"), Some("deflate"));
}

#[test]
fn a_large_body_is_decoded_in_little_memory() {
    const LENGTH: usize = 256 << 20;
    let origin = Origin::serving_early(|exchange| {
        let (mut read, mut end) = (0, Vec::<u8>::new());
        while end != b"0\r\n\r\n" {
            let piece = exchange.read_some();
            if piece.is_empty() {
                break;
            }
            read += piece.len();
            end.extend(&piece[piece.len().saturating_sub(5)..]);
            end.drain(..end.len().saturating_sub(5));
        }
        let said = if read > LENGTH { "all" } else { "less" };
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()));
        super::support::Reply::Close
    });
    let proxy = with("{ decompress: { max_size: 1GiB, max_ratio: 1000000 } }", &origin);
    let coded = zstd::stream::encode_all(&*vec![0; LENGTH], 1).unwrap();
    assert_eq!(send(&proxy, post("/", "Content-Encoding: zstd\r\n", &coded)).text(), "all");
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: usize = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most < 128 << 10, "{most} KiB at the most");
}

//! Clients that mean harm over HTTP/2 and below it: each attack ends, memory stays where it was, and others are served
//! meanwhile. Bounded in count and time; that others are served as fast is shown by tests/bench/harm.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use super::support::{
    Certificates, Client, Frames, Nginx, Origin, Proxy, Reply, Tree, config,
    frames::{
        ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, length, request,
    },
    until,
};

/// A listener of HTTP/2 and HTTP/1.1 in the clear before an origin.
fn with(keys: &str, origin: &Origin) -> Proxy {
    Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c], KEYS } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#,
        &[("KEYS", &keys), ("ORIGIN", &origin.address())],
    ))
}

/// Runs an attack and sees that it cost little memory and that others are served after and beside it.
fn attack(proxy: &Proxy, run: impl FnOnce(&mut Frames)) {
    attack_within(24 << 20, proxy, run);
}

/// The same with another bound to memory, in bytes.
fn attack_within(most: u64, proxy: &Proxy, run: impl FnOnce(&mut Frames)) {
    assert_eq!(proxy.client().get("/before").status, 200);
    let before = proxy.resident();
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    run(&mut frames);
    assert_eq!(proxy.client().get("/beside").status, 200);
    let after = proxy.resident();
    assert!(after < before + most, "from {before} to {after} bytes");
}

fn requests_but_ours(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| !request.start.contains("be")).count()
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    attack(&proxy, |frames| {
        let mut stream = 1;
        while stream < 100_000 {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/attack"));
            let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            if !frames.write(&[open, reset].concat()) {
                break;
            }
            stream += 2;
        }
        assert!(stream < 100_000, "it was let go on");
        assert!(matches!(frames.ended(), Some(ENHANCE_YOUR_CALM) | None));
    });
    assert!(requests_but_ours(&origin) < 2_000, "{} requests reached the origin", requests_but_ours(&origin));
}

#[test]
fn resets_that_the_proxy_is_made_to_send_end_the_connection() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    attack(&proxy, |frames| {
        let mut stream = 1;
        while stream < 100_000 {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/attack"));
            // An increment of zero is an error of the stream (RFC 9113 section 6.9; CVE-2025-8671).
            let wrong = frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
            if !frames.write(&[open, wrong].concat()) {
                break;
            }
            stream += 2;
        }
        assert!(stream < 100_000, "it was let go on");
        let _ = frames.ended();
    });
}

#[test]
fn a_section_without_an_end_ends_the_connection() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    attack(&proxy, |frames| {
        frames.send(HEADERS, END_STREAM, 1, &request("GET", "/attack"));
        let field = super::support::frames::section(&[("x-filler", &"x".repeat(100))]).repeat(100);
        let sent = (0..100_000).take_while(|_| frames.send(CONTINUATION, 0, 1, &field)).count();
        assert!(sent < 10_000, "{sent} frames were taken");
        let _ = frames.ended();
    });
    assert_eq!(requests_but_ours(&origin), 0);
}

#[test]
fn empty_continuations_end_the_connection() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    attack(&proxy, |frames| {
        frames.send(HEADERS, END_STREAM, 1, &request("GET", "/attack"));
        let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
        let sent = (0..1000).take_while(|_| frames.write(&empty)).count();
        assert!(sent < 1000, "a million empty frames were taken");
    });
}

#[test]
fn fields_that_unpack_to_much_are_refused() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    attack(&proxy, |frames| {
        // One field of nearly the whole table, then thousands of one-byte references to it (RFC 7541 section 6.1).
        let mut section = request("GET", "/attack");
        let value = "x".repeat(4000 - 32 - 1);
        section.extend([&[0x40, 1, b'x'][..], &length(value.len())].concat());
        section.extend(value.as_bytes());
        section.extend([0x80 | 62; 8000]);
        for stream in (1..200).step_by(2) {
            if !frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &section) {
                break;
            }
        }
        let answer = std::iter::from_fn(|| frames.receive())
            .find(|frame| [HEADERS, RST_STREAM, super::support::frames::GOAWAY].contains(&frame.kind));
        assert!(answer.is_some(), "it is answered, or reset");
    });
    assert_eq!(requests_but_ours(&origin), 0);
}

/// What asks for an answer and does not take it: the proxy stops reading instead of keeping answers.
#[test]
fn questions_whose_answers_are_not_taken_are_not_remembered() {
    let origin = Origin::saying("hello");
    let proxy = with("", &origin);
    for question in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
        attack(&proxy, |frames| {
            frames.patience(Duration::from_secs(2));
            let many = question.repeat(1000);
            // 9 MB at the least, of which the proxy may take what the sockets hold.
            let _ = (0..1000).take_while(|_| frames.write(&many)).count();
        });
    }
}

#[test]
fn empty_frames_of_a_body_are_no_progress() {
    let origin = Origin::serving_early(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let plain = Origin::saying("hello");
    let proxy = Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { mute: { endpoints: ["MUTE"] }, plain: { endpoints: ["PLAIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      attack: { path: /attack, proxy: { upstream: mute } }
      all: { path: "/**", proxy: { upstream: plain } }
"#,
        &[("MUTE", &origin.address()), ("PLAIN", &plain.address())],
    ));
    attack(&proxy, |frames| {
        frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/attack"));
        let empty = frame(DATA, 0, 1, &[]).repeat(1000);
        let sent = (0..1000).take_while(|_| frames.write(&empty)).count();
        assert!(sent < 1000, "a million empty frames were taken");
        assert!(matches!(frames.ended(), Some(ENHANCE_YOUR_CALM) | None));
    });
}

#[test]
fn responses_that_are_not_taken_are_given_up_and_kept_small() {
    let nginx = Nginx::serving("location / { }");
    nginx.tree().write("root/large", vec![b'x'; 64 << 20]);
    let proxy = Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c], timeouts: { write_idle: 1s } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#,
        &[("ORIGIN", &nginx.address())],
    ));
    nginx.tree().write("root/before", "hello");
    nginx.tree().write("root/beside", "hello");
    // Pingora reads ahead of a client by nine pieces of 64 KiB for each of its streams.
    attack_within(96 << 20, &proxy, |frames| {
        // A window of nothing for every stream.
        frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        for stream in (1..200).step_by(2) {
            frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/large"));
        }
        let mut reset = 0;
        while reset < 100 {
            let frame = frames.receive().expect("the connection lives on");
            reset += usize::from(frame.kind == RST_STREAM);
        }
    });
    assert_eq!(proxy.access_line_of("/large")["reason"], "client_too_slow");
}

#[test]
fn streams_beyond_those_allowed_are_refused() {
    let origin = Origin::serving(|exchange| {
        if exchange.request.start.contains("attack") {
            exchange.read_to_end();
            return Reply::Close;
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Reply::Keep
    });
    let proxy = with("http2: { max_streams: 10 }", &origin);
    attack(&proxy, |frames| {
        // Once the settings are acknowledged they hold.
        frames.until(SETTINGS).unwrap();
        frames.send(SETTINGS, 1, 0, &[]);
        // More refusals than these end the connection, and with it the ten.
        for stream in (1..200).step_by(2) {
            assert!(frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/attack")));
        }
        until("ten requests are at the origin", || requests_but_ours(&origin) == 10);
    });
    assert_eq!(requests_but_ours(&origin), 10);
}

/// These listeners, with a certificate `site` of the authority that comes with them.
fn secure(listeners: &str) -> (Certificates, Proxy) {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("site", &["a.test"]);
    let yaml = config(
        r#"
certificates: { site: { cert: SITE.pem, key: SITE.key } }
listeners: LISTENERS
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#,
        &[("SITE", &certificates.file("site")), ("LISTENERS", &listeners)],
    );
    (certificates, Proxy::start_in(tree, &yaml))
}

#[test]
fn junk_before_tls_and_before_http_is_closed() {
    let (_certificates, proxy) = secure(
        r#"
  web: { bind: "127.0.0.1:0", protocols: [h1, h2c], timeouts: { handshake: 1s, header: 1s, idle: 1s } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [site] }, timeouts: { handshake: 1s, header: 1s } }"#,
    );
    let junk: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hello = [&[22, 3, 1, 0xff, 0xff][..], &junk].concat();
    for (listener, bytes) in [
        ("web", &junk[..]),
        ("secure", &junk[..]),
        ("secure", &hello[..]),
        ("secure", &hello[..20]),
        ("web", b"G"),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port(listener))).unwrap();
        let _ = socket.write_all(bytes);
        socket.set_read_timeout(Some(super::support::DEADLINE)).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.len() < 1000, "{listener}: {} bytes", rest.len());
    }
    assert_eq!(proxy.client().get("/").text(), "ok");
}

#[test]
fn a_client_may_not_renegotiate() {
    let (certificates, proxy) = secure(
        r#"{ secure: { bind: "127.0.0.1:0", tls: { certificates: [site] }, timeouts: { header: 1s } } }"#,
    );
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    let mut client = Command::new("timeout")
        .args(["20", "openssl", "s_client", "-connect", &address, "-tls1_2", "-CAfile", &certificates.ca()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open: at its end s_client would go by itself.
    let mut asks = client.stdin.take().unwrap();
    asks.write_all(b"R\n").unwrap();
    let run = client.wait_with_output().unwrap();
    drop(asks);
    let said = [&run.stdout[..], &run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    let refused = ["no renegotiation", "unexpected eof", "alert"];
    assert!(refused.iter().any(|word| said.contains(word)), "{said}");
    assert!(!proxy.log().contains("WARN"), "what a client does is not written to the log: {}", proxy.log());
}

/// slowhttptest says at its end whether the service could be reached all the while.
#[test]
fn slowhttptest_does_not_keep_others_out() {
    let origin = Origin::saying("hello");
    let keys = "timeouts: { header: 2s, body_idle: 2s, write_idle: 2s, idle: 2s }";
    let proxy = with(keys, &origin);
    let url = proxy.url("web", "/");
    for kind in [&["-H"][..], &["-B"], &["-X", "-w", "1", "-y", "1", "-z", "1"]] {
        let run = Command::new("slowhttptest")
            .args(["-c", "300", "-i", "1", "-r", "300", "-l", "5", "-p", "5", "-u", &url])
            .args(kind)
            .output()
            .expect("slowhttptest is installed: tests/install");
        let said = String::from_utf8_lossy(&run.stdout);
        let last = said.rsplit("service available:").next().unwrap_or_default();
        assert!(last.contains("YES"), "{kind:?}: {said}");
        assert_eq!(proxy.client().get("/").status, 200, "{kind:?}");
    }
}

/// What clients do wrong is counted or in the access log: the process's log does not grow with it.
#[test]
fn no_client_fills_the_log() {
    let (certificates, proxy) = secure(
        r#"
  web: { bind: "127.0.0.1:0", protocols: [h1, h2c] }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [site] } }
  told: { bind: "127.0.0.1:0", proxy_protocol: { from: [127.0.0.1] } }
"#,
    );
    let before = proxy.log().lines().count();
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    let acks = frame(PING, ACK, 0, b"unasked!").repeat(500);
    for _ in 0..20 {
        assert!(frames.write(&acks), "they are ignored");
    }
    frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/"));
    frames.until(HEADERS).expect("the connection goes on");
    let stranger = Certificates::new(&Tree::new()).client(&[]);
    for _ in 0..100 {
        for (listener, junk) in [
            ("web", &b"\x00\x01\r\n"[..]),
            ("web", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunk that is no frame"),
            ("secure", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
            ("secure", b"GET / HTTP/1.1\r\n\r\n"),
            ("told", b"PROXY junk\r\n"),
        ] {
            let mut client = Client::tcp(proxy.port(listener));
            let _ = client.try_send(junk);
            client.finish_sending();
            client.read_to_end();
        }
        // A certificate that the client does not trust ends with an alert of its own.
        assert!(Client::tls(proxy.port("secure"), "a.test", stranger.clone()).is_err());
    }
    drop(certificates);
    let log = proxy.log();
    assert!(log.lines().count() < before + 20, "{log}");
}

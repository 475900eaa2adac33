//! tests/cases/responses: what origins answer, right and wrong, through Portolan to clients of each protocol.
//!
//! `answers` are the bytes of the origin, which then closes the connection (`closes`) or waits for the next request. `gives` is
//! what the client gets: the status, the body, and the reason in the access log. `cut` says that the client can see that the body is
//! not complete, and `reused` that the connection to the origin serves the next request; else Portolan has to close it.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{Origin, Proxy, Reply, Secure, cases, config, curl, unescape, until};

const CONFIGURATION: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0" }
  secure: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [web] } }
upstreams: { origin: { endpoints: ["ORIGIN"], retry: { retries: 0 } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    #[serde(default = "get")]
    method: String,
    answers: String,
    #[serde(default)]
    closes: bool,
    gives: Gives,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gives {
    status: u16,
    body: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    reused: bool,
}

fn get() -> String {
    "GET".into()
}

/// Cases and the proxy that they pass.
struct Trial {
    cases: Arc<Vec<Case>>,
    secure: Secure,
    /// The file of the authority that signed the proxy's certificate.
    origin: Origin,
}

/// Whether the client says that it takes trailers.
const TE: [bool; 2] = [false, true];

impl Trial {
    fn begin(file: &str) -> Self {
        let cases: Arc<Vec<Case>> = Arc::new(cases(file));
        let served = cases.clone();
        let origin = Origin::serving(move |exchange| {
            let number = exchange.request.start.split(['/', '-']).nth(1).unwrap();
            let number: usize = number.parse().unwrap();
            let case = &served[number];
            // The proxy may close before it has taken all of it.
            let _ = exchange.try_send(unescape(&case.answers));
            if case.closes { Reply::Close } else { Reply::Keep }
        });
        let secure = Secure::start(&config(CONFIGURATION, &[("ORIGIN", &origin.address())]));
        Self { cases, secure, origin }
    }

    /// Checks what the access log says of each request, and that no connection is used again that lost its place.
    fn check_log(&self, client: &str) {
        for (number, case) in self.cases.iter().enumerate() {
            for te in TE {
                let line = self.secure.proxy.access_line_of(&path(number, client, te));
                let reason = line["reason"].as_str().map(str::to_owned);
                assert_eq!(reason, case.gives.reason, "{} ({client}, TE {te}): {line}", case.case);
                assert_eq!(line["status"], case.gives.status, "{} ({client}, TE {te}): {line}", case.case);
            }
        }
        let closed = self.cases.iter().filter(|case| !case.closes && !case.gives.reused).count() * TE.len();
        until("connections that lost their place are closed", || self.origin.closed() == closed);
    }
}

fn path(number: usize, client: &str, te: bool) -> String {
    format!("/{number}-{client}{}", if te { "-te" } else { "" })
}

fn over_http_1(file: &str) {
    let trial = Trial::begin(file);
    for (number, case) in trial.cases.iter().enumerate() {
        for te in TE {
            let path = path(number, "h1", te);
            let fields = if te { "TE: trailers\r\nConnection: TE\r\n" } else { "" };
            let mut client = trial.secure.proxy.client();
            client.send(format!("{} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n", case.method));
            let what = format!("{} (TE {te})", case.case);
            loop {
                let head = match case.gives.cut {
                    true => client.response_head(),
                    false => client.response_to(&case.method),
                };
                if head.status < 200 {
                    continue;
                }
                assert_eq!(head.status, case.gives.status, "{what}");
                if case.gives.cut {
                    let rest = client.read_to_end();
                    assert!(!rest.ends_with(b"0\r\n\r\n"), "{what}: {}", String::from_utf8_lossy(&rest));
                } else if let Some(body) = &case.gives.body {
                    assert_eq!(&head.text(), body, "{what}");
                }
                break;
            }
        }
    }
    trial.check_log("h1");
}

fn over_http_2(file: &str) {
    let trial = Trial::begin(file);
    let port = trial.secure.proxy.port("secure");
    for (number, case) in trial.cases.iter().enumerate() {
        for te in TE {
            let path = path(number, "h2", te);
            let url = format!("https://localhost:{port}{path}");
            let mut arguments = vec!["--http2", "--cacert", &trial.secure.ca, "--max-time", "20", &url];
            if te {
                arguments.extend(["-H", "TE: trailers"]);
            }
            if case.method == "HEAD" {
                arguments.push("--head");
            }
            let run = curl(&arguments);
            let what = format!("{} (TE {te}): {run:?}", case.case);
            assert_eq!(run.code != 0, case.gives.cut, "{what}");
            // What was sent before a stream is reset may be lost with it.
            let whole = case.method != "HEAD" && !case.gives.cut;
            if let Some(body) = case.gives.body.as_ref().filter(|_| whole) {
                assert_eq!(&run.stdout, body, "{what}");
            }
        }
    }
    trial.check_log("h2");
}

fn over_http_3(file: &str) {
    let trial = Trial::begin(file);
    let mut requests = Vec::new();
    for (number, case) in trial.cases.iter().enumerate() {
        for te in TE {
            let fields = if te { json!([["te", "trailers"]]) } else { json!([]) };
            requests.push(json!({ "method": case.method, "path": path(number, "h3", te), "fields": fields }));
        }
    }
    let asked = json!({ "requests": requests, "serial": true });
    let told = trial.secure.run("requests", asked).all();
    let expected = trial.cases.iter().flat_map(|case| TE.map(|te| (case, te)));
    for ((case, te), told) in expected.zip(told) {
        let what = format!("{} (TE {te}): {told}", case.case);
        assert_eq!(told["reset"] != Value::Null, case.gives.cut, "{what}");
        // What was sent before a stream is reset may be lost with it.
        if !case.gives.cut {
            assert_eq!(told["status"], case.gives.status, "{what}");
        }
    }
    trial.check_log("h3");
}

macro_rules! tables {
    ($($name:ident: $file:literal, $over:ident;)*) => { $(#[test] fn $name() { $over(concat!("responses/", $file)) })* };
}

tables! {
    framing_over_http_1: "framing.yaml", over_http_1;
    framing_over_http_2: "framing.yaml", over_http_2;
    framing_over_http_3: "framing.yaml", over_http_3;
    chunks_over_http_1: "chunks.yaml", over_http_1;
    chunks_over_http_2: "chunks.yaml", over_http_2;
    chunks_over_http_3: "chunks.yaml", over_http_3;
    heads_over_http_1: "heads.yaml", over_http_1;
    heads_over_http_2: "heads.yaml", over_http_2;
    heads_over_http_3: "heads.yaml", over_http_3;
}

#[test]
fn the_size_of_a_response_head_is_a_setting() {
    let origin = Origin::serving(|exchange| {
        let fields: usize = exchange.request.start.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "A: b\r\n".repeat(fields));
        exchange.send(head);
        Reply::Keep
    });
    let limited = CONFIGURATION.replace("retry:", "limits: { headers: 1000, header_size: 4KiB }, retry:");
    let limited = limited.replace("certificates: { web: { cert: web.pem, key: web.key } }", "");
    let limited: String =
        limited.lines().filter(|line| !line.contains("secure:")).map(|l| format!("{l}\n")).collect();
    let proxy = Proxy::start(&config(&limited, &[("ORIGIN", &origin.address())]));
    let mut client = proxy.client();
    assert_eq!(client.get("/300").status, 200);
    assert_eq!(client.get("/999").status, 502, "it is larger than 4KiB");
    assert_eq!(proxy.access_line_of("/999")["reason"], "upstream_protocol");
}

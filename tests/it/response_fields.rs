//! The rules about response fields, each over HTTP/1.1, HTTP/2 and HTTP/3.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::{Certificates, Http3, Origin, Proxy, Tree, config, curl};

const YAML: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [web] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] }, empty: { endpoints: ["EMPTY"] }, down: { endpoints: ["127.0.0.1:1"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      edited:
        path: /edited
        middleware:
          - response_headers: { set: { Alt-Svc: own, X-Set: s }, add: { X-Kept: three }, remove: [X-Removed] }
          - security_headers: {}
        proxy: { upstream: origin }
      shared: { path: /shared, middleware: [{ cors: { origins: ["*"] } }], proxy: { upstream: origin } }
      empty: { path: /empty, proxy: { upstream: empty } }
      down: { path: /down, proxy: { upstream: down } }
      said: { path: /said, respond: { body: ok, headers: { Alt-Svc: 'h3=":9"', X-Said: y } } }
      moved: { path: /moved, redirect: { to: /said } }
      post: { path: /post, methods: [POST], respond: { body: ok } }
"#;

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":9\"\r\nAlt-Svc: h2=\":8\"\r\nConnection: keep-alive, \
    X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nServer: origin\r\n\
    X-Kept: one\r\nX-Kept: two\r\nX-Removed: y\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nok";
const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\nAlt-Svc: clear\r\nX-Kept: one\r\n\r\n";

/// A request's path, its status, and what its response's fields are: all values of a name, or none.
type Rule = (&'static str, u64, &'static [(&'static str, &'static [&'static str])]);

/// ANNOUNCED is what a listener says of its own HTTP/3.
const RULES: &[Rule] = &[
    (
        "/plain",
        200,
        &[
            ("alt-svc", &["ANNOUNCED"]),
            ("x-hop", &[]),
            ("keep-alive", &[]),
            ("proxy-connection", &[]),
            ("upgrade", &[]),
            ("server", &["origin"]),
            ("x-kept", &["one", "two"]),
            ("set-cookie", &["a=b", "c=d"]),
            ("content-length", &["2"]),
        ],
    ),
    (
        "/edited",
        200,
        &[
            ("alt-svc", &["own"]),
            ("x-set", &["s"]),
            ("x-kept", &["one", "two", "three"]),
            ("x-removed", &[]),
            ("x-content-type-options", &["nosniff"]),
        ],
    ),
    ("/shared", 200, &[("alt-svc", &["ANNOUNCED"]), ("access-control-allow-origin", &["*"])]),
    ("/empty", 204, &[("alt-svc", &["ANNOUNCED"]), ("content-length", &[]), ("x-kept", &["one"])]),
    ("/down", 502, &[("alt-svc", &["ANNOUNCED"])]),
    ("/said", 200, &[("alt-svc", &["ANNOUNCED"]), ("x-said", &["y"])]),
    ("/moved", 308, &[("alt-svc", &["ANNOUNCED"]), ("location", &["/said"])]),
    ("/post", 405, &[("alt-svc", &["ANNOUNCED"]), ("allow", &["OPTIONS, POST"])]),
];

/// The fields that are another's in each protocol, or another each time.
const OWN: [&str; 3] = ["date", "connection", "transfer-encoding"];

type Fields = BTreeMap<String, Vec<String>>;

struct Answering {
    proxy: Proxy,
    certificates: Certificates,
    _origins: [Origin; 2],
}

impl Answering {
    fn start() -> Self {
        let origins = [Origin::replying(REPLY), Origin::replying(EMPTY)];
        let tree = Tree::new();
        let certificates = Certificates::new(&tree);
        certificates.sign("web", &["localhost"]);
        let yaml = config(YAML, &[("ORIGIN", &origins[0].address()), ("EMPTY", &origins[1].address())]);
        Self { proxy: Proxy::start_in(tree, &yaml), certificates, _origins: origins }
    }

    fn by_curl(&self, option: &str, path: &str) -> (u64, Fields) {
        let url = format!("https://localhost:{}{path}", self.proxy.port("web"));
        let run =
            curl(&["-i", option, "-H", "Origin: https://a.test", "--cacert", &self.certificates.ca(), &url]);
        let mut lines = run.stdout.lines().map(str::trim_end);
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let fields = lines.take_while(|line| !line.is_empty()).map(|line| line.split_once(": ").expect(line));
        (status, collected(fields))
    }

    /// All paths at once, by one client.
    fn by_http3(&self) -> Vec<(u64, Fields)> {
        let port = self.proxy.port("web");
        let request = |(path, ..): &Rule| json!({ "path": path, "fields": [["origin", "https://a.test"]] });
        let requests: Vec<_> = RULES.iter().map(request).collect();
        let client = Http3::run("requests", port, &self.certificates.ca(), json!({ "requests": requests }));
        let answer = |answer: &Value| {
            let fields = answer["fields"].as_array().expect("fields").iter();
            let fields = fields.map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()));
            (answer["status"].as_u64().unwrap(), collected(fields))
        };
        client.all().iter().map(answer).collect()
    }
}

fn collected<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Fields {
    let mut collected = Fields::new();
    for (name, value) in fields {
        let name = name.to_lowercase();
        if !OWN.contains(&&*name) {
            collected.entry(name).or_default().push(value.to_owned());
        }
    }
    collected
}

#[test]
fn each_rule_holds_over_every_protocol() {
    let answering = Answering::start();
    let announced = format!("h3=\":{}\"; ma=86400", answering.proxy.port("web"));
    for ((path, status, rules), by_http3) in RULES.iter().zip(answering.by_http3()) {
        let by_http1 = answering.by_curl("--http1.1", path);
        let by_http2 = answering.by_curl("--http2", path);
        for (protocol, (answered, fields)) in [("1", &by_http1), ("2", &by_http2), ("3", &by_http3)] {
            assert_eq!(answered, status, "{path} over HTTP/{protocol}");
            for (name, values) in *rules {
                let expected: Vec<_> =
                    values.iter().map(|value| value.replace("ANNOUNCED", &announced)).collect();
                let there = fields.get(*name).cloned().unwrap_or_default();
                assert_eq!(there, expected, "{name} of {path} over HTTP/{protocol}");
            }
        }
        assert_eq!(by_http1, by_http2, "{path}");
        assert_eq!(by_http1, by_http3, "{path}");
    }
}

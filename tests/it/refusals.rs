//! What refuses does so whatever the protocol, and in `mode: observe` only says that it would.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::support::{Certificates, Client, Http3, Origin, Proxy, Tree, config, curl, until};

/// A kind that refuses: settings by which it does, and what is asked of it, as curl's arguments.
struct Case {
    kind: &'static str,
    settings: &'static str,
    arguments: &'static [&'static str],
    status: u64,
    reason: &'static str,
}

const fn case(
    kind: &'static str,
    settings: &'static str,
    arguments: &'static [&'static str],
    status: u64,
    reason: &'static str,
) -> Case {
    Case { kind, settings, arguments, status, reason }
}

const CASES: &[Case] = &[
    case("ip", "deny: [127.0.0.0/8]", &[], 403, "ip_refused"),
    case("methods", "allow: [POST]", &[], 405, "method_not_allowed"),
    case("content_types", "allow: [application/json]", &["-d", "text"], 415, "unsupported_media_type"),
    case("header_limits", "headers: 1", &[], 431, "header_too_large"),
    case("body_limit", "size: 4B", &["-d", "too much"], 413, "body_too_large"),
    case("decompress", "", &["-d", "x", "-H", "Content-Encoding: deflate"], 415, "unsupported_coding"),
    case("validate", "query: schema.json", &[], 400, "invalid_request"),
    case("rate_limit", "rate: 1/h, burst: 1, by: host", &[], 429, "rate_limited"),
    case("concurrency", "max: 1", &[], 503, "too_many_in_flight"),
    case("basic_auth", "users: { ann: HASH }", &["-u", "ann:wrong"], 401, "unauthorized"),
    case("api_key", "keys: { ann: KEY }", &["-H", "X-API-Key: wrong"], 401, "unauthorized"),
    case("jwt", "secret: 0123456789abcdef0123456789abcdef", &[], 401, "unauthorized"),
    case("forward_auth", "url: \"http://AUTH/\"", &[], 403, "forbidden"),
    case("mtls", "", &[], 403, "certificate_required"),
];

const YAML: &str = r#"
certificates: { own: { cert: server.pem, key: server.key } }
listeners:
  web: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [own], client_auth: { ca: ca.pem, mode: optional } } }
defaults:
  middleware:
    - recover: {}
    - request_headers: { set: { X-A: a } }
    - response_headers: { set: { X-B: b } }
    - security_headers: {}
    - compress: {}
    - cors: { origins: ["https://a.example"] }
    - early_hints: { links: ["</a>; rel=preload"] }
    - canonical_host: { to: 127.0.0.1 }
    - buffer: {}
    - bandwidth: { rate: 1GiB/s }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      down: { path: /down, respond: {}, middleware: [{ maintenance: { active: true } }] }
"#;

const PROTOCOLS: [&str; 3] = ["HTTP/1.1", "HTTP/2", "HTTP/3"];

/// What is asked: a path, and curl's arguments.
type Asked = (String, &'static [&'static str]);
/// An answer's status, and its body without what is another each time.
type Answer = (u64, Value);

struct Refusing {
    proxy: Proxy,
    certificates: Certificates,
    _auth: Origin,
    origin: Origin,
    /// What is in flight while others ask.
    held: Vec<Client>,
}

impl Refusing {
    fn start() -> Self {
        let (origin, auth) =
            (Origin::saying("passed"), Origin::replying(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"));
        let tree = Tree::new();
        let certificates = Certificates::new(&tree);
        certificates.sign("server", &["127.0.0.1", "localhost"]);
        tree.write("schema.json", r#"{"type": "object", "required": ["page"]}"#);
        let mut yaml = YAML.to_owned();
        for Case { kind, settings, .. } in CASES {
            for mode in ["enforce", "observe"] {
                let comma = if settings.is_empty() { "" } else { ", " };
                yaml += &format!(
                    "      {mode}.{kind}: {{ path: \"/{mode}/{kind}/**\", proxy: {{ upstream: origin }}, \
                     middleware: [{{ {kind}: {{ {settings}{comma}mode: {mode} }} }}] }}\n"
                );
            }
        }
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("ORIGIN", &origin.address()),
            ("AUTH", &auth.address()),
            ("HASH", &"$2y$04$8DnHYFmuNA1L0eW3O2EBoODVmcfXlA/XPFj44XBH/1WehrElwZ./W"),
            ("KEY", &"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"),
        ];
        let proxy = Proxy::start_in(tree, &config(&yaml, &words));
        let mut refusing = Self { proxy, certificates, _auth: auth, origin, held: Vec::new() };
        refusing.fill();
        refusing
    }

    /// Takes what limits let pass.
    fn fill(&mut self) {
        for mode in ["enforce", "observe"] {
            self.ask("HTTP/1.1", &[(format!("/{mode}/rate_limit/first"), &[])]);
            let name = "127.0.0.1";
            let config = self.certificates.client(&["http/1.1"]);
            let mut client = Client::tls(self.proxy.port("web"), name, config).unwrap();
            let before = self.origin.bytes();
            // More than is held before an upstream is taken.
            let head = format!("POST /{mode}/concurrency/first HTTP/1.1\r\nHost: {name}\r\n");
            client.send(format!("{head}Content-Length: 1000000\r\n\r\n"));
            until("it is in flight", || self.origin.bytes() > before);
            self.held.push(client);
        }
    }

    fn ask(&self, protocol: &str, asked: &[Asked]) -> Vec<Answer> {
        match protocol {
            "HTTP/3" => self.ask_aioquic(asked),
            _ => asked.iter().map(|(path, arguments)| self.ask_curl(protocol, path, arguments)).collect(),
        }
    }

    fn ask_curl(&self, protocol: &str, path: &str, arguments: &[&str]) -> Answer {
        let option = if protocol == "HTTP/2" { "--http2" } else { "--http1.1" };
        let url = format!("https://127.0.0.1:{}{path}", self.proxy.port("web"));
        let ca = self.certificates.ca();
        let run = curl(&[&[option, "--cacert", &ca, "-w", "\n%{http_code}", &url], arguments].concat());
        assert!(run.stderr.is_empty(), "{protocol} {path}: {}", run.stderr);
        let (body, status) = run.stdout.rsplit_once('\n').expect("a status");
        (status.parse().unwrap(), unchanging(body))
    }

    /// All at once, by one client.
    fn ask_aioquic(&self, asked: &[Asked]) -> Vec<Answer> {
        let port = self.proxy.port("web");
        let requests: Vec<_> =
            asked.iter().map(|(path, arguments)| by_http3(port, path, arguments)).collect();
        let answers = Http3::run("requests", port, &self.certificates.ca(), json!({ "requests": requests }));
        let answer = |answer: &Value| {
            (answer["status"].as_u64().unwrap_or(0), unchanging(answer["body"].as_str().unwrap()))
        };
        answers.all().iter().map(answer).collect()
    }
}

fn unchanging(body: &str) -> Value {
    let mut body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    for changing in ["request_id", "timestamp"] {
        body.as_object_mut().map(|body| body.remove(changing));
    }
    body
}

/// The request that curl's arguments make.
fn by_http3(port: u16, path: &str, arguments: &[&str]) -> Value {
    let mut fields = vec![json!(["user-agent", "curl"]), json!(["accept", "*/*"])];
    let mut request = json!({ "path": path, "host": format!("127.0.0.1:{port}") });
    for argument in arguments.chunks(2) {
        match *argument {
            ["-d", body] => {
                request["method"] = "POST".into();
                request["body"] = body.into();
                fields.push(json!(["content-type", "application/x-www-form-urlencoded"]));
                fields.push(json!(["content-length", body.len().to_string()]));
            }
            ["-H", field] => {
                let (name, value) = field.split_once(": ").expect("a field");
                fields.push(json!([name.to_lowercase(), value]));
            }
            ["-u", user] => {
                fields.push(json!(["authorization", format!("Basic {}", STANDARD.encode(user))]));
            }
            ref other => panic!("{other:?}"),
        }
    }
    request["fields"] = fields.into();
    request
}

#[test]
fn each_refuses_alike_by_every_protocol_and_observes_alike() {
    let refusing = Refusing::start();
    let asked = |mode: &str, protocol: &str| {
        let asked = |case: &Case| (format!("/{mode}/{}/{protocol}", case.kind), case.arguments);
        CASES.iter().map(asked).collect::<Vec<Asked>>()
    };
    let [http1, http2, http3] = PROTOCOLS.map(|protocol| {
        let answers = refusing.ask(protocol, &asked("enforce", protocol));
        for (Case { kind, status, reason, .. }, answer) in CASES.iter().zip(&answers) {
            assert_eq!(answer.0, *status, "{kind} {protocol}: {answer:?}");
            assert_eq!(answer.1["error"], *reason, "{kind} {protocol}: {answer:?}");
        }
        let observing = asked("observe", protocol);
        let observed = refusing.ask(protocol, &observing);
        for ((Case { kind, reason, .. }, (path, _)), answer) in CASES.iter().zip(&observing).zip(observed) {
            assert_eq!(answer, (200, "passed".into()), "{kind} {protocol} only observes");
            let line = refusing.proxy.access_line_of(path);
            assert_eq!(line["observed"], json!([reason]), "{kind} {protocol}: {line}");
            assert_eq!(line["protocol"], protocol, "{line}");
        }
        assert_eq!(answers.len(), CASES.len(), "{protocol}");
        answers
    });
    assert_eq!(http1, http2);
    assert_eq!(http1, http3);
    assert_eq!(refusing.ask("HTTP/2", &[("/down".to_owned(), &[])])[0].0, 503);

    let metrics = refusing.proxy.metrics();
    let counted: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("portolan_middleware_decisions_total{"))
        .filter_map(|line| line.split("kind=\"").nth(1)?.split('"').next())
        .collect();
    let refusing: BTreeSet<&str> = CASES.iter().map(|case| case.kind).chain(["maintenance"]).collect();
    assert_eq!(counted, refusing, "kinds that let everything pass decide nothing");
}

#[test]
fn all_that_have_a_mode_are_tried() {
    let schema: Value = serde_json::from_str(include_str!("../../schemas/portolan.schema.json")).unwrap();
    let kinds = schema["$defs"]["Middleware"]["oneOf"].as_array().unwrap().iter();
    let with_mode: BTreeSet<&str> = kinds
        .filter_map(|kind| kind["properties"].as_object()?.iter().next())
        .filter(|(_, settings)| {
            let name = settings["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap();
            let definition = &schema["$defs"][name];
            // One with a short form is a choice, of which the map is the first.
            [definition, &definition["anyOf"][0]].iter().any(|form| form["properties"]["mode"].is_object())
        })
        .map(|(kind, _)| kind.as_str())
        .collect();
    assert_eq!(CASES.iter().map(|case| case.kind).collect::<BTreeSet<_>>(), with_mode);
}

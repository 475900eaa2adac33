//! Requests smuggled past one server to the next: every case of tests/cases/smuggling and tests/cases/http1 goes through Portolan
//! to nginx and to a server of Python's. Each of them must see exactly the requests that Portolan says it passed on, and both the
//! same ones.

use std::{fs, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::support::{
    AskTrailers, Client, Nginx, Proxy, Python, Tree, cases, config, free_port, http1_with_te, unescape,
    until, with_and_without_te,
};

#[derive(Clone, Debug, Deserialize)]
struct Case {
    case: String,
    send: String,
}

/// What an origin saw: method, target, body.
type Seen = (String, String, String);

const CONFIGURATION: &str = r#"
listeners:
  nginx: { bind: "127.0.0.1:0" }
  python: { bind: "127.0.0.1:0" }
upstreams:
  nginx: { endpoints: ["NGINX"] }
  python: { endpoints: ["PYTHON"] }
hosts:
  nginx: { names: ["*"], listeners: [nginx], routes: { all: { path: "/**", proxy: { upstream: nginx } } } }
  python: { names: ["*"], listeners: [python], routes: { all: { path: "/**", proxy: { upstream: python } } } }
"#;

/// A body is known to nginx when it has read it to pass it on: to a server beside this one.
const NGINX: &str = r#"
access_log DIR/seen.log seen;
client_body_buffer_size 1m; client_body_in_single_buffer on;
location / { proxy_pass http://unix:DIR/sink.sock; proxy_set_header Host a; }
}
server {
listen unix:DIR/sink.sock; location / { return 200 "seen"; }
"#;

const PYTHON: &str = r#"
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def exactly(self, length):
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionError("the body ends early")
        return data

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.exactly(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            data = self.exactly(size)
            whole += data
            if size == 0:
                while self.rfile.readline().strip():
                    pass
                return whole
            self.rfile.readline()

    def answer(self):
        body = self.body()
        with open(sys.argv[2], "a") as seen:
            line = {"method": self.command, "target": self.path, "body": body.decode("latin-1"), "status": "200"}
            seen.write(json.dumps(line) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"seen")

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print("up")
server.serve_forever()
"#;

struct Trial {
    proxy: Proxy,
    nginx: Nginx,
    python: Tree,
    _server: Python,
}

/// The lines that a log gets from a moment on.
struct Log {
    path: PathBuf,
    /// Bytes of whole lines that it had then.
    end: usize,
}

impl Log {
    fn at_end(path: PathBuf) -> Self {
        let text = fs::read(&path).unwrap_or_default();
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        Self { path, end }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let new = &text[self.end..];
        let whole = new.rfind('\n').map_or("", |last| &new[..last]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// What an origin has answered with 200.
    fn seen(&self) -> Vec<Seen> {
        let lines = self.lines();
        let answered = lines.iter().filter(|line| line["status"] == "200");
        answered.map(|line| (word(line, "method"), word(line, "target"), word(line, "body"))).collect()
    }

    /// The requests for which Portolan says that this origin answered 200: method and path.
    fn passed(&self, origin: &str) -> Vec<(String, String)> {
        let lines = self.lines();
        let passed = lines.iter().filter(|line| {
            line["listener"] == origin && line["status"] == 200 && line["endpoint"].is_string()
        });
        passed.map(|line| (word(line, "method"), word(line, "path"))).collect()
    }
}

fn word(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

impl Trial {
    fn new() -> Self {
        let tree = Tree::new();
        let directory = tree.path("").to_string_lossy().trim_end_matches('/').to_owned();
        let nginx = Nginx::start(tree, free_port(), "", &NGINX.replace("DIR", &directory));
        let python = Tree::new();
        let port = free_port();
        let log = python.write("seen.log", "");
        let mut server = Python::run(PYTHON, &[&port.to_string(), &log.to_string_lossy()]);
        assert_eq!(server.line(), "up");
        let words: [(&str, &dyn std::fmt::Display); 2] =
            [("NGINX", &nginx.address()), ("PYTHON", &format!("127.0.0.1:{port}"))];
        Self { proxy: Proxy::start(&config(CONFIGURATION, &words)), nginx, python, _server: server }
    }

    /// The log of an origin, and the access log.
    fn logs(&self, origin: &str) -> [Log; 2] {
        let seen = match origin {
            "nginx" => self.nginx.tree().path("seen.log"),
            _ => self.python.path("seen.log"),
        };
        [seen, self.proxy.tree().path("stdout")].map(Log::at_end)
    }

    /// Sends a case to one origin; gives what the origin saw of it.
    fn send(&self, case: &Case, origin: &str) -> Result<Vec<Seen>, String> {
        let [seen, passed] = self.logs(origin);
        let port = self.proxy.port(origin);
        let mut client = Client::tcp(port);
        // What waits for more than was sent is waited for no longer than this.
        client.patience(Duration::from_millis(300));
        let _ = client.try_send(unescape(&case.send));
        let _ = client.try_send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.read_to_end();
        drop(client);
        let fence = format!("GET /fence?{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", seen.end);
        assert_eq!(Client::tcp(port).send(fence).response().status, 200);
        let is_fence = |(_, target, _): &Seen| target.starts_with("/fence");
        until("the fence is seen", || {
            seen.seen().iter().any(is_fence) && passed.passed(origin).iter().any(|(_, path)| path == "/fence")
        });
        let (mut seen, mut passed) = (seen.seen(), passed.passed(origin));
        seen.retain(|seen| !is_fence(seen));
        passed.retain(|(_, path)| path != "/fence");
        let told: Vec<&String> = passed.iter().map(|(method, _)| method).collect();
        let found: Vec<&String> = seen.iter().map(|(method, ..)| method).collect();
        match told == found {
            true => Ok(seen),
            false => Err(format!("{origin} saw {seen:?}, and Portolan logged {passed:?}")),
        }
    }

    fn of(&self, case: &Case) -> Result<(), String> {
        let (nginx, python) = (self.send(case, "nginx")?, self.send(case, "python")?);
        // nginx refuses methods that are not written in capitals.
        let known = |method: &str| method.bytes().all(|byte| byte.is_ascii_uppercase());
        let python: Vec<Seen> = python.into_iter().filter(|(method, ..)| known(method)).collect();
        match nginx == python {
            true => Ok(()),
            false => Err(format!("nginx saw {nginx:?}, and Python {python:?}")),
        }
    }
}

impl AskTrailers for Case {
    fn name(&mut self) -> &mut String {
        &mut self.case
    }

    fn ask_trailers(&mut self) -> bool {
        let asking = http1_with_te(&self.send);
        asking.map(|asking| self.send = asking).is_some()
    }
}

#[track_caller]
fn run(files: &[&str]) {
    let cases = with_and_without_te(files.iter().flat_map(|file| cases::<Case>(file)).collect());
    let trial = Trial::new();
    let failed = |case: &Case| Some(format!("{}: {}", case.case, trial.of(case).err()?));
    let wrong: Vec<String> = cases.iter().filter_map(failed).collect();
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn known_tricks_reach_no_origin_as_another_request() {
    run(&["smuggling/corpus.yaml"]);
}

#[test]
fn strict_framing_reaches_every_origin_as_the_same_requests() {
    run(&["http1/framing.yaml", "http1/chunks.yaml"]);
}

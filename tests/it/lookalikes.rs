//! Fields that a server behind the proxy reads as others: `X_User` and `X.User` are `X-User` to CGI, PHP and WSGI.

use serde_json::json;

use super::{
    auth::{BCRYPT, behind, status},
    http3,
    support::{Origin, Proxy, Python, config, curl},
};

/// A service that lets everybody in and names the user, but no groups.
const SERVICE: &[u8] = b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n";

/// What a client sends in the place of fields that only the proxy may write.
const FORGED: [&str; 8] = [
    "X_User: root",
    "X.User: root",
    "X~User: root",
    "x!user: root",
    "X_Groups: admin",
    "X.Groups: admin",
    "X-Groups: admin",
    "X*Groups: admin",
];

fn forged() -> Vec<&'static str> {
    FORGED.iter().flat_map(|field| ["-H", field]).collect()
}

/// The values that a server gets which reads names as CGI does (RFC 3875 section 4.1.18).
fn as_cgi(request: &super::support::Message, name: &str) -> Vec<String> {
    let variable = |name: &str| name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let alike = request.fields.iter().filter(|(field, _)| variable(field) == variable(name));
    alike.map(|(_, value)| value.clone()).collect()
}

#[test]
fn what_a_service_does_not_say_nobody_else_says() {
    let (service, origin) = (Origin::replying(SERVICE), Origin::saying(""));
    let auth = format!(
        "{{ forward_auth: {{ url: \"http://{}/\", copy_headers: [X-User, X-Groups], public: /public }} }}",
        service.address()
    );
    let yaml = behind(&auth, &origin).replace(":0\" }", ":0\", protocols: [h1, h2c] }");
    let proxy = Proxy::start(&yaml);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/in", "/public"] {
            let arguments = [&[version][..], &forged()].concat();
            assert_eq!(status(&proxy, path, &arguments), "200", "{version} {path}");
        }
    }
    for request in origin.requests() {
        let wanted = if request.start.contains("/in") { vec!["ann"] } else { vec![] };
        assert_eq!(as_cgi(&request, "X-User"), wanted, "{:?}", request.fields);
        assert!(as_cgi(&request, "X-Groups").is_empty(), "{:?}", request.fields);
    }
}

#[test]
fn over_http3_as_well() {
    let origin = Origin::saying("");
    let secure = http3::start(
        &origin.address(),
        "[h3]",
        "middleware: [{ request_headers: { set: { X-User: ours }, remove: [X-Groups] } }]",
    );
    let fields = [
        ["x_user", "root"],
        ["x.user", "root"],
        ["x_groups", "a"],
        ["x-groups", "a"],
        ["x_forwarded_for", "6.6.6.6"],
        ["x-other", "b"],
    ];
    assert_eq!(secure.ask_one(json!({ "path": "/", "fields": fields }))["status"], 200);
    let request = origin.request();
    assert_eq!(as_cgi(&request, "X-User"), ["ours"]);
    assert!(as_cgi(&request, "X-Groups").is_empty());
    assert_eq!(as_cgi(&request, "X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(as_cgi(&request, "X-Other"), ["b"]);
}

#[test]
fn edits_hold_for_every_spelling() {
    let origin = Origin::saying("");
    let edits = "{ request_headers: { remove: [X-Internal], set: { X-Tenant: ours, X_Own: ours }, add: { X-More: ours } } }";
    let proxy = Proxy::start(&behind(edits, &origin));
    proxy
        .client()
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nX_Internal: 1\r\nX.Internal: 1\r\nX-Internal: 1\r\nX_Tenant: evil\r\n\
             X-Tenant: evil\r\nX.Tenant: evil\r\nX-Own: evil\r\nX.More: evil\r\nX-More: theirs\r\nX_Other: stays\r\n\
             XTenant: stays\r\n\r\n",
        )
        .response();
    let request = origin.request();
    assert!(as_cgi(&request, "X-Internal").is_empty());
    assert_eq!(as_cgi(&request, "X-Tenant"), ["ours"]);
    assert_eq!(as_cgi(&request, "X-Own"), ["ours"]);
    assert_eq!(as_cgi(&request, "X-More"), ["theirs", "ours"]);
    assert_eq!((request.field("x_other"), request.field("xtenant")), (Some("stays"), Some("stays")));
}

#[test]
fn users_keys_and_ids_are_told_by_the_proxy_alone() {
    let origin = Origin::saying("");
    let key = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799"; // of "swordfish"
    let parts = format!(
        "{{ request_id: {{ trust: true }} }}, {{ basic_auth: {{ users: {{ ann: \"{BCRYPT}\" }}, forward_user: X-User, public: /public }} }}, \
         {{ api_key: {{ keys: {{ me: {key} }}, forward_name: X-Groups, public: /public }} }}"
    );
    let proxy = Proxy::start(&behind(&parts, &origin));
    let given = [
        "-u",
        "ann:secret",
        "-H",
        "X-API-Key: swordfish",
        "-H",
        "X_API.Key: other",
        "-H",
        "X_Request_ID: forged",
    ];
    for path in ["/in", "/public"] {
        let arguments = [&given[..], &forged()].concat();
        assert_eq!(status(&proxy, path, &arguments), "200", "{path}");
    }
    let [inside, public] = &origin.requests()[..] else { panic!("two requests") };
    assert_eq!(
        (as_cgi(inside, "X-User"), as_cgi(inside, "X-Groups")),
        (vec!["ann".into()], vec!["me".into()])
    );
    assert!(as_cgi(inside, "X-API-Key").is_empty(), "{:?}", inside.fields);
    assert!(as_cgi(public, "X-User").is_empty() && as_cgi(public, "X-Groups").is_empty());
    for request in [inside, public] {
        assert_eq!(as_cgi(request, "X-Request-ID").len(), 1);
        assert_ne!(as_cgi(request, "X-Request-ID"), ["forged"]);
    }
}

#[test]
fn a_python_server_reads_what_the_proxy_says() {
    let program = r#"
import sys
from wsgiref.simple_server import make_server, WSGIRequestHandler
class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments): pass
def app(environ, start):
    body = '|'.join(environ.get(name, '-') for name in sys.argv[1:]).encode()
    start('200 OK', [('Content-Length', str(len(body)))])
    return [body]
server = make_server('127.0.0.1', 0, app, handler_class=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
"#;
    let mut server = Python::run(
        program,
        &["HTTP_X_USER", "HTTP_X_GROUPS", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"],
    );
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["127.0.0.1:PORT"] } }
hosts:
  all:
    names: ["*"]
    middleware: [{ request_headers: { set: { X-User: ours }, remove: [X-Groups] } }]
    routes: { all: { path: "/**", proxy: { upstream: origin } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("PORT", &server.line())]));
    let url = proxy.url("web", "/");
    let sent = [
        "-H",
        "X-Forwarded_For: 6.6.6.6",
        "-H",
        "X_Forwarded_Proto: https",
        "-H",
        "X.Forwarded.For: 6.6.6.6",
    ];
    let run = curl(&[&[url.as_str()][..], &forged(), &sent].concat());
    assert_eq!(run.stdout, "ours|-|127.0.0.1|http", "{}", run.stderr);
}

const NAMED: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" SETTING } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

#[test]
fn a_listener_decides_what_becomes_of_unusual_names() {
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n\
                   Content.Type: a/b\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Prefix: /a\r\nX_Request_ID: 1\r\n\
                   X_Other: 1\r\nX.Other: 2\r\n\r\nhi";
    let framing = ["content_length", "transfer_encoding", "content.type", "x_request_id"];
    for (setting, status, guarded_pass, others_pass) in [
        ("", 200, false, true),
        (", unusual_header_names: drop_lookalikes", 200, false, true),
        (", unusual_header_names: drop", 200, false, false),
        (", unusual_header_names: reject", 400, false, false),
        (", unusual_header_names: allow", 200, true, true),
    ] {
        let origin = Origin::saying("");
        let proxy = Proxy::start(&config(NAMED, &[("SETTING", &setting), ("ORIGIN", &origin.address())]));
        assert_eq!(proxy.client().send(request).response().status, status, "{setting}");
        if status == 400 {
            assert_eq!(proxy.access_line_of("/x")["reason"], "malformed_request");
            assert!(origin.requests().is_empty());
            assert_eq!(proxy.client().get("/").status, 200);
            continue;
        }
        let request = origin.request();
        for name in framing {
            assert_eq!(request.field(name).is_some(), guarded_pass, "{setting} {name}");
        }
        for name in ["x_forwarded_for", "x-forwarded_prefix"] {
            assert!(request.field(name).is_none(), "{setting} {name}");
        }
        for name in ["x_other", "x.other"] {
            assert_eq!(request.field(name).is_some(), others_pass, "{setting} {name}");
        }
        assert_eq!((request.field("content-length"), request.text().as_str()), (Some("2"), "hi"));
    }
}

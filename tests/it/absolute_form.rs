//! Requests for http URIs, which a `forward` route sends to their origins.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    auth::BCRYPT,
    http3::field,
    support::{Client, H2Client, Origin, Proxy, Reaction, Response, Secure, config, curl, free_port, until},
};

pub const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
hosts: { all: { names: ["*"], routes: { out: { path: PATH, forward: { targets: [TARGETS] MORE } ROUTE } } } }
"#;

/// A proxy for these targets: `more` is said of the action, `route` of its route.
pub fn start(targets: &[SocketAddr], more: &str, route: &str) -> Proxy {
    start_at("/**", targets, more, route)
}

fn start_at(path: &str, targets: &[SocketAddr], more: &str, route: &str) -> Proxy {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    let path = format!("\"{path}\"");
    let words: [(&str, &dyn std::fmt::Display); 4] =
        [("TARGETS", &targets.join(", ")), ("MORE", &more), ("ROUTE", &route), ("PATH", &path)];
    Proxy::start(&config(CONFIGURATION, &words))
}

pub fn before(origin: &Origin) -> Proxy {
    start(&[origin.address()], "", "")
}

pub fn get(client: &mut Client, origin: &Origin, path: &str) -> Response {
    ask(client, "GET", &format!("http://{}{path}", origin.address()))
}

#[track_caller]
pub fn ask(client: &mut Client, method: &str, uri: &str) -> Response {
    let host = uri.split("://").nth(1).unwrap_or("a").split(['/', '?']).next().unwrap();
    client.send(format!("{method} {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n")).response_to(method)
}

/// curl, by this proxy. The last --noproxy holds: without it, curl goes by no proxy at all here.
#[track_caller]
pub fn curl_by(proxy: &Proxy, arguments: &[&str]) -> String {
    let by = proxy.url("web", "");
    let run = curl(&[&["--noproxy", "", "--proxy", &by][..], arguments].concat());
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout
}

#[test]
fn curl_reaches_a_target_and_tells_it_nothing_of_itself() {
    let origin = Origin::saying("reached");
    let proxy = before(&origin);
    let target = origin.address();
    let uri = format!("http://{target}/path?x=1&y=%20");
    let said = curl_by(
        &proxy,
        &[
            "--proxy-user",
            "ann:secret",
            "-H",
            "X-Forwarded-For: 10.0.0.7",
            "-H",
            "Forwarded: for=10.0.0.7",
            "-H",
            "X-Other: stays",
            "-H",
            "Connection: X-Hop",
            "-H",
            "X-Hop: 1",
            "-i",
            &uri,
        ],
    );
    assert!(said.ends_with("reached") && said.to_lowercase().contains("\r\nvia: 1.1 portolan\r\n"), "{said}");
    let request = origin.request();
    let raw = String::from_utf8(request.raw.clone()).unwrap();
    assert!(raw.starts_with("GET /path?x=1&y=%20 HTTP/1.1\r\n"), "{raw}");
    assert_eq!(request.values("host"), [target.to_string()]);
    assert_eq!((request.field("via"), request.field("x-other")), (Some("1.1 portolan"), Some("stays")));
    for name in [
        "proxy-authorization",
        "proxy-connection",
        "connection",
        "x-hop",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
    ] {
        assert_eq!(request.field(name), None, "{name} in {raw}");
    }
    let line = proxy.access_line_of("/path");
    assert_eq!(
        (&line["status"], &line["route"], &line["method"]),
        (&json!(200), &json!("out"), &json!("GET"))
    );
    assert_eq!((&line["endpoint"], &line["upstream"]), (&json!(target.to_string()), &Value::Null), "{line}");
    assert_eq!((&line["authority"], &line["attempts"]), (&json!(target.to_string()), &json!(1)), "{line}");
    assert!(
        line["sent"] == 7 && line["first_byte_ms"].is_number() && line["connect_ms"].is_number(),
        "{line}"
    );
}

#[test]
fn what_a_chain_says_goes_with_it() {
    let origin = Origin::saying("reached");
    let key = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799"; // of "swordfish"
    let key = format!("{{ api_key: {{ keys: {{ me: {key} }}, from: \"query:key\" }} }}");
    let tells = "{ request_headers: { set: { Host: other.test, X-Forwarded-For: \"{client.ip}\" } } }, { body_limit: { size: 4B } }";
    let route =
        format!(", middleware: [{key}, {tells}, {{ response_headers: {{ set: {{ X-Seen: here }} }} }}]");
    let proxy = start(&[origin.address()], "", &route);
    let mut client = proxy.client();
    assert_eq!(get(&mut client, &origin, "/a").status, 407);
    assert_eq!(origin.connections(), 0, "the chain goes before the target");
    let response = get(&mut client, &origin, "//a?x=1&key=swordfish&y=2");
    assert_eq!((response.status, response.field("x-seen")), (200, Some("here")));
    let request = origin.request();
    assert!(request.raw.starts_with(b"GET //a?x=1&y=2 HTTP/1.1\r\n"), "its key is not the origin's");
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"), "it is told what the operator says");
    let target = origin.address();
    assert_eq!(request.values("host"), [target.to_string()], "but for whom it is");
    let head = format!("POST http://{target}/big?key=swordfish HTTP/1.1\r\nHost: {target}\r\n");
    assert_eq!(client.send(format!("{head}Content-Length: 5\r\n\r\nlarge")).response().status, 413);
}

#[test]
fn what_is_not_listed_or_is_denied_is_refused_as_a_tunnel_is() {
    let origin = Origin::saying("reached");
    let other = Origin::saying("other");
    let (port, listed) = (origin.address().port(), other.address());
    let targets = format!("\"{listed}\", \"localhost:{port}\", \"*.localhost:{port}\"");
    let yaml = CONFIGURATION.replace("PATH", "\"/**\"").replace("ROUTE", "").replace("TARGETS", &targets);
    let proxy = Proxy::start(&yaml.replace("MORE", ""));
    let mut client = proxy.client();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "other.example".to_owned(),
        "localhost".to_owned(),
    ] {
        assert_eq!(ask(&mut client, "GET", &format!("http://{host}/")).status, 403, "{host}");
        let line = proxy.access_line(|line| line["authority"] == host.as_str());
        assert_eq!((&line["reason"], &line["route"]), (&json!("target_refused"), &json!("out")), "{line}");
        // A request ends where it ends: unlike a tunnel's, the connection is good for others.
        assert_eq!(get(&mut client, &other, "/").text(), "other");
    }
    assert_eq!(origin.bytes(), 0);
}

#[test]
fn only_requests_for_http_uris_go_on() {
    let origin = Origin::saying("reached");
    let proxy = before(&origin);
    let target = origin.address();
    let mut client = proxy.client();
    let refused = client.send(format!("GET /a HTTP/1.1\r\nHost: {target}\r\n\r\n")).response();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("CONNECT, OPTIONS")));
    assert_eq!(proxy.access_line_of("/a")["reason"], "method_not_allowed");
    assert_eq!(ask(&mut client, "GET", &format!("https://{target}/b")).status, 501);
    let line = proxy.access_line_of("/b");
    assert_eq!((&line["reason"], &line["route"]), (&json!("unsupported_protocol"), &json!("out")));
    assert_eq!(ask(&mut client, "GET", &format!("http://u@{target}/c")).status, 400);
    assert_eq!(origin.bytes(), 0);
}

#[test]
fn methods_tell_tunnels_from_requests() {
    let origin = Origin::saying("reached");
    let target = origin.address();
    let proxy = start(&[target], "", ", methods: [GET]");
    let mut client = proxy.client();
    assert_eq!(get(&mut client, &origin, "/").text(), "reached");
    let refused = ask(&mut client, "POST", &format!("http://{target}/"));
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let refused = client.send(format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n")).response();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("OPTIONS")));
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert_eq!(client.send(&connect).response_head().status, 405);
    let tunnels = start(&[target], "", ", methods: [CONNECT]");
    assert_eq!(get(&mut tunnels.client(), &origin, "/").status, 405);
    assert_eq!(tunnels.client().send(connect).response_head().status, 200);
}

#[test]
fn a_key_may_stand_where_proxies_are_told_it() {
    let origin = Origin::saying("reached");
    let key = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799"; // of "swordfish"
    let route = format!(
        ", middleware: [api_key: {{ keys: {{ me: {key} }}, from: \"header:Proxy-Authorization\", forward_name: X-Me }}]"
    );
    let proxy = start(&[origin.address()], "", &route);
    let mut client = proxy.client();
    let mut ask = |key: &str| {
        let target = origin.address();
        let head =
            format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {key}\r\n\r\n");
        client.send(head).response().status
    };
    assert_eq!((ask("swordfish"), ask("other")), (200, 407));
    let request = origin.request();
    assert_eq!((request.field("x-me"), request.field("proxy-authorization")), (Some("me"), None));
}

/// What curl is told by this proxy: the status of a tunnel, that of the answer, and its challenges.
fn statuses(proxy: &Proxy, url: &str, arguments: &[&str]) -> String {
    let by = proxy.url("web", "");
    let say = "%{http_connect} %{http_code} %header{proxy-authenticate}%header{www-authenticate}";
    let always = ["--noproxy", "", "--proxy", &by, "-o", "/dev/null", "-w", say];
    curl(&[&always[..], arguments, &[url]].concat()).stdout
}

#[test]
fn users_of_a_proxy_say_who_they_are_to_it_and_not_to_the_origin() {
    let origin = Origin::saying("reached");
    let users = format!(", middleware: [basic_auth: {{ users: {{ ann: \"{BCRYPT}\" }}, realm: Out }}]");
    let proxy = start(&[origin.address()], "", &users);
    let url = format!("http://{}/", origin.address());
    let asks = "Basic realm=\"Out\", charset=\"UTF-8\"";
    let with = |arguments: &[&str]| statuses(&proxy, &url, arguments);

    assert_eq!(with(&[]), format!("000 407 {asks}"));
    assert_eq!(with(&["--proxy-user", "ann:wrong"]), format!("000 407 {asks}"));
    assert_eq!(with(&["--user", "ann:secret"]), format!("000 407 {asks}"), "these are the origin's");
    assert_eq!(with(&["-p"]), "407 000 ");
    assert_eq!(with(&["-p", "--proxy-user", "ann:secret"]), "200 200 ");
    assert_eq!(origin.request().field("proxy-authorization"), None);
    assert_eq!(with(&["--proxy-user", "ann:secret", "--user", "bob:other"]), "000 200 ");
    let [_, request] = &origin.requests()[..] else { panic!("not one request each") };
    assert_eq!(request.field("proxy-authorization"), None);
    assert_eq!(request.field("authorization"), Some("Basic Ym9iOm90aGVy"));
    assert_eq!(with(&["--proxy-anyauth", "--proxy-user", "ann:secret"]), "000 200 ", "once it is asked");

    let line = proxy.access_line(|line| line["cause"] == "wrong_password");
    assert_eq!((&line["status"], &line["reason"]), (&407.into(), &"proxy_unauthorized".into()));
}

#[test]
fn a_token_for_a_proxy_stands_where_proxies_are_told_it() {
    let origin = Origin::saying("reached");
    let route = ", middleware: [jwt: { secret: 0123456789abcdef0123456789abcdef }]";
    let proxy = start(&[origin.address()], "", route);
    let url = format!("http://{}/", origin.address());
    let missing = statuses(&proxy, &url, &["-H", "Authorization: Bearer e30.e30.e30"]);
    assert_eq!(missing, "000 407 Bearer realm=\"portolan\"");
    let wrong = statuses(&proxy, &url, &["--proxy-header", "Proxy-Authorization: Bearer e30.e30.e30"]);
    assert_eq!(wrong, "000 407 Bearer realm=\"portolan\", error=\"invalid_token\"");
}

#[test]
fn hosts_of_our_own_are_asked_as_ever() {
    let origin = Origin::saying("reached");
    let yaml = format!(
        r#"
listeners: {{ web: {{ bind: "127.0.0.1:0", protocols: [h1, h2c] }} }}
upstreams: {{ own: {{ endpoints: ["{target}"] }} }}
hosts:
  own: {{ names: [own.test], routes: {{ own: {{ path: "/**", proxy: {{ upstream: own }} }} }} }}
  both:
    names: ["*"]
    routes:
      out: {{ path: "/**", forward: {{ targets: ["{target}"] }} }}
      get: {{ path: "/**", methods: [GET], respond: {{ body: here }} }}
"#,
        target = origin.address()
    );
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "GET", "http://own.test/a").text(), "reached");
    assert_eq!(origin.requests()[0].field("x-forwarded-host"), Some("own.test"));
    let gone = free_port();
    assert_eq!(
        ask(&mut client, "GET", &format!("http://127.0.0.1:{gone}/")).status,
        403,
        "forward goes first"
    );
    assert_eq!(client.get("/").text(), "here");
    let contradiction = client.send("GET http://own.test/ HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!(contradiction.status, 400);
    assert!(client.is_closed());
    // Whom a client asks as a proxy, it asks for a URI: what Host says is not looked at (RFC 9112 section 3.2.2).
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: other.test\r\n\r\n", origin.address());
    assert_eq!(proxy.client().send(request).response().text(), "reached");
    assert_eq!(origin.requests()[1].values("host"), [origin.address().to_string()]);
    assert_eq!(proxy.access_line(|line| line["route"] == "out")["status"], 403);
    // In the clear, HTTP/2 says nothing of who is meant.
    let mut h2 = H2Client::tcp(proxy.port("web"));
    let target = origin.address().to_string();
    for (stream, method, answer) in [(1, "GET", "here"), (3, "POST", "reached")] {
        let fields =
            [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", target.as_str())];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        h2.headers(stream, &fields, true);
        assert_eq!(h2.reaction(stream).unwrap(), Reaction::Answered);
        assert_eq!(String::from_utf8(h2.read_data(stream)).unwrap(), answer);
    }
}

#[test]
fn the_target_goes_on_as_it_came_where_no_path_was_chosen() {
    let origin = Origin::saying("reached");
    let target = origin.address();
    let (every, some) = (before(&origin), start_at("/a/**", &[target], "", ""));
    let mut sent = Vec::new();
    for (proxy, asked) in [
        (&every, "/a//b/%7Ec/%e4?x=//%7E"),
        (&every, "?x=1"),
        (&every, ""),
        (&every, "/a/../b/%2e/c"),
        (&some, "/a//b/%7Ec/%e4?x=//%7E"),
        (&some, "/a/b"),
    ] {
        assert_eq!(get(&mut proxy.client(), &origin, asked).status, 200, "{asked}");
        sent.push(origin.requests().last().unwrap().start.split(' ').nth(1).unwrap().to_owned());
    }
    let expected = ["/a//b/%7Ec/%e4?x=//%7E", "/?x=1", "/", "/b/c", "/a/b/~c/%E4?x=//%7E", "/a/b"];
    assert_eq!(sent, expected);
    assert_eq!(get(&mut some.client(), &origin, "/b").status, 404);
}

#[test]
fn options_of_a_whole_server_are_asked_of_it() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    let target = origin.address();
    let mut client = proxy.client();
    for uri in [format!("http://{target}"), format!("http://{target}/"), format!("http://{target}?x")] {
        assert_eq!(ask(&mut client, "OPTIONS", &uri).status, 200, "{uri}");
    }
    let fields =
        [(":method", "OPTIONS"), (":scheme", "http"), (":authority", &target.to_string()), (":path", "*")]
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut h2 = H2Client::tcp(proxy.port("web"));
    h2.headers(1, &fields, true);
    assert_eq!(h2.reaction(1).unwrap(), Reaction::Answered);
    let lines: Vec<_> = origin.requests().iter().map(|request| request.start.clone()).collect();
    let expected = ["OPTIONS * HTTP/1.1", "OPTIONS / HTTP/1.1", "OPTIONS /?x HTTP/1.1", "OPTIONS * HTTP/1.1"];
    assert_eq!(lines, expected);
    // One that may go no further is asked of the proxy, which answers for itself (RFC 9110 section 7.6.2).
    let mut counted = |method: &str, left: &str| {
        let head =
            format!("{method} http://{target} HTTP/1.1\r\nHost: {target}\r\nMax-Forwards: {left}\r\n\r\n");
        client.send(head).response().status
    };
    assert_eq!((counted("OPTIONS", "0"), counted("TRACE", "0"), counted("OPTIONS", "7")), (204, 405, 200));
    assert_eq!((counted("GET", "0"), counted("OPTIONS", "many")), (200, 200));
    let told: Vec<_> = origin.requests()[4..]
        .iter()
        .map(|request| request.field("max-forwards").unwrap().to_owned())
        .collect();
    assert_eq!(told, ["6", "0", "many"]);
    let own = client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!((own.status, origin.requests().len()), (204, 7));
}

#[test]
fn instances_can_be_chained() {
    let origin = Origin::saying("reached");
    let last = before(&origin);
    let inner = SocketAddr::from(([127, 0, 0, 1], last.port("web")));
    let first = start(&[inner], "", "");
    // Through a tunnel of the first, the second is a proxy for both forms.
    let mut client = first.client();
    client.send(format!("CONNECT {inner} HTTP/1.1\r\nHost: {inner}\r\n\r\n"));
    assert_eq!(client.response_head().status, 200);
    assert_eq!(get(&mut client, &origin, "/one").text(), "reached");
    assert_eq!(get(&mut client, &origin, "/two").text(), "reached");
    // As an origin, the second is one whose routes are for proxies' requests alone.
    assert_eq!(ask(&mut first.client(), "GET", &format!("http://{inner}/three")).status, 405);
    assert_eq!(origin.requests().len(), 2);
    // In front of another that proxies, each says that it was there.
    let own = Proxy::before(&origin);
    let address = SocketAddr::from(([127, 0, 0, 1], own.port("web")));
    let front = start(&[address], "", "");
    assert_eq!(ask(&mut front.client(), "GET", &format!("http://{address}/four")).text(), "reached");
    assert_eq!(origin.requests()[2].values("via").join(", "), "1.1 portolan, 1.1 portolan");
}

#[test]
fn a_request_for_itself_comes_back_once() {
    let port = free_port();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let yaml = CONFIGURATION
        .replace("127.0.0.1:0", &target.to_string())
        .replace("PATH", "\"/**\"")
        .replace("TARGETS", &format!("\"{target}\""))
        .replace("MORE", "")
        .replace("ROUTE", "");
    let proxy = Proxy::start(&yaml);
    assert_eq!(ask(&mut proxy.client(), "GET", &format!("http://{target}/loop")).status, 405);
    until("both are logged", || proxy.access_log().len() == 2);
}

#[test]
fn over_http2_a_target_of_http_is_the_same() {
    let origin = Origin::saying("reached");
    let proxy = before(&origin);
    let target = origin.address().to_string();
    let mut client = H2Client::tcp(proxy.port("web"));
    let mut ask = |stream: u32, scheme: &str, named: &str| {
        let fields = [(":method", "GET"), (":scheme", scheme), (":path", "/h2//x"), (named, target.as_str())];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        client.headers(stream, &fields, true);
        assert_eq!(client.reaction(stream).unwrap(), Reaction::Answered);
        String::from_utf8(client.read_data(stream)).unwrap()
    };
    assert_eq!(ask(1, "http", ":authority"), "reached");
    assert!(ask(3, "https", ":authority").contains("not allowed"), "https is reached through tunnels");
    assert!(ask(5, "http", "host").contains("not allowed"), "without :authority it is an origin form");
    let request = origin.request();
    assert!(request.raw.starts_with(b"GET /h2//x HTTP/1.1\r\n"));
    assert_eq!((request.values("host"), request.field("via")), (vec![target.as_str()], Some("2 portolan")));
}

/// A proxy by TLS over all protocols.
fn secure(target: SocketAddr) -> Secure {
    let yaml = config(
        r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  secure: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [web] } }
hosts:
  all:
    names: ["*"]
    middleware: [early_hints: { links: ["</a.css>; rel=preload"] }]
    routes: { out: { path: "/**", forward: { targets: ["TARGET"] } } }
"#,
        &[("TARGET", &target)],
    );
    Secure::start(&yaml)
}

#[test]
fn a_proxy_is_asked_over_tls_and_says_nothing_of_its_own_protocols() {
    let origin = Origin::saying("reached");
    let secure = secure(origin.address());
    let (by, target) = (secure.proxy.url("secure", ""), format!("http://{}/", origin.address()));
    let by = by.replace("127.0.0.1", "localhost").replace("http:", "https:");
    let own = curl(&["--cacert", &secure.ca, "-i", &by]).stdout.to_lowercase();
    assert!(own.contains(" 405") && own.contains("alt-svc: h3="), "{own}");
    let run = curl(&["--noproxy", "", "--proxy", &by, "--proxy-cacert", &secure.ca, "-i", &target]);
    assert!(run.stdout.ends_with("reached"), "{run:?}");
    // The origin is none of ours, and has no alternatives here.
    assert!(!run.stdout.to_lowercase().contains("alt-svc"), "{run:?}");
}

#[test]
fn over_http3_a_target_of_http_is_the_same() {
    let origin = Origin::saying("reached");
    let target = origin.address();
    let secure = secure(target);
    let authority = target.to_string();
    let answers = secure.ask(json!([
        { "scheme": "http", "host": authority, "path": "/h3" },
        { "scheme": "https", "host": authority, "path": "/tls" },
    ]));
    assert_eq!((&answers[0]["status"], &answers[0]["body"]), (&json!(200), &json!("reached")), "{answers:?}");
    assert_eq!(answers[1]["status"], 405);
    assert_eq!(field(&answers[0], "via"), Some("1.1 portolan"));
    assert_eq!(answers[0]["interim"], json!([[103, [["link", "</a.css>; rel=preload"]]]]));
    assert_eq!(origin.request().field("via"), Some("3 portolan"));
}

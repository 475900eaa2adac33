//! Logins that belong to a connection (NTLM, Negotiate) serve the client connection that they came by, and no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::{
    http3,
    support::{Client, Origin, Proxy, Reply, Response, config, curl, to, until},
    websocket_cases::switching,
};

/// A server that signs in connections, as IIS does: `NTLM <user>1` begins, `NTLM <user>2` ends a handshake.
struct Server {
    origin: Origin,
    /// Each request: the connection, the user that the connection is signed in for, and the path.
    seen: Arc<Mutex<Vec<(usize, String, String)>>>,
}

impl Server {
    fn start(challenge: &'static str) -> Self {
        Self::with_fields("Authorization", 401, "WWW-Authenticate", challenge)
    }

    fn with_fields(
        credentials: &'static str,
        status: u16,
        asking: &'static str,
        challenge: &'static str,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let (users, log) = (Mutex::<HashMap<usize, String>>::default(), seen.clone());
        let origin = Origin::serving(move |exchange| {
            let connection = exchange.connection();
            let mut users = users.lock().unwrap();
            let said = exchange.request.field(credentials).and_then(|said| said.split_once(' '));
            let asked_for = match said.map(|(_, token)| token.split_at(token.len() - 1)) {
                Some((user, "1")) => {
                    users.insert(connection, format!("{user}?"));
                    Some(format!("{challenge}, NTLM token"))
                }
                Some((user, "2")) if users.get(&connection) == Some(&format!("{user}?")) => {
                    users.insert(connection, user.to_owned());
                    None
                }
                Some(_) => {
                    users.remove(&connection);
                    Some(challenge.to_owned())
                }
                None => match users.get(&connection) {
                    Some(user) if !user.ends_with('?') => None,
                    _ => Some(challenge.to_owned()),
                },
            };
            let user = users.get(&connection).cloned().unwrap_or_default();
            drop(users);
            let path = exchange.request.start.split(' ').nth(1).unwrap_or_default().to_owned();
            log.lock().unwrap().push((connection, user.clone(), path));
            if let (None, Some(key)) = (&asked_for, exchange.request.field("sec-websocket-key")) {
                exchange.send(switching(key));
                // An echo, until the other side ends it.
                loop {
                    match exchange.read_some() {
                        said if said.is_empty() => return Reply::Close,
                        said => exchange.send(said),
                    }
                }
            }
            match asked_for {
                Some(challenge) => exchange.send(format!(
                    "HTTP/1.1 {status} Sign in\r\n{asking}: {challenge}\r\nContent-Length: 3\r\n\r\nno\n"
                )),
                None => {
                    exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{user}", user.len()))
                }
            }
            Reply::Keep
        });
        Self { origin, seen }
    }

    /// The connections of requests to a path, in their order.
    fn connections(&self, path: &str) -> Vec<usize> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, _, asked)| asked.ends_with(path))
            .map(|(connection, ..)| *connection)
            .collect()
    }
}

const EACH: [&str; 3] = ["NTLM", "Basic realm=\"a, b\", NTLM, Bearer", "negotiate, ntlm"];

fn ask(client: &mut Client, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).response()
}

/// Does the whole handshake, and says the body of what comes last.
#[track_caller]
fn sign_in(client: &mut Client, user: &str, path: &str, fields: &str) -> String {
    assert_eq!(ask(client, path, fields).status, 401);
    let first = ask(client, path, &format!("Authorization: NTLM {user}1\r\n{fields}"));
    assert!((first.status, first.field("www-authenticate").unwrap().contains("token")) == (401, true));
    let last = ask(client, path, &format!("Authorization: NTLM {user}2\r\n{fields}"));
    assert_eq!(last.status, 200, "{}", last.text());
    last.text()
}

#[test]
fn a_login_serves_the_connection_that_it_came_by_and_ends_with_it() {
    for challenge in EACH {
        let server = Server::start(challenge);
        let proxy = Proxy::before(&server.origin);
        let (mut ann, mut bob) = (proxy.client(), proxy.client());
        assert_eq!(sign_in(&mut ann, "ann", "/ann", ""), "ann", "{challenge}");
        for _ in 0..3 {
            assert_eq!(ask(&mut bob, "/bob", "").status, 401, "{challenge}");
            assert_eq!(proxy.client().get("/other").status, 401, "{challenge}");
            assert_eq!(ask(&mut ann, "/ann", "").text(), "ann", "{challenge}");
        }
        assert_eq!(sign_in(&mut bob, "bob", "/bob", ""), "bob");
        assert_eq!(
            (ask(&mut ann, "/ann", "").text(), ask(&mut bob, "/bob", "").text()),
            ("ann".into(), "bob".into())
        );
        let (anns, bobs) = (server.connections("/ann"), server.connections("/bob"));
        assert!(anns[1..].iter().all(|connection| *connection == anns[1]), "{anns:?}");
        assert!(!anns.iter().any(|connection| bobs.contains(connection)), "{anns:?} {bobs:?}");
        // Only the two that are signed in are still open, and go with their clients.
        let open = || server.origin.connections() - server.origin.closed();
        until("challenged connections are closed", || open() == 2);
        drop(ann);
        until("ann's is closed", || open() == 1);
        assert_eq!(ask(&mut bob, "/bob", "").text(), "bob");
        drop(bob);
        until("bob's is closed", || open() == 0);
    }
}

#[test]
fn credentials_that_come_first_are_bound_as_well() {
    // Kerberos needs one message, and clients may send it without being asked (RFC 4559 section 5).
    let users = Mutex::<HashMap<usize, String>>::default();
    let origin = Origin::serving(move |exchange| {
        let mut users = users.lock().unwrap();
        if let Some(said) = exchange.request.field("authorization") {
            users.insert(exchange.connection(), said.to_owned());
        }
        let user = users.get(&exchange.connection()).cloned().unwrap_or_default();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{user}", user.len()));
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    for scheme in ["Negotiate", "negotiate", "NTLM"] {
        let mut ann = proxy.client();
        let fields = format!("Authorization: {scheme} ann\r\n");
        assert_eq!(ask(&mut ann, "/", &fields).text(), format!("{scheme} ann"));
        assert_eq!(ask(&mut ann, "/", "").text(), format!("{scheme} ann"));
        assert_eq!(proxy.client().get("/").text(), "", "{scheme}");
    }
    let mut eve = proxy.client();
    // Others belong to their request, and may share. The connection may not be idle yet when the next request comes.
    until("the connection is used again", || {
        assert_eq!(ask(&mut eve, "/", "Authorization: Basic YTpi\r\n").text(), "Basic YTpi");
        proxy.client().get("/").text() == "Basic YTpi"
    });
}

#[test]
fn a_login_holds_for_each_way_of_asking() {
    let server = Server::start("NTLM");
    let proxy = Proxy::before(&server.origin);
    for fields in ["TE: trailers\r\nConnection: TE\r\n", "Content-Length: 1\r\n\r\nx", "Range: bytes=0-1\r\n"]
    {
        let mut ann = proxy.client();
        let (fields, body) =
            fields.split_once("\r\n\r\n").map_or((fields, ""), |(fields, body)| (fields, body));
        let fields = if body.is_empty() { fields.to_owned() } else { format!("{fields}\r\n") };
        let mut ask = |credentials: &str| {
            let method = if body.is_empty() { "GET" } else { "POST" };
            let head =
                format!("{method} /ann HTTP/1.1\r\nHost: localhost\r\n{credentials}{fields}\r\n{body}");
            ann.send(head).response()
        };
        let statuses = ["", "Authorization: NTLM ann1\r\n", "Authorization: NTLM ann2\r\n", ""]
            .map(|credentials| ask(credentials).status);
        assert_eq!(statuses, [401, 401, 200, 200], "{fields}");
        for trailers in ["", "TE: trailers\r\nConnection: TE\r\n"] {
            assert_eq!(self::ask(&mut proxy.client(), "/bob", trailers).status, 401);
        }
    }
}

#[test]
fn the_whole_handshake_goes_to_one_endpoint() {
    let servers = [Server::start("NTLM"), Server::start("NTLM"), Server::start("NTLM")];
    let addresses = servers.each_ref().map(|server| server.origin.address());
    let proxy = Proxy::start(&to(&[&addresses[0], &addresses[1], &addresses[2]]));
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        let (user, path) = (format!("user{at}"), format!("/{at}"));
        assert_eq!(sign_in(client, &user, &path, ""), user);
        assert_eq!(ask(client, &path, "").text(), user);
        let asked = servers.iter().filter(|server| !server.connections(&path).is_empty()).count();
        assert_eq!(asked, 1, "endpoints that client {at} came to");
    }
}

#[test]
fn proxy_credentials_that_go_on_are_bound_as_well() {
    let server = Server::with_fields("Proxy-Authorization", 407, "Proxy-Authenticate", "NTLM");
    let proxy = Proxy::before(&server.origin);
    let mut ann = proxy.client();
    let said = ["", "Proxy-Authorization: NTLM ann1\r\n", "Proxy-Authorization: NTLM ann2\r\n", ""];
    assert_eq!(said.map(|fields| ask(&mut ann, "/ann", fields).status), [407, 407, 200, 200]);
    assert_eq!(proxy.client().get("/bob").status, 407);
}

#[test]
fn targets_of_a_forward_proxy_are_no_exception() {
    let server = Server::start("NTLM");
    let proxy = Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", forward: { targets: ["127.0.0.0/8:TARGET"] } } } } }
"#,
        &[("TARGET", &server.origin.address().port())],
    ));
    let target = |path: &str| format!("http://{}{path}", server.origin.address());
    let mut ann = proxy.client();
    assert_eq!(sign_in(&mut ann, "ann", &target("/ann"), ""), "ann");
    assert_eq!(ask(&mut ann, &target("/ann"), "").text(), "ann");
    assert_eq!(ask(&mut proxy.client(), &target("/bob"), "").status, 401);
    drop(ann);
    until("all are closed", || server.origin.connections() == server.origin.closed());
}

#[test]
fn http2_and_http3_clients_sign_in_one_connection_each() {
    let server = Server::start("NTLM");
    let secure = http3::start(&server.origin.address(), "[h1, h2, h3]", "");
    let (port, steps) = (secure.proxy.port("secure"), ["", "NTLM ann1", "NTLM ann2", "", ""]);
    let url = format!("https://localhost:{port}/h2");
    let mut arguments = Vec::new();
    for step in steps {
        if !arguments.is_empty() {
            arguments.push("--next".to_owned());
        }
        let fixed = ["--http2", "-s", "--cacert", &secure.ca, "-o", "/dev/null", "-w", "%{http_code} ", &url];
        arguments.extend(fixed.map(str::to_owned));
        if !step.is_empty() {
            arguments.extend(["-H".to_owned(), format!("Authorization: {step}")]);
        }
    }
    let run = curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(run.stdout, "401 401 200 200 200 ", "{run:?}");
    let anonymous = ["-o", "/dev/null", "-w", "%{http_code}", "--http2", "--cacert", &secure.ca, &url];
    assert_eq!(curl(&anonymous).stdout, "401");
    let requests: Vec<Value> = steps
        .iter()
        .map(|step| match step.is_empty() {
            true => json!({ "path": "/h3" }),
            false => json!({ "path": "/h3", "fields": [["authorization", step]] }),
        })
        .collect();
    let answers = secure.run("requests", json!({ "requests": requests, "serial": true })).all();
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 401, 200, 200, 200]);
    assert_eq!(secure.ask_one(json!({ "path": "/h3" }))["status"], 401);
    until("all are closed", || server.origin.connections() == server.origin.closed());
}

#[test]
fn a_websocket_takes_the_reserved_connection_along() {
    let server = Server::start("NTLM");
    let proxy = Proxy::before(&server.origin);
    let mut ann = proxy.client();
    assert_eq!(sign_in(&mut ann, "ann", "/ann", ""), "ann");
    ann.send(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(ann.response_head().status, 101, "it is signed in");
    // A frame with the text "hi", masked by zeros.
    let frame = b"\x81\x82\0\0\0\0hi";
    assert_eq!(ann.send(frame).read_exactly(frame.len()), frame);
    assert_eq!(server.connections("/ws"), server.connections("/ann")[1..2], "the one that is reserved");
    assert_eq!(ask(&mut proxy.client(), "/bob", "").status, 401, "others do not get it meanwhile");
    drop(ann);
    until("all are closed", || server.origin.connections() == server.origin.closed());
    assert_eq!(ask(&mut proxy.client(), "/bob", "").status, 401);
}

/// The client's connection goes on after a tunnel that it opened by extended CONNECT. The login does not.
#[test]
fn a_login_ends_with_the_websocket_over_http2_that_used_its_connection() {
    let server = Server::start("NTLM");
    let proxy = Proxy::before(&server.origin);
    let port = proxy.port("web");
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let ask = async |credentials: &str| {
            let mut request = http::Request::get("http://localhost/ann");
            if !credentials.is_empty() {
                request = request.header("authorization", credentials);
            }
            let mut sender = sender.clone().ready().await.unwrap();
            let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            while let Some(data) = body.data().await {
                data.unwrap();
            }
            head.status.as_u16()
        };
        for (credentials, status) in [("", 401), ("NTLM ann1", 401), ("NTLM ann2", 200), ("", 200)] {
            assert_eq!(ask(credentials).await, status, "{credentials}");
        }
        let mut connect = http::Request::builder().method("CONNECT").uri("http://localhost/ws");
        connect = connect.header("sec-websocket-version", "13");
        let mut connect = connect.body(()).unwrap();
        connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut tunnel) = sender.clone().send_request(connect, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "it is signed in");
        let frame = b"\x81\x82\0\0\0\0hi";
        tunnel.send_data(Bytes::from_static(frame), false).unwrap();
        let mut echo = response.into_body();
        assert_eq!(echo.data().await.unwrap().unwrap(), &frame[..]);
        tunnel.send_data(Bytes::new(), true).unwrap();
        while let Some(Ok(_)) = echo.data().await {}
        assert_eq!(ask("").await, 401, "the connection of the login is gone");
    });
    assert_eq!(server.connections("/ws"), server.connections("/ann")[1..2]);
    until("all are closed", || server.origin.connections() == server.origin.closed());
}

#[test]
fn a_broken_exchange_leaves_no_connection() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut ann = proxy.client();
    ann.send("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: NTLM ann1\r\n\r\n");
    assert_eq!(ann.response_head().status, 200);
    assert_eq!(ann.read_exactly(4), b"half");
    drop(ann);
    until("it is closed", || origin.closed() == 1);
}

#[test]
fn an_authentication_service_is_asked_by_connections_of_their_own() {
    let service = Server::start("NTLM");
    let origin = Origin::saying("in");
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] }, auth: { endpoints: ["AUTH"] } }
defaults: { middleware: [{ forward_auth: { upstream: auth, path: /verify } }] }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    let proxy =
        Proxy::start(&config(yaml, &[("ORIGIN", &origin.address()), ("AUTH", &service.origin.address())]));
    let mut ann = proxy.client();
    for fields in ["Authorization: NTLM ann1\r\n", "Authorization: NTLM ann2\r\n"] {
        assert_eq!(ask(&mut ann, "/", fields).status, 401);
    }
    for _ in 0..3 {
        assert_eq!(proxy.client().get("/").status, 401);
    }
    until("all are closed", || service.origin.connections() == service.origin.closed());
}

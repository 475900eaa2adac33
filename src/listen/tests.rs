//! The whole way of a connection: socket, limits, TLS, protocol.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    runtime::Handle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{accept::Accepting, socket::Bound, testing::Scripted, *};
use crate::{
    http::connection::{Peer, Protocol},
    snapshot::settings::{Listener, Protocols},
    tls::{self, SelfSigned},
    value::Bind,
};

/// A listener at work on a free port.
struct Started {
    accepting: Accepting,
    live: Arc<Live>,
    handler: Arc<Scripted>,
}

fn start_at(bind: &Bind, settings: Listener) -> Started {
    let socket = Bound::bind(bind, false).unwrap().listen(&Handle::current()).unwrap();
    let (live, handler) = (Live::new(settings), Arc::new(Scripted::default()));
    let accepting = Accepting::start(&Handle::current(), socket, live.clone(), handler.clone());
    Started { accepting, live, handler }
}

fn start(settings: Listener) -> Started {
    start_at(&"127.0.0.1:0".parse().unwrap(), settings)
}

impl Started {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.accepting.local().socket_addr().unwrap()).await.unwrap()
    }

    /// Waits until so many connections are counted.
    async fn counts(&self, connections: usize) {
        let waited = async {
            while self.live.connections() != connections {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), waited).await.expect("the count is not reached");
    }
}

fn settings() -> Listener {
    Listener::for_tests("web")
}

fn only_h2() -> Protocols {
    Protocols { h1: false, h2: true, h3: false }
}

/// A path for a socket in a directory of its own, removed with it.
struct Socket(PathBuf);

impl Socket {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("portolan-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory.join("web.sock"))
    }

    fn bind(&self) -> Bind {
        Bind::Unix(self.0.clone())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// Asks over HTTP/2 and gives the status.
async fn ask_h2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<u16, h2_client::Error> {
    let (mut send, connection) = h2_client::client::handshake(io).await?;
    tokio::spawn(connection);
    let request = Request::get("https://www.test/").body(()).unwrap();
    let (response, _) = send.send_request(request, true)?;
    response.await.map(|response| response.status().as_u16())
}

use ::h2 as h2_client;

/// Reads until the other side closes, however it does.
async fn read_all(mut io: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(Duration::from_secs(10), io.read_to_end(&mut all)).await.expect("it does not close");
    all
}

#[tokio::test]
async fn prior_knowledge_is_told_from_http1_on_one_port() {
    let started = start(settings());
    assert_eq!(ask_h2(started.connect().await).await.unwrap(), 200);
    started.handler.next_end().await.unwrap();
    let (connection, _) = started.handler.heads.lock().unwrap().remove(0);
    assert_eq!(connection.protocol, Protocol::Http2);
    assert_eq!(&connection.local, started.accepting.local());
    assert!(matches!(connection.peer, Peer::Tcp(peer) if peer.ip().is_loopback()));
}

#[tokio::test]
async fn http1_is_served_from_its_first_byte_on() {
    let started = start(settings());
    let mut io = started.connect().await;
    // "P" could still become the preface of HTTP/2.
    for piece in
        ["P", "UT / HTTP/1.1\r\nHost: www.test\r\n", "Connection: close\r\nContent-Length: 0\r\n\r\n"]
    {
        io.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = String::from_utf8(read_all(io).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"), "{answer}");
    let (connection, head) = started.handler.heads.lock().unwrap().remove(0);
    assert_eq!((connection.protocol, head.method.as_str()), (Protocol::Http1, "PUT"));
}

#[tokio::test]
async fn what_is_not_http2_is_closed_without_a_byte_where_only_h2c_is_spoken() {
    let started = start(Listener { protocols: only_h2(), ..settings() });
    for first in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"P", b"PRI * HTTP/1.1\r\n", b"\x16\x03\x01"] {
        let mut io = started.connect().await;
        io.write_all(first).await.unwrap();
        io.shutdown().await.unwrap();
        assert_eq!(read_all(io).await, b"", "{}", first.escape_ascii());
    }
    assert!(started.handler.heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn both_families_reach_a_socket_of_all_addresses() {
    let started = start_at(&Bind::Any(0), settings());
    let port = started.accepting.local().socket_addr().unwrap().port();
    assert_ne!(port, 0);
    let io = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(ask_h2(io).await.unwrap(), 200);
    let (connection, _) = started.handler.heads.lock().unwrap().remove(0);
    assert_eq!(connection.peer.ip().to_string(), "127.0.0.1");
    // A machine without IPv6 has nothing more to show.
    if let Ok(io) = TcpStream::connect(("::1", port)).await {
        assert_eq!(ask_h2(io).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn an_address_is_taken_before_it_listens_and_given_back_on_drop() {
    let bound = Bound::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    let addr = bound.local().socket_addr().unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
    drop(bound);
    std::net::TcpListener::bind(addr).unwrap();
}

#[tokio::test]
async fn a_unix_socket_serves_and_removes_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let socket = Socket::new();
    let started = start_at(&socket.bind(), settings());
    let mode = std::fs::metadata(&socket.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(ask_h2(UnixStream::connect(&socket.0).await.unwrap()).await.unwrap(), 200);
    started.accepting.stop().await;
    assert!(!socket.0.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_a_living_one_and_a_file_are_not() {
    let socket = Socket::new();
    drop(std::os::unix::net::UnixListener::bind(&socket.0).unwrap());
    let living = Bound::bind(&socket.bind(), false).unwrap().listen(&Handle::current()).unwrap();
    assert!(matches!(Bound::bind(&socket.bind(), false), Err(BindError::Living { .. })));
    drop(living);
    std::fs::write(&socket.0, "data").unwrap();
    assert!(matches!(Bound::bind(&socket.bind(), false), Err(BindError::NoSocket { .. })));
    assert_eq!(std::fs::read(&socket.0).unwrap(), b"data");
}

#[tokio::test]
async fn past_the_limits_a_connection_is_closed_and_settings_change_under_way() {
    let mut settings = settings();
    settings.limits.connections = 1;
    let started = start(settings.clone());
    let first = started.connect().await;
    started.counts(1).await;
    assert!(read_all(started.connect().await).await.is_empty());

    settings.limits.connections = 3;
    settings.limits.connections_per_ip = Some(1);
    started.live.update(settings);
    let second = started.connect().await;
    started.counts(2).await;
    assert!(read_all(started.connect().await).await.is_empty());
    drop((first, second));
    started.counts(0).await;
}

#[tokio::test]
async fn stopping_takes_what_waits_and_closes_the_port() {
    let socket =
        Bound::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap().listen(&Handle::current()).unwrap();
    let addr = socket.local().socket_addr().unwrap();
    // These wait in the queue: nobody accepts yet.
    let waiting = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    let (live, handler) = (Live::new(settings()), Arc::new(Scripted::default()));
    let accepting = Accepting::start(&Handle::current(), socket, live.clone(), handler);
    accepting.stop().await;
    assert!(TcpStream::connect(addr).await.is_err());
    for io in waiting {
        assert_eq!(ask_h2(io).await.unwrap(), 200);
    }
    drop(live);
}

#[tokio::test]
async fn draining_closes_silent_connections_and_waits_for_the_busy() {
    let started = start(settings());
    let silent = started.connect().await;
    let busy = tokio::spawn(async move {
        let (mut send, connection) = h2_client::client::handshake(started.connect().await).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://www.test/hang").body(()).unwrap();
        let sent = send.send_request(request, true).unwrap();
        started.handler.next_begin().await;
        (started, sent)
    });
    let (started, (_response, mut sending)) = busy.await.unwrap();
    started.counts(2).await;
    let draining = started.live.drain();
    assert!(read_all(silent).await.is_empty());
    assert!(timeout(Duration::from_millis(20), draining.ended()).await.is_err());
    sending.send_reset(h2_client::Reason::CANCEL);
    draining.ended().await;
    assert_eq!(ask_h2(started.connect().await).await.unwrap(), 200, "later connections are not concerned");
}

#[tokio::test]
async fn what_does_not_end_can_be_cut() {
    let started = start(settings());
    let (mut send, connection) = h2_client::client::handshake(started.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://www.test/hang").body(()).unwrap();
    let (response, _keep): (_, h2_client::SendStream<Bytes>) = send.send_request(request, true).unwrap();
    started.handler.next_begin().await;
    let draining = started.live.drain();
    draining.cut();
    draining.ended().await;
    assert!(response.await.is_err());
    started.counts(0).await;
}

// === TLS ===

fn server_tls(
    names: &[&[&str]],
    protocols: Protocols,
    client_auth: Option<tls::ClientAuth>,
) -> (Listener, RootCertStore) {
    let made = SelfSigned::default();
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = names
        .iter()
        .map(|names| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let certificate = made.certificate(&names).unwrap();
            roots.add(certificate.chain()[0].clone()).unwrap();
            certificate
        })
        .collect();
    let server = server(tls::Handshake {
        resolver: tls::Resolver::new(&certificates, []),
        versions: tls::SINCE_TLS12,
        alpn: protocols.alpn(),
        session_tickets: true,
        early_data: false,
        quic: None,
        client_auth: client_auth.map(Arc::new),
        hosts: Vec::new(),
    });
    (Listener { protocols, tls: Some(server), ..settings() }, roots)
}

fn server(handshake: tls::Handshake) -> Arc<tls::Server> {
    Arc::new(tls::Server::new(handshake, &tls::Tickets::default()).unwrap())
}

fn client_config(roots: RootCertStore, alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn handshake(
    started: &Started,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_string()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, started.connect().await).await
}

#[tokio::test]
async fn tls_settles_certificate_and_protocol() {
    let all = Protocols { h1: true, h2: true, h3: false };
    let (settings, roots) = server_tls(&[&["default.test"], &["*.example.test"]], all, None);
    let started = start(settings);
    let io = handshake(&started, client_config(roots.clone(), &["http/1.1", "h2"]), "www.example.test")
        .await
        .unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ours is the order");
    assert_eq!(ask_h2(io).await.unwrap(), 200);
    let (connection, _) = started.handler.heads.lock().unwrap().remove(0);
    let facts = connection.tls.clone().unwrap();
    assert_eq!((facts.version, facts.sni.as_deref()), ("TLSv1.3", Some("www.example.test")));
    assert!(facts.cipher.starts_with("TLS13_"), "{}", facts.cipher);
    assert_eq!(facts.client, None);
}

#[tokio::test]
async fn a_client_of_another_protocol_fails_in_the_handshake_or_is_told() {
    let (settings, roots) = server_tls(&[&["www.test"]], only_h2(), None);
    let started = start(settings);
    assert!(handshake(&started, client_config(roots.clone(), &["http/1.1"]), "www.test").await.is_err());
    let mut io = handshake(&started, client_config(roots, &[]), "www.test").await.unwrap();
    io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_all(io).await.starts_with(b"HTTP/1.1 505 "));
}

#[tokio::test]
async fn sessions_are_resumed_by_ticket() {
    let (settings, roots) = server_tls(&[&["www.test"]], Protocols { h1: true, h2: true, h3: false }, None);
    let started = start(settings);
    let config = client_config(roots, &["h2"]);
    for resumed in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let io = handshake(&started, config.clone(), "www.test").await.unwrap();
        assert_eq!(io.get_ref().1.handshake_kind(), Some(resumed));
        assert_eq!(ask_h2(io).await.unwrap(), 200);
    }
}

/// A certificate for a client, signed by an authority of its own: authority, certificate, key.
fn client_certificate() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let signed = authority.self_signed(&authority_key).unwrap();
    let mut client = CertificateParams::new(["alice.test".to_string()]).unwrap();
    client.distinguished_name = Default::default();
    client.distinguished_name.push(DnType::CommonName, "alice");
    client.subject_alt_names.push(SanType::URI("spiffe://test/alice".try_into().unwrap()));
    let client = client.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    (signed.der().to_vec(), client.der().to_vec(), key.serialize_der())
}

fn with_certificate(mut config: ClientConfig, der: Vec<u8>, key: Vec<u8>) -> ClientConfig {
    let signing = rustls::crypto::ring::sign::any_supported_type(
        &rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
    );
    let own = rustls::sign::CertifiedKey::new(vec![der.into()], signing.unwrap());
    let resolver = rustls::sign::SingleCertAndKey::from(own);
    config.client_auth_cert_resolver = Arc::new(resolver);
    config
}

#[tokio::test]
async fn a_verified_client_is_known_and_an_unverified_one_refused() {
    for required in [true, false] {
        let (authority, der, key) = client_certificate();
        let client_auth = tls::ClientAuth::new(vec![authority.into()], required).unwrap();
        let both = Protocols { h1: true, h2: true, h3: false };
        let (settings, roots) = server_tls(&[&["www.test"]], both, Some(client_auth));
        let started = start(settings);
        let plain = client_config(roots, &["h2"]);

        let io = handshake(&started, with_certificate(plain.clone(), der, key), "www.test").await.unwrap();
        assert_eq!(ask_h2(io).await.unwrap(), 200);
        let (connection, _) = started.handler.heads.lock().unwrap().remove(0);
        let client = connection.tls.as_ref().unwrap().client.clone().unwrap();
        assert_eq!(
            (client.subject.as_str(), client.issuer.as_str().contains("authority")),
            ("CN=alice", true)
        );
        assert_eq!(client.sans.dns, ["alice.test"]);
        assert_eq!(client.sans.uri, ["spiffe://test/alice"]);
        assert_eq!(client.fingerprint.len(), 64);

        let (_, other, other_key) = client_certificate();
        let wrong = with_certificate(plain.clone(), other, other_key);
        assert!(asks_in_vain(&started, wrong).await, "a wrong certificate, required: {required}");
        assert_eq!(asks_in_vain(&started, plain).await, required, "no certificate, required: {required}");
    }
}

/// In TLS 1.3 a client learns of its refusal by its first read.
async fn asks_in_vain(started: &Started, config: ClientConfig) -> bool {
    match handshake(started, config, "www.test").await {
        Ok(io) => ask_h2(io).await.is_err(),
        Err(_) => true,
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let (mut settings, _) = server_tls(&[&["www.test"]], only_h2(), None);
    settings.timeouts.handshake = Duration::from_millis(20);
    let started = start(settings);
    let mut io = started.connect().await;
    io.write_all(&[22, 3, 1]).await.unwrap();
    assert!(read_all(io).await.is_empty());
    started.counts(0).await;
}

#[tokio::test]
async fn the_oldest_version_is_kept_to() {
    let (settings, roots) = server_tls(&[&["www.test"]], only_h2(), None);
    let tls12 = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap();
        builder.with_root_certificates(roots.clone()).with_no_client_auth()
    };
    let started = start(settings);
    let io = handshake(&started, tls12(), "www.test").await.unwrap();
    assert_eq!(io.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));

    let server = server(tls::Handshake {
        resolver: tls::Resolver::new(&[SelfSigned::default().certificate(&["www.test".into()]).unwrap()], []),
        versions: tls::SINCE_TLS13,
        alpn: Vec::new(),
        session_tickets: true,
        early_data: false,
        quic: None,
        client_auth: None,
        hosts: Vec::new(),
    });
    started.live.update(Listener { tls: Some(server), ..Listener::for_tests("web") });
    assert!(handshake(&started, tls12(), "www.test").await.is_err());
}

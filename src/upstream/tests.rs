use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use pingora::protocols::tls::ALPN;
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::{
    config::{Protocol, Verify},
    *,
};
use crate::value::{Address, Clock};

/// Settings of a pool at 10.0.0.1 and on, watched by checks that nobody starts.
pub fn settings(weights: &[u16]) -> Settings {
    let addresses = (1u32..).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n));
    let endpoints = weights.iter().zip(addresses).map(|(weight, ip)| {
        let address = Denied::default().admit(format!("{ip}:8080").parse().unwrap()).unwrap();
        EndpointSettings::new(address, *weight)
    });
    Settings {
        proxy_protocol: None,
        name: "pool".parse().unwrap(),
        endpoints: endpoints.collect(),
        sources: Vec::new(),
        resolvers: Arc::default(),
        denied: Denied::default(),
        balance: Balance::RoundRobin,
        protocol: Protocol::H1,
        tls: None,
        health: Some(Health {
            probe: Probe::Tcp,
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
            unhealthy_after: 1,
            healthy_after: 1,
        }),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            body_idle: Duration::from_secs(30),
        },
        pool: Pool::of_idle(Duration::from_secs(50)),
        in_flight: None,
        response_limits: Default::default(),
        zone: None,
        resilience: Resilience::default(),
        retry: Default::default(),
        sticky: None,
    }
}

fn registry() -> Registry {
    Registry::new(Clock::machine(), None, Arc::default())
}

fn tls() -> Tls {
    Tls {
        server_name: ServerName::Request,
        authorities: None,
        client_certificate: None,
        verify: Verify::Full,
    }
}

/// One endpoint, checked by a request.
fn checked(address: Address) -> Settings {
    let mut settings = settings(&[1]);
    settings.endpoints[0].address = Denied::default().admit(address).unwrap();
    let probe = Probe::Http { path: "/ready".parse().unwrap(), status: 200..=299, host: None };
    settings.health.as_mut().unwrap().probe = probe;
    settings
}

#[test]
fn a_pick_counts_while_it_lasts_and_is_not_made_twice() {
    let upstream = Upstream::build(settings(&[1, 1]), &registry());
    let mut tried = Tried::default();
    let first = upstream.pick(PickKey::NONE, &tried).unwrap();
    tried.add(&first);
    upstream.failed(&first);
    let second = upstream.pick(PickKey::NONE, &tried).unwrap();
    tried.add(&second);
    assert_ne!(first.endpoint.address, second.endpoint.address);
    assert!(upstream.pick(PickKey::NONE, &tried).is_none());
    let state = first.endpoint.state.clone();
    assert_eq!((state.in_flight(), state.failures()), (1, 1));
    first.connected();
    drop(first);
    assert_eq!((state.in_flight(), state.failures()), (0, 0));
}

#[test]
fn many_endpoints_are_tried_once_each() {
    let upstream = Upstream::build(settings(&[1; 300]), &registry());
    let mut tried = Tried::default();
    for _ in 0..256 {
        let pick = upstream.pick(PickKey::NONE, &tried).expect("others are left");
        assert!(!tried.has(&pick.endpoint));
        tried.add(&pick);
    }
}

#[test]
fn endpoints_of_a_lower_priority_wait_until_no_other_can_be_chosen() {
    let registry = registry();
    let mut settings = settings(&[1, 1, 1]);
    settings.endpoints[0].priority = 1;
    let upstream = Upstream::build(settings, &registry);
    let [second, third, first] = &upstream.endpoints()[..] else { panic!("three endpoints") };
    let chosen = |tried: &Tried| upstream.pick(PickKey::NONE, tried).map(|pick| pick.endpoint.shown.clone());
    for _ in 0..10 {
        assert_ne!(chosen(&Tried::default()), Some(first.shown.clone()));
    }
    second.state.set_healthy(false);
    let pick = upstream.pick(PickKey::NONE, &Tried::default()).unwrap();
    assert_eq!(pick.endpoint.address, third.address);
    let mut tried = Tried::default();
    tried.add(&pick);
    assert_eq!(chosen(&tried), Some(first.shown.clone()));
    assert!(upstream.pick_at(&first.address, &Tried::default()).is_some());
}

#[test]
fn no_healthy_endpoint_no_pick() {
    let registry = registry();
    let upstream = Upstream::build(settings(&[1, 1]), &registry);
    upstream.endpoints().iter().for_each(|endpoint| endpoint.state.set_healthy(false));
    assert!(upstream.pick(PickKey::NONE, &Tried::default()).is_none());
    // Without checks nothing would ever make them healthy again.
    let unwatched = Upstream::build(Settings { health: None, ..settings(&[1, 1]) }, &registry);
    assert!(unwatched.pick(PickKey::NONE, &Tried::default()).is_some());
}

#[test]
fn every_balancer_serves_and_skips_what_was_tried() {
    let key: config::BalanceKey = "path".parse().unwrap();
    for balance in [
        Balance::RoundRobin,
        Balance::RandomTwo,
        Balance::LeastRequests,
        Balance::Ewma,
        Balance::Hash(key.clone()),
        Balance::ConsistentHash(key),
    ] {
        let upstream = Upstream::build(Settings { balance, ..settings(&[1000, 1, 1]) }, &registry());
        let headers = http::HeaderMap::new();
        let facts = Facts {
            client_ip: "10.0.0.1".parse().unwrap(),
            host: "a",
            path: "/",
            query: None,
            headers: &headers,
        };
        let key = upstream.key(&facts);
        let mut tried = Tried::default();
        let mut seen = std::collections::HashSet::new();
        while let Some(pick) = upstream.pick(key, &tried) {
            tried.add(&pick);
            assert!(seen.insert(pick.endpoint.address.clone()), "{:?}", upstream.balance);
        }
        assert_eq!(seen.len(), 3, "{:?}", upstream.balance);
    }
}

#[test]
fn a_reload_keeps_state_by_address_and_identity() {
    let registry = registry();
    let old = Upstream::build(settings(&[1, 1]), &registry);
    let new = Upstream::build(settings(&[5, 1, 1]), &registry);
    assert!(Arc::ptr_eq(&old.endpoints()[0].state, &new.endpoints()[0].state));
    let encrypted = Upstream::build(Settings { tls: Some(tls()), ..settings(&[1]) }, &registry);
    assert!(!Arc::ptr_eq(&old.endpoints()[0].state, &encrypted.endpoints()[0].state));
    let other = Upstream::build(Settings { name: "other".parse().unwrap(), ..settings(&[1]) }, &registry);
    assert!(!Arc::ptr_eq(&old.endpoints()[0].state, &other.endpoints()[0].state));
}

#[test]
fn a_reload_goes_on_with_the_turns() {
    let registry = registry();
    let next = |upstream: &Upstream| {
        upstream.pick(PickKey::NONE, &Tried::default()).unwrap().endpoint.address.to_string()
    };
    let old = Upstream::build(settings(&[1, 1, 1]), &registry);
    let before = [next(&old), next(&old)];
    let new = Upstream::build(settings(&[1, 1, 1]), &registry);
    let after = [next(&new), next(&old), next(&new)];
    assert_eq!(before, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(after, ["10.0.0.3:8080", "10.0.0.1:8080", "10.0.0.2:8080"]);
    let other = Upstream::build(Settings { name: "other".parse().unwrap(), ..settings(&[1, 1]) }, &registry);
    assert_eq!(next(&other), "10.0.0.1:8080", "each upstream has its own");
    drop((old, new));
    let anew = Upstream::build(settings(&[1, 1, 1]), &registry);
    assert_eq!(next(&anew), "10.0.0.1:8080", "what nobody uses is forgotten");
}

#[test]
fn a_reload_starts_only_the_checks_that_changed() {
    let registry = registry();
    let old = Upstream::build(settings(&[1, 1]), &registry);
    let tasks: Vec<_> = old.health_tasks();
    assert_eq!(tasks.len(), 2);
    let grown = Upstream::build(settings(&[1, 1, 1]), &registry);
    assert_eq!(grown.health_tasks().len(), 1);
    let mut changed = settings(&[1, 1, 1]);
    changed.health.as_mut().unwrap().healthy_after = 2;
    assert_eq!(Upstream::build(changed, &registry).health_tasks().len(), 3);
    drop(tasks);
    assert_eq!(grown.health_tasks().len(), 3, "tasks that ended are handed out again");
}

#[test]
fn peers_have_their_limits_and_protocol() {
    let build = |protocol, tls| {
        let upstream = Upstream::build(Settings { protocol, tls, ..settings(&[1]) }, &registry());
        upstream.endpoints()[0].peer("www.example.com", None)
    };
    let peer = build(Protocol::H1, None);
    let options = &peer.options;
    assert_eq!(options.connection_timeout, Some(Duration::from_secs(5)));
    assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(5)));
    assert!(!peer.is_tls() && peer.sni.is_empty() && peer.options.alpn == ALPN::H1);
    assert_eq!(build(Protocol::H2c, None).options.alpn, ALPN::H2);
    assert_eq!(build(Protocol::H2, Some(tls())).options.alpn, ALPN::H2);
    let auto = build(Protocol::Auto, Some(tls()));
    assert!(auto.is_tls() && auto.options.alpn == ALPN::H2H1);
}

#[test]
fn verification_is_never_lost_for_want_of_a_name() {
    let build = |tls| Upstream::build(Settings { tls: Some(tls), ..settings(&[1]) }, &registry());
    let of_request = build(tls());
    for (host, sni) in [("a.example", "a.example"), ("[::1]", "::1"), ("", "10.0.0.1")] {
        let peer = of_request.endpoints()[0].peer(host, None);
        assert_eq!(peer.sni, sni);
        assert!(peer.options.verify_cert && peer.options.verify_hostname);
    }
    let fixed = build(Tls { server_name: ServerName::Fixed("api".into()), ..tls() });
    assert_eq!(fixed.endpoints()[0].peer("a.example", None).sni, "api");
    assert_eq!(fixed.endpoints()[0].host_header(), "api");
    assert_eq!(of_request.endpoints()[0].host_header(), "10.0.0.1:8080");
    let unverified = build(Tls { verify: Verify::None, ..tls() });
    assert!(!unverified.endpoints()[0].peer("a.example", None).options.verify_cert);
}

// === health checks against origins ===

/// An origin of one page with a changing status, which notes the heads of requests.
#[derive(Default)]
struct Origin {
    status: AtomicU16,
    heads: Mutex<Vec<String>>,
}

impl Origin {
    fn new(status: u16) -> Arc<Self> {
        Arc::new(Self { status: status.into(), ..Self::default() })
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        self.heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        let status = self.status.load(Ordering::Relaxed);
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nok");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    (listener, address)
}

fn spawn_tasks(upstream: &Upstream) -> Vec<tokio::task::JoinHandle<()>> {
    upstream.health_tasks().into_iter().map(|task| tokio::spawn(task.run())).collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn http_checks_follow_the_status_and_end_with_the_upstream() {
    let (listener, address) = listen().await;
    let origin = Origin::new(200);
    let serving = origin.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serving.answer(stream).await;
        }
    });
    let mut settings = checked(address.clone());
    settings.health.as_mut().unwrap().unhealthy_after = 2;
    let upstream = Upstream::build(settings, &registry());
    let tasks = spawn_tasks(&upstream);

    until("a second check", || origin.heads().len() > 1).await;
    assert!(upstream.endpoints()[0].is_healthy());
    let head = origin.heads().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /ready http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");

    origin.status.store(503, Ordering::Relaxed);
    until("unhealthy", || !upstream.endpoints()[0].is_healthy()).await;
    origin.status.store(204, Ordering::Relaxed);
    until("healthy", || upstream.endpoints()[0].is_healthy()).await;

    drop(upstream);
    for task in tasks {
        task.await.expect("it ends by itself");
    }
}

#[tokio::test]
async fn tcp_checks_see_who_listens() {
    let (listener, address) = listen().await;
    let mut settings = settings(&[1]);
    settings.endpoints[0].address = Denied::default().admit(address).unwrap();
    let upstream = Upstream::build(settings, &registry());
    spawn_tasks(&upstream);
    listener.accept().await.unwrap();
    assert!(upstream.endpoints()[0].is_healthy());
    drop(listener);
    until("unhealthy", || !upstream.endpoints()[0].is_healthy()).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_failure() {
    let (_listener, address) = listen().await;
    let mut settings = checked(address);
    settings.health.as_mut().unwrap().timeout = Duration::from_millis(20);
    let upstream = Upstream::build(settings, &registry());
    spawn_tasks(&upstream);
    until("unhealthy", || !upstream.endpoints()[0].is_healthy()).await;
}

#[tokio::test]
async fn http_checks_reach_unix_sockets() {
    let path: PathBuf = std::env::temp_dir().join(format!("portolan-{}.sock", uuid::Uuid::now_v7()));
    let listener = UnixListener::bind(&path).unwrap();
    let origin = Origin::new(500);
    let serving = origin.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serving.answer(stream).await;
        }
    });
    let upstream = Upstream::build(checked(Address::Unix(path.clone())), &registry());
    spawn_tasks(&upstream);
    until("unhealthy", || !upstream.endpoints()[0].is_healthy()).await;
    assert!(origin.heads()[0].to_ascii_lowercase().contains("host: localhost\r\n"));
    origin.status.store(200, Ordering::Relaxed);
    until("healthy", || upstream.endpoints()[0].is_healthy()).await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn http2_checks_name_the_authority() {
    let (listener, address) = listen().await;
    let (seen, mut uris) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let _ = seen.send(request.uri().to_string());
                let answer = http::Response::builder().status(404).body(()).unwrap();
                let _ = respond.send_response(answer, true);
            }
        }
    });
    let upstream =
        Upstream::build(Settings { protocol: Protocol::H2c, ..checked(address.clone()) }, &registry());
    spawn_tasks(&upstream);
    assert_eq!(uris.recv().await.unwrap(), format!("http://{address}/ready"));
    until("unhealthy", || !upstream.endpoints()[0].is_healthy()).await;
}

#[tokio::test]
async fn tls_checks_verify() {
    let (listener, address) = listen().await;
    let own = rcgen::generate_simple_self_signed(["api.internal".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let origin = Origin::new(200);
    let serving = origin.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serving.answer(stream).await;
            }
        }
    });
    let build = |name: &str, server_name, authorities, verify| {
        let tls = Some(Tls { server_name, authorities, client_certificate: None, verify });
        let name = name.parse().unwrap();
        let upstream = Upstream::build(Settings { tls, name, ..checked(address.clone()) }, &registry());
        spawn_tasks(&upstream);
        upstream
    };
    let ca = || Some(Authorities::from_pem(own.cert.pem().as_bytes()).unwrap());
    let name = || ServerName::Fixed("api.internal".into());

    let right = build("right", name(), ca(), Verify::Full);
    until("checks pass", || origin.heads().len() > 1).await;
    assert!(right.endpoints()[0].is_healthy());
    assert!(origin.heads()[0].to_ascii_lowercase().contains("host: api.internal\r\n"));
    drop(right);

    let unknown = build("unknown-authority", name(), None, Verify::Full);
    until("refused", || !unknown.endpoints()[0].is_healthy()).await;
    let wrong = build("wrong-name", ServerName::Fixed("other".into()), ca(), Verify::Full);
    until("refused", || !wrong.endpoints()[0].is_healthy()).await;
    // Its name is the address, which the certificate does not bear: no name must not mean no verification.
    let nameless = build("nameless", ServerName::Request, ca(), Verify::Full);
    until("refused", || !nameless.endpoints()[0].is_healthy()).await;

    let before = origin.heads().len();
    let unverified = build("unverified", ServerName::Request, None, Verify::None);
    until("checks pass", || origin.heads().len() > before + 1).await;
    assert!(unverified.endpoints()[0].is_healthy());
}

//! Requests of our own: small ones, to a pool or to a URL.
//!
//! A call ends: by its deadline at the latest, with a body within bounds or not at all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use pingora::{protocols::tls::ALPN, upstreams::peer::HttpPeer};
use tokio::time::timeout_at;

use super::{
    Admission, Overload, Permit, PickKey, Place, Priority, Rejected, Tried, Upstream,
    config::Protocol,
    connections::{Connections, Connector, Key, Route},
    exchange::{Exchange, Failure, Processed, RequestHead, discarded, whole},
    key,
    mirror::RequestCopy,
    settings,
    state::is_failure,
    tls::Authorities,
};
use crate::{error::Reason, http::connection_auth, value::Url, wire::h1::body::BodyLength};

pub use super::exchange::Trailers;

/// What requests of our own are sent by. One per process.
pub struct Caller {
    connector: Arc<Connector>,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub enum Destination {
    Upstream(Arc<Upstream>),
    Site(Arc<Site>),
}

/// The origin of a URL. Over TLS its certificate is verified by the given authorities, or the system's.
#[derive(Debug)]
pub struct Site {
    url: Url,
    protocol: Protocol,
    authorities: Option<Authorities>,
    connections: Arc<Connections>,
    addresses: Mutex<Option<Addresses>>,
}

#[derive(Clone, Debug)]
struct Addresses {
    list: Arc<[SocketAddr]>,
    until: Instant,
}

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub deadline: Duration,
    /// The most that the response's body may have, in bytes.
    pub body: usize,
}

/// The remaining time and size of a call.
#[derive(Clone, Copy)]
struct Limits {
    until: Instant,
    deadline: Duration,
    /// None: the response's body is thrown away.
    body: Option<usize>,
}

/// Endpoints of an upstream to ask, and how they are asked.
struct Pool<'a> {
    upstream: &'a Upstream,
    key: PickKey,
    /// The Host that is sent; without one the endpoint's own.
    host: Option<&'a HeaderValue>,
    /// The server name where the upstream has none of its own.
    server_name: &'a str,
    /// Endpoints that are tried at most.
    attempts: u8,
    priority: Priority,
}

/// Why a call has no response.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {cause}", reason.code())]
pub struct CallError {
    pub reason: Reason,
    cause: String,
}

/// How far a try came that failed.
enum Failed {
    /// There was no connection.
    Connecting(CallError),
    Answering(CallError),
}

/// One place to ask.
struct Hop<'a> {
    route: Route,
    peer: &'a (dyn Fn() -> Box<HttpPeer> + Send + Sync),
    host: &'a HeaderValue,
    tls: bool,
}

/// How long a name's addresses are used before they are looked up again.
const ADDRESSES_HOLD: Duration = Duration::from_secs(30);
/// So often a request is sent again that was not processed.
const MOST_REPEATS: u32 = 2;
/// How long an unused connection to a site is kept.
const SITE_IDLE: Duration = Duration::from_secs(60);

// === impl Caller ===

impl Caller {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self { connector }
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self::new(Arc::new(Connector::new(None)))
    }

    /// Sends a request whose URI is a path with its query, and gives the whole response. Host and the fields
    /// of framing are written here.
    pub async fn call(
        &self,
        to: &Destination,
        request: &Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, CallError> {
        let limits = Limits::new(bounds.deadline, Some(bounds.body));
        match to {
            Destination::Upstream(upstream) => {
                let attempts = upstream.connect_retries().saturating_add(1);
                let (key, host, server_name) = (PickKey::NONE, None, "");
                let priority = Priority::Normal;
                let pool = Pool { upstream, key, host, server_name, attempts, priority };
                self.ask_upstream(pool, request, limits).await
            }
            Destination::Site(site) => self.ask_site(site, request, limits).await,
        }
    }

    /// Sends the copy of a request once, and throws the response away.
    pub(super) async fn send(&self, copy: &RequestCopy) -> Result<(), CallError> {
        let (host, server_name) = (copy.host.as_ref(), copy.server_name.as_str());
        let (upstream, key) = (&copy.upstream, copy.key);
        // A copy takes no other request's place.
        let pool = Pool { upstream, key, host, server_name, attempts: 1, priority: Priority::Low };
        self.ask_upstream(pool, &copy.request, Limits::new(copy.timeout, None)).await.map(drop)
    }

    /// Tries one endpoint after the other while none can be connected to.
    async fn ask_upstream(
        &self,
        Pool { upstream, key, host, server_name, attempts, priority }: Pool<'_>,
        request: &Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, CallError> {
        upstream.asked(Instant::now());
        let _place = limits.within(self.enter(upstream, priority)).await??;
        let mut permit = upstream.admit().map_err(|Rejected(left)| CallError {
            reason: Reason::CircuitOpen,
            cause: format!("the circuit is open for {left:?}"),
        })?;
        let mut tried = Tried::default();
        let mut failure = CallError { reason: upstream.lack(), cause: "no endpoint is usable".into() };
        for _ in 0..attempts {
            let Some(pick) = upstream.pick(key, &tried) else { break };
            tried.add(&pick);
            let metrics = pick.endpoint.state.metrics();
            metrics.tried();
            let began = Instant::now();
            let hop = Hop {
                route: pick.endpoint.route(server_name, None),
                peer: &|| pick.endpoint.peer(server_name, None),
                host: host.unwrap_or(pick.endpoint.host_header()),
                tls: pick.endpoint.is_tls(),
            };
            let answered = self.ask(&hop, request, limits).await;
            if !matches!(answered, Err(Failed::Connecting(_))) {
                pick.connected();
            }
            match answered {
                Ok(response) => {
                    let now = Instant::now();
                    permit.iter_mut().for_each(|permit| permit.answered(is_failure(response.status())));
                    upstream.answered(&pick, response.status(), now, now - began);
                    metrics.exchanged(request.body().len() as u64, response.body().len() as u64);
                    return Ok(response);
                }
                Err(Failed::Connecting(error)) => {
                    pick.connect_failed();
                    // A pool that is busy says nothing of the endpoint.
                    if error.reason != Reason::UpstreamOverloaded {
                        permit.iter_mut().for_each(Permit::failed);
                        upstream.failed(&pick);
                    }
                    if error.is_late() {
                        return Err(error);
                    }
                    failure = error;
                }
                Err(Failed::Answering(error)) => {
                    permit.iter_mut().for_each(Permit::failed);
                    upstream.failed(&pick);
                    return Err(error);
                }
            }
        }
        Err(failure)
    }

    /// Passes the upstream's limit of requests in flight.
    async fn enter(&self, upstream: &Upstream, priority: Priority) -> Result<Option<Place>, CallError> {
        let overloaded = |overload: Overload| CallError {
            reason: Reason::UpstreamOverloaded,
            cause: overload.cause().into(),
        };
        match upstream.enter(priority).map_err(overloaded)? {
            Admission::Admitted(place) => Ok(place),
            Admission::Queued(mut queued) => upstream.wait(&mut queued).await.0.map(Some).map_err(overloaded),
        }
    }

    /// Tries one address after the other while none can be connected to.
    async fn ask_site(
        &self,
        site: &Site,
        request: &Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, CallError> {
        let host = HeaderValue::from_str(site.url.authority().as_str());
        let host = host.expect("an authority holds visible ASCII only");
        let unresolved = |cause: String| CallError { reason: Reason::ConnectFailed, cause };
        let addresses = limits.within(site.addresses()).await?;
        let addresses = addresses
            .map_err(|error| unresolved(format!("{} cannot be resolved: {error}", site.url.host())))?;
        let mut failure = unresolved(format!("{} has no address", site.url.host()));
        for address in addresses.iter() {
            let hop = Hop {
                route: site.route(*address),
                peer: &|| site.peer(*address),
                host: &host,
                tls: site.url.is_https,
            };
            match self.ask(&hop, request, limits).await {
                Ok(response) => return Ok(response),
                Err(Failed::Connecting(error)) if !error.is_late() => failure = error,
                Err(Failed::Connecting(error) | Failed::Answering(error)) => return Err(error),
            }
        }
        // They may have changed.
        site.forget_addresses();
        Err(failure)
    }

    /// Sends over an idle connection or a new one. An idle one that the other side has closed meanwhile is
    /// replaced, where the method lets a request be sent again (RFC 9110 section 9.2.2).
    async fn ask(
        &self,
        hop: &Hop<'_>,
        request: &Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Failed> {
        let (parts, ()) = request_head(request).into_parts();
        // Credentials may sign in the connection: then it serves this request alone.
        let signs_in = connection_auth::has_credentials(request.headers());
        let mut idle = if signs_in { None } else { hop.route.connections.reuse(&hop.route) };
        let mut repeats = 0;
        loop {
            let reused = idle.is_some();
            let mut exchange = match idle.take() {
                Some(exchange) => exchange,
                None => {
                    let private = signs_in.then(|| hop.route.private());
                    let route = private.as_ref().unwrap_or(&hop.route);
                    let opening = self.connector.open(route, (hop.peer)(), repeats > 0);
                    let opened = limits.within(opening).await.map_err(Failed::Connecting)?;
                    opened.map_err(|failure| Failed::Connecting(CallError::of(&failure)))?
                }
            };
            let reused = reused || exchange.is_reused();
            let head = RequestHead {
                parts: &parts,
                host: hop.host,
                tls: hop.tls,
                body: match request.body().len() {
                    0 => BodyLength::Empty,
                    length => BodyLength::Exact(length as u64),
                },
                tunnel: None,
            };
            let answered =
                limits.exchange(&mut exchange, head, request.body().clone()).await.map_err(|late| {
                    exchange.distrust();
                    Failed::Answering(late)
                })?;
            match answered {
                Ok(response) => {
                    if !signs_in && !connection_auth::has_challenge(response.headers()) {
                        self.connector.release(&hop.route, exchange);
                    }
                    return Ok(response);
                }
                Err(failure) if repeats < MOST_REPEATS && can_be_repeated(request, &failure, reused) => {
                    repeats += 1;
                }
                Err(failure) => return Err(Failed::Answering(CallError::of(&failure))),
            }
        }
    }
}

fn request_head(request: &Request<Bytes>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

fn can_be_repeated(request: &Request<Bytes>, failure: &Failure, reused: bool) -> bool {
    match failure.processed {
        Processed::Unsent | Processed::Refused => true,
        Processed::Unanswered => reused && request.method().is_idempotent(),
        Processed::Unknown => false,
    }
}

// === impl Site ===

impl Site {
    pub fn new(url: Url, authorities: Option<Authorities>) -> Self {
        Self::speaking(Protocol::H1, url, authorities)
    }

    /// Of one that speaks HTTP/2 alone: over TLS by ALPN, else by prior knowledge.
    pub fn over_http2(url: Url, authorities: Option<Authorities>) -> Self {
        let protocol = if url.is_https { Protocol::H2 } else { Protocol::H2c };
        Self::speaking(protocol, url, authorities)
    }

    fn speaking(protocol: Protocol, url: Url, authorities: Option<Authorities>) -> Self {
        Self { url, protocol, authorities, connections: Arc::default(), addresses: Mutex::default() }
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    fn route(&self, address: SocketAddr) -> Route {
        Route {
            connections: self.connections.clone(),
            key: Key(key::hash(address.to_string().as_bytes())),
            protocol: self.protocol,
            limits: Default::default(),
            pool: settings::Pool::of_idle(SITE_IDLE),
        }
    }

    fn peer(&self, address: SocketAddr) -> Box<HttpPeer> {
        let name = if self.url.is_https { self.url.host().to_owned() } else { String::new() };
        let mut peer = Box::new(HttpPeer::new(address, self.url.is_https, name));
        peer.options.ca = self.authorities.as_ref().map(Authorities::certificates);
        peer.options.alpn = if self.protocol == Protocol::H1 { ALPN::H1 } else { ALPN::H2 };
        peer
    }

    async fn addresses(&self) -> std::io::Result<Arc<[SocketAddr]>> {
        if let Ok(ip) = self.url.host().parse::<IpAddr>() {
            return Ok([SocketAddr::new(ip, self.url.port())].into());
        }
        let known = self.lock().clone();
        if let Some(known) = known.filter(|known| Instant::now() < known.until) {
            return Ok(known.list);
        }
        let list: Arc<[_]> = tokio::net::lookup_host((self.url.host(), self.url.port())).await?.collect();
        *self.lock() = Some(Addresses { list: list.clone(), until: Instant::now() + ADDRESSES_HOLD });
        Ok(list)
    }

    fn forget_addresses(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Addresses>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Limits ===

impl Limits {
    fn new(deadline: Duration, body: Option<usize>) -> Self {
        Self { until: Instant::now() + deadline, deadline, body }
    }

    /// The response, unless the deadline ends the exchange before it is there: its head, where its body is thrown away.
    async fn exchange(
        &self,
        exchange: &mut Exchange,
        head: RequestHead<'_>,
        body: Bytes,
    ) -> Result<Result<Response<Bytes>, Failure>, CallError> {
        let Some(most) = self.body else {
            let mut answered = None;
            let ended = self.within(discarded(exchange, head, body, &mut answered)).await;
            return match (ended, answered) {
                (Ok(Err(failure)), _) => Ok(Err(failure)),
                (_, Some(head)) => Ok(Ok(Response::from_parts(head, Bytes::new()))),
                (Err(late), None) => Err(late),
                (Ok(Ok(())), None) => Ok(Err(Failure::protocol("the response has no final head"))),
            };
        };
        self.within(whole(exchange, head, body, most)).await
    }

    /// What comes of a step, unless the deadline ends it: then the endpoint that was asked has failed.
    async fn within<T>(&self, step: impl Future<Output = T>) -> Result<T, CallError> {
        let step = timeout_at(self.until.into(), step);
        step.await.map_err(|_| CallError {
            reason: Reason::TotalTimeout,
            cause: format!("no answer within {:?}", self.deadline),
        })
    }
}

// === impl CallError ===

impl CallError {
    fn of(failure: &Failure) -> Self {
        Self { reason: failure.reason, cause: failure.to_string() }
    }

    /// Whether the deadline has ended the call.
    fn is_late(&self) -> bool {
        self.reason == Reason::TotalTimeout
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::mpsc::{UnboundedReceiver, unbounded_channel},
    };

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok";

    /// What each connection answers to one request after the other before it closes.
    type Script = &'static [&'static [&'static str]];

    /// A site that goes by a script. What was asked comes out, with the number of the connection.
    async fn site(connections: Script) -> (Destination, UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (seen, heads) = unbounded_channel();
        tokio::spawn(async move {
            for (nth, answers) in connections.iter().enumerate() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let seen = seen.clone();
                tokio::spawn(async move {
                    for answer in *answers {
                        seen.send(format!("{nth} {}", head(&mut stream).await)).unwrap();
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (Destination::Site(Arc::new(Site::new(url.parse().unwrap(), None))), heads)
    }

    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    async fn call(caller: &Caller, to: &Destination, body: usize) -> Result<Response<Bytes>, CallError> {
        let request = Request::builder().uri("/a?b").header("x-c", "d").body(Bytes::new()).unwrap();
        caller.call(to, &request, Bounds { deadline: Duration::from_secs(20), body }).await
    }

    #[tokio::test]
    async fn connections_are_kept_and_stale_ones_replaced() {
        let (to, mut heads) = site(&[&[OK, OK], &[OK]]).await;
        let caller = Caller::for_tests();
        for _ in 0..2 {
            let response = call(&caller, &to, 2).await.unwrap();
            assert_eq!(
                (response.status(), &response.headers()["x-a"]),
                (StatusCode::OK, &"b".parse().unwrap())
            );
            assert_eq!(response.body(), "ok");
            let head = heads.recv().await.unwrap();
            assert!(head.starts_with("0 get /a?b http/1.1\r\n") && head.contains("\r\nx-c: d\r\n"), "{head}");
            assert!(head.contains("\r\nhost: 127.0.0.1:"), "{head}");
        }
        assert_eq!(call(&caller, &to, 2).await.unwrap().status(), 200);
        assert!(heads.recv().await.unwrap().starts_with("1 "));
    }

    #[tokio::test]
    async fn what_breaks_a_call_has_its_reason() {
        const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        const CASES: &[(Script, Result<u16, Reason>)] = &[
            (&[&[LONG]], Err(Reason::UpstreamProtocol)),
            (&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na"]], Err(Reason::UpstreamClosed)),
            (&[&["HTTP/1.1 101 Switching Protocols\r\n\r\n"]], Err(Reason::UpstreamProtocol)),
            (&[&[INTERIM]], Ok(204)),
        ];
        let caller = Caller::for_tests();
        for (answer, expected) in CASES {
            let (to, _heads) = site(answer).await;
            let got = call(&caller, &to, 2).await;
            let got = got.map(|response| response.status().as_u16()).map_err(|error| error.reason);
            assert_eq!(got, *expected, "{answer:?}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody =
            Destination::Site(Arc::new(Site::new(format!("http://{nobody}/").parse().unwrap(), None)));
        let refused = call(&caller, &nobody, 2).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ConnectRefused, "{refused}");
        let nowhere =
            Destination::Site(Arc::new(Site::new("http://nowhere.invalid/".parse().unwrap(), None)));
        assert_eq!(call(&caller, &nowhere, 2).await.unwrap_err().reason, Reason::ConnectFailed);
    }

    #[tokio::test]
    async fn no_call_outlives_its_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let to = Destination::Site(Arc::new(Site::new(url.parse().unwrap(), None)));
        let bounds = Bounds { deadline: Duration::from_millis(20), body: 0 };
        let late = Caller::for_tests().call(&to, &Request::new(Bytes::new()), bounds).await.unwrap_err();
        assert_eq!(late.reason, Reason::TotalTimeout);
        assert_eq!(late.to_string(), "total_timeout: no answer within 20ms");
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_answer_in_time_has_failed() {
        use crate::{telemetry::metrics::Metrics, upstream, value::Clock};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = upstream::tests::settings(&[1]);
        let address = crate::value::Address::Tcp(listener.local_addr().unwrap());
        settings.endpoints[0].address = upstream::Denied::default().admit(address).unwrap();
        let registry = upstream::Registry::new(Clock::machine(), None, Arc::<Metrics>::default());
        let upstream = Upstream::build(settings, &registry);
        let to = Destination::Upstream(upstream.clone());
        let failures = || upstream.pick(PickKey::NONE, &Tried::default()).unwrap().endpoint.state.failures();
        let call = async |deadline| {
            let bounds = Bounds { deadline, body: 0 };
            registry.caller().call(&to, &Request::new(Bytes::new()), bounds).await
        };
        // A call that its caller gives up does not count as a failure of the endpoint.
        let given_up = tokio::time::timeout(Duration::from_millis(20), call(Duration::from_secs(20))).await;
        assert!(given_up.is_err() && failures() == 0);
        let late = call(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!((late.reason, failures()), (Reason::TotalTimeout, 1));
    }

    #[tokio::test]
    async fn over_http2_the_authority_is_named_and_streams_share_a_connection() {
        use crate::{telemetry::metrics::Metrics, upstream, value::Clock};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, mut asked) = unbounded_channel();
        tokio::spawn(async move {
            for nth in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    let seen = seen.clone();
                    tokio::spawn(async move {
                        let mut body = Vec::new();
                        while let Some(Ok(piece)) = request.body_mut().data().await {
                            body.extend_from_slice(&piece);
                        }
                        seen.send((nth, request.uri().to_string(), body)).unwrap();
                        let mut stream = respond.send_response(Response::new(()), false).unwrap();
                        stream.send_data("answer".into(), true).unwrap();
                    });
                }
            }
        });
        let mut settings = upstream::tests::settings(&[1]);
        settings.endpoints[0].address =
            upstream::Denied::default().admit(crate::value::Address::Tcp(address)).unwrap();
        settings.protocol = Protocol::H2c;
        let registry = upstream::Registry::new(Clock::machine(), None, Arc::<Metrics>::default());
        let to = Destination::Upstream(Upstream::build(settings, &registry));
        let request = Request::post("/a?b").body(Bytes::from("question")).unwrap();
        let bounds = Bounds { deadline: Duration::from_secs(20), body: 100 };
        for _ in 0..2 {
            let response = registry.caller().call(&to, &request, bounds).await.unwrap();
            assert_eq!(response.body(), "answer");
            let expected = (0, format!("http://{address}/a?b"), b"question".to_vec());
            assert_eq!(asked.recv().await.unwrap(), expected);
        }
    }
}

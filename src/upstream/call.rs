//! Requests of our own: small ones, to a pool or to a URL, over connections that are kept.
//!
//! A call ends: by its deadline at the latest, with a body within bounds or not at all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri::Authority};
use pingora::{
    Error,
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    protocols::{http::client::HttpSession, tls::ALPN},
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, Peer},
};

use super::{
    PickKey, Tried, Upstream,
    config::{Protocol, Verify},
    failure::reason_for,
    key,
    tls::{Authorities, Identity, ServerName, Tls},
};
use crate::{error::Reason, http::connection_auth, value::Url};

/// What requests of our own are sent by. One per process: its connections are kept for all.
pub struct Caller {
    options: Option<ConnectorOptions>,
    /// Made at the first call: it loads the system's authorities.
    connector: OnceLock<Connector>,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub enum Destination {
    Upstream(Arc<Upstream>),
    Site(Arc<Site>),
}

/// Who is behind a URL. Over TLS its certificate is held against the given authorities, or the system's.
#[derive(Debug)]
pub struct Site {
    url: Url,
    protocol: Protocol,
    authorities: Option<Authorities>,
    group_key: u64,
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

/// Why a call has no response.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {cause}", reason.code())]
pub struct CallError {
    pub reason: Reason,
    cause: String,
}

/// What came after the body of a response over HTTP/2: among its extensions, where something did.
#[derive(Clone, Debug)]
pub struct Trailers(pub HeaderMap);

/// How far a try came that failed.
enum Failed {
    /// Nothing was sent.
    Connecting(CallError),
    /// Nothing was answered.
    Sending(CallError),
    Answering(CallError),
}

/// How long a name's addresses are used before they are looked up again.
const ADDRESSES_HOLD: Duration = Duration::from_secs(30);
/// How long an unused connection to a site is kept.
const SITE_IDLE: Duration = Duration::from_secs(60);
/// Interim responses (RFC 9110 section 15.2) that are read over before the final one.
const MOST_INTERIM: usize = 16;

// === impl Caller ===

impl Caller {
    pub fn new(options: Option<ConnectorOptions>) -> Self {
        Self { options, connector: OnceLock::new() }
    }

    /// Sends a request whose URI is a path with its query, and gives the whole response. Host and the fields
    /// of framing are written here.
    pub async fn call(
        &self,
        to: &Destination,
        request: &Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, CallError> {
        let call = async {
            match to {
                Destination::Upstream(upstream) => self.ask_upstream(upstream, request, bounds.body).await,
                Destination::Site(site) => self.ask_site(site, request, bounds.body).await,
            }
        };
        tokio::time::timeout(bounds.deadline, call).await.unwrap_or_else(|_| {
            let cause = format!("no answer within {:?}", bounds.deadline);
            Err(CallError { reason: Reason::TotalTimeout, cause })
        })
    }

    /// Tries one endpoint after the other while none can be connected to.
    async fn ask_upstream(
        &self,
        upstream: &Upstream,
        request: &Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, CallError> {
        upstream.asked();
        let mut tried = Tried::default();
        let mut failure = CallError { reason: Reason::NoEndpoint, cause: "no endpoint is healthy".into() };
        for _ in 0..=upstream.retries {
            let Some(pick) = upstream.pick(PickKey::NONE, &tried) else { break };
            tried.add(&pick);
            let metrics = pick.endpoint.state.metrics();
            metrics.tried();
            let began = Instant::now();
            let peer = pick.endpoint.peer("");
            let answered = self.ask(&peer, pick.endpoint.host_header(), request, most).await;
            if !matches!(answered, Err(Failed::Connecting(_))) {
                pick.connected();
            }
            match answered {
                Ok(response) => {
                    let now = Instant::now();
                    pick.answered(response.status(), now, now - began);
                    metrics.exchanged(request.body().len() as u64, response.body().len() as u64);
                    return Ok(response);
                }
                Err(Failed::Connecting(error)) => {
                    metrics.connect_failed();
                    pick.failed();
                    failure = error;
                }
                Err(Failed::Sending(error) | Failed::Answering(error)) => {
                    pick.failed();
                    return Err(error);
                }
            }
        }
        Err(failure)
    }

    /// Tries one address after the other while none can be connected to.
    async fn ask_site(
        &self,
        site: &Site,
        request: &Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let host = HeaderValue::from_str(site.url.authority().as_str());
        let host = host.expect("an authority holds visible ASCII only");
        let unresolved = |cause: String| CallError { reason: Reason::ConnectFailed, cause };
        let addresses = site
            .addresses()
            .await
            .map_err(|error| unresolved(format!("{} cannot be resolved: {error}", site.url.host())))?;
        let mut failure = unresolved(format!("{} has no address", site.url.host()));
        for address in addresses.iter() {
            match self.ask(&site.peer(*address), &host, request, most).await {
                Ok(response) => return Ok(response),
                Err(Failed::Connecting(error)) => failure = error,
                Err(Failed::Sending(error) | Failed::Answering(error)) => return Err(error),
            }
        }
        // They may have changed.
        site.forget_addresses();
        Err(failure)
    }

    /// Sends over a kept connection or a new one. A kept one that the other side has closed meanwhile is
    /// replaced, where the method lets a request be sent again (RFC 9112 section 9.3.1).
    async fn ask(
        &self,
        peer: &HttpPeer,
        host: &HeaderValue,
        request: &Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, Failed> {
        let connector = self.connector.get_or_init(|| Connector::new(self.options.clone()));
        if connection_auth::has_credentials(request.headers()) {
            return ask_once(connector, peer, host, request, most).await;
        }
        loop {
            let connected = connector.get_http_session(peer).await;
            let (mut session, reused) =
                connected.map_err(|error| Failed::Connecting(CallError::of(&error, true)))?;
            match exchange(&mut session, peer, host, request, most).await {
                Ok(response) => {
                    let is_h2 = matches!(session, HttpSession::H2(_));
                    if is_h2 || !connection_auth::has_challenge(response.headers()) {
                        connector.release_http_session(session, peer, peer.options.idle_timeout).await;
                    }
                    return Ok(response);
                }
                Err(Failed::Sending(_)) if reused && request.method().is_idempotent() => {}
                Err(failed) => return Err(failed),
            }
        }
    }
}

/// Sends over a connection of its own, which is closed afterwards: the credentials may have signed it in.
async fn ask_once(
    connector: &Connector,
    peer: &HttpPeer,
    host: &HeaderValue,
    request: &Request<Bytes>,
    most: usize,
) -> Result<Response<Bytes>, Failed> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut peer = peer.clone();
    peer.group_key = key::mix(peer.group_key ^ key::mix(!NEXT.fetch_add(1, Ordering::Relaxed)));
    let connected = connector.get_http_session(&peer).await;
    let (mut session, _) = connected.map_err(|error| Failed::Connecting(CallError::of(&error, true)))?;
    let answered = exchange(&mut session, &peer, host, request, most).await;
    if matches!(session, HttpSession::H2(_)) {
        // Pingora knows the connection until it is released.
        connector.release_http_session(session, &peer, Some(Duration::ZERO)).await;
    }
    answered
}

async fn exchange(
    session: &mut HttpSession,
    peer: &HttpPeer,
    host: &HeaderValue,
    request: &Request<Bytes>,
    most: usize,
) -> Result<Response<Bytes>, Failed> {
    send(session, peer, host, request)
        .await
        .map_err(|error| Failed::Sending(CallError::of(&error, false)))?;
    receive(session, most).await
}

async fn send(
    session: &mut HttpSession,
    peer: &HttpPeer,
    host: &HeaderValue,
    request: &Request<Bytes>,
) -> pingora::Result<()> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let fields = request.headers().len() + 2;
    let mut head = RequestHeader::build(request.method().clone(), path.as_bytes(), Some(fields))?;
    for (name, value) in request.headers() {
        head.append_header(name.clone(), value.clone())?;
    }
    if matches!(session, HttpSession::H2(_)) {
        head.set_version(Version::HTTP_2);
        head.set_uri(absolute(peer.tls(), host, path));
    } else {
        head.insert_header(header::HOST, host.clone())?;
    }
    let body = request.body();
    if !body.is_empty() || !request.method().is_safe() {
        // RFC 9110 section 8.6: a method that gives bodies a meaning says that there is none.
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    session.write_request_header(Box::new(head)).await?;
    if !body.is_empty() {
        session.write_request_body(body.clone(), false).await?;
    }
    session.finish_request_body().await
}

/// As HTTP/2 wants it: scheme and authority beside the path.
fn absolute(tls: bool, host: &HeaderValue, path: &str) -> Uri {
    let authority = Authority::try_from(host.as_bytes()).expect("a Host that was made of a host");
    Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(path)
        .build()
        .expect("scheme, authority and what was a path make a URI")
}

async fn receive(session: &mut HttpSession, most: usize) -> Result<Response<Bytes>, Failed> {
    let broken = |error: &Error| Failed::Answering(CallError::of(error, false));
    let (status, headers) = final_head(session).await?;
    let mut body = BytesMut::new();
    while let Some(piece) = session.read_response_body().await.map_err(|error| broken(&error))? {
        if body.len() + piece.len() > most {
            let cause = format!("its body is longer than {most} bytes");
            return Err(Failed::Answering(CallError { reason: Reason::UpstreamProtocol, cause }));
        }
        body.extend_from_slice(&piece);
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let HttpSession::H2(session) = session
        && let Some(trailers) = session.read_trailers().await.map_err(|error| broken(&error))?
    {
        response.extensions_mut().insert(Trailers(trailers));
    }
    Ok(response)
}

async fn final_head(session: &mut HttpSession) -> Result<(StatusCode, HeaderMap), Failed> {
    for _ in 0..MOST_INTERIM {
        let read = session.read_response_header().await;
        read.map_err(|error| Failed::Sending(CallError::of(&error, false)))?;
        let Some(head) = session.response_header() else { break };
        if !head.status.is_informational() {
            return Ok((head.status, head.headers.clone()));
        }
        // Over HTTP/2 a head is read once: interim ones are the h2 crate's matter. After 101 none comes.
        if head.status == StatusCode::SWITCHING_PROTOCOLS || matches!(session, HttpSession::H2(_)) {
            break;
        }
    }
    let cause = "it has no final response".to_owned();
    Err(Failed::Answering(CallError { reason: Reason::UpstreamProtocol, cause }))
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
        let tls = Tls {
            server_name: ServerName::Fixed(url.host().to_owned()),
            authorities: authorities.clone(),
            client_certificate: None,
            verify: Verify::Full,
        };
        let group_key = Identity::of(protocol, url.is_https.then_some(&tls), None).0;
        Self { url, protocol, authorities, group_key, addresses: Mutex::default() }
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let name = if self.url.is_https { self.url.host().to_owned() } else { String::new() };
        let mut peer = HttpPeer::new(address, self.url.is_https, name);
        peer.group_key = self.group_key;
        peer.options.idle_timeout = Some(SITE_IDLE);
        peer.options.ca = self.authorities.as_ref().map(Authorities::certificates);
        if self.protocol != Protocol::H1 {
            peer.options.alpn = ALPN::H2;
        }
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
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

// === impl CallError ===

impl CallError {
    fn of(error: &Error, connecting: bool) -> Self {
        Self { reason: reason_for(error, connecting), cause: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
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
        let caller = Caller::new(None);
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
        let caller = Caller::new(None);
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
        let late = Caller::new(None).call(&to, &Request::new(Bytes::new()), bounds).await.unwrap_err();
        assert_eq!(late.reason, Reason::TotalTimeout);
        assert_eq!(late.to_string(), "total_timeout: no answer within 20ms");
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
        let to = Destination::Upstream(Arc::new(Upstream::build(settings, &registry)));
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

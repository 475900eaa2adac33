//! A handler for tests, which does what the path says and tells what happened.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_LENGTH, request::Parts};
use rustls::{ClientConfig, RootCertStore};

use crate::{
    error::Reason,
    http::{connection::Connection, seen::Seen},
    proxy::session::{ClientError, Handler, Session},
    tls::{self, Handshake, Resolver, SINCE_TLS13, SelfSigned, Tickets, provider},
};

/// What was asked, and how each exchange ended.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    pub(super) heads: Mutex<Vec<(Arc<Connection>, Parts)>>,
    pub(super) ends: Mutex<Vec<Result<(), ClientError>>>,
    pub(super) refusals: Mutex<Vec<Reason>>,
    /// One permit per exchange that has begun, and one per that has ended.
    pub(super) begun: Count,
    /// What `/gate` waits for.
    pub(super) gate: tokio::sync::Notify,
    pub(super) ended: Count,
}

#[derive(Debug)]
pub(super) struct Count(tokio::sync::Semaphore);

impl Default for Count {
    fn default() -> Self {
        Self(tokio::sync::Semaphore::new(0))
    }
}

impl Scripted {
    /// Waits for the next exchange to end and says how.
    pub(super) async fn next_end(&self) -> Result<(), ClientError> {
        self.ended.0.acquire().await.unwrap().forget();
        self.ends.lock().unwrap().remove(0)
    }

    /// Waits for the next exchange to begin.
    pub(super) async fn next_begin(&self) {
        self.begun.0.acquire().await.unwrap().forget();
    }

    async fn act<S: Session>(&self, head: &Parts, session: &mut S) -> Result<(), ClientError> {
        match head.uri.path() {
            "/echo" => echo(session).await,
            "/early" => early(session).await,
            "/hang" => {
                session.closed(Duration::from_secs(3600)).await;
                Err(ClientError::Gone)
            }
            "/gate" => {
                self.gate.notified().await;
                respond(session, 200, Some("open")).await
            }
            "/hints" => hints(session).await,
            "/reset" => {
                respond(session, 200, None).await?;
                session.send_data(Bytes::from_static(b"half"), false).await?;
                session.reset();
                Ok(())
            }
            "/panic" => panic!("asked for"),
            "/large" => {
                respond(session, 200, None).await?;
                session.send_data(Bytes::from(vec![b'x'; 4 << 20]), true).await
            }
            "/read" => {
                while session.read_body().await?.is_some() {}
                respond(session, 200, Some("read")).await
            }
            "/204" => {
                let mut head = Response::new(()).into_parts().0;
                head.status = StatusCode::NO_CONTENT;
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
                head.headers.insert("keep-alive", HeaderValue::from_static("5"));
                session.send_head(head, false).await?;
                session.send_data(Bytes::from_static(b"hello"), true).await
            }
            _ => respond(session, 200, Some("hello")).await,
        }
    }
}

impl Handler for Scripted {
    async fn handle<S: Session>(&self, connection: &Arc<Connection>, head: Parts, mut session: S) -> S {
        self.begun.0.add_permits(1);
        let done = self.act(&head, &mut session).await;
        self.heads.lock().unwrap().push((connection.clone(), head));
        self.ends.lock().unwrap().push(done);
        self.ended.0.add_permits(1);
        session
    }

    async fn refuse<S: Session>(
        &self,
        _: &Arc<Connection>,
        reason: Reason,
        _: Box<Seen>,
        mut session: S,
    ) -> S {
        self.refusals.lock().unwrap().push(reason);
        let _ = respond(&mut session, reason.status().as_u16(), Some("refused")).await;
        session
    }
}

/// Sends a head, and the body if there is one.
async fn respond<S: Session>(
    session: &mut S,
    status: u16,
    body: Option<&'static str>,
) -> Result<(), ClientError> {
    let mut head = Response::new(()).into_parts().0;
    head.status = StatusCode::from_u16(status).unwrap();
    session.send_head(head, false).await?;
    match body {
        Some(body) => session.send_data(body.into(), true).await,
        None => Ok(()),
    }
}

async fn echo<S: Session>(session: &mut S) -> Result<(), ClientError> {
    respond(session, 200, None).await?;
    while let Some(piece) = session.read_body().await? {
        session.send_data(piece, false).await?;
    }
    match session.take_trailers() {
        Some(trailers) => session.send_trailers(trailers).await,
        None => session.send_data(Bytes::new(), true).await,
    }
}

/// Answers without reading the body.
async fn early<S: Session>(session: &mut S) -> Result<(), ClientError> {
    assert!(!session.body_is_empty() && !session.body_is_done());
    respond(session, 413, Some("too large")).await
}

async fn hints<S: Session>(session: &mut S) -> Result<(), ClientError> {
    let mut fields = HeaderMap::new();
    fields.insert("link", HeaderValue::from_static("</a.css>; rel=preload"));
    session.send_informational(StatusCode::EARLY_HINTS, &fields).await?;
    respond(session, 200, Some("hinted")).await
}

/// The two sides of TLS for `a.test`, speaking these protocols.
pub(super) fn tls(alpn: &[&str]) -> (Arc<ClientConfig>, tls::Server) {
    let certificate = SelfSigned::default().certificate(&["a.test".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.chain()[0].clone()).unwrap();
    let alpn: Vec<_> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(SINCE_TLS13).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols.clone_from(&alpn);
    let handshake = Handshake {
        resolver: Resolver::new(&[certificate], []),
        versions: SINCE_TLS13,
        alpn,
        session_tickets: true,
        early_data: false,
        quic: None,
        client_auth: None,
        hosts: Vec::new(),
    };
    (Arc::new(client), tls::Server::new(handshake, &Tickets::default()).unwrap())
}

/// Lets every task run that can, and no more: `yield_now` would wait for the sockets, too.
pub(super) async fn next_turn() {
    let mut turned = false;
    poll_fn(|cx| match std::mem::replace(&mut turned, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

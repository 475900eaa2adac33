//! The administration over HTTP/1.1: metrics, probes, status, reload. It runs beside the workers, on limits of
//! its own: listeners at their limits do not keep it from answering.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    origin,
    socket::{AdminSocket, Stream},
    token::{self, TurnedAway},
    upstream::Order,
};
use crate::{
    http::connection::Peer,
    snapshot::ADMIN_PATHS,
    value::{Bind, Secret},
};

/// Who answers.
pub trait Desk: Send + Sync + 'static {
    /// Where the metrics are, as it is configured now.
    fn metrics_path(&self) -> String;
    /// What who asks has to show, where that is said.
    fn token(&self) -> Option<Secret>;
    /// In Prometheus' text format.
    fn metrics(&self) -> String;
    /// How the process does, for people and programs.
    fn status(&self) -> Value;
    /// Whether requests are to be sent here.
    fn readiness(&self) -> Readiness;
    /// What is amiss though it serves.
    fn complaints(&self) -> Vec<Value>;
    /// Changes how an endpoint is used; says why not.
    fn change(&self, order: &Order) -> Result<(), String>;
    /// Reads the configuration again, and says what came of it: its report, and whether it is refused. None
    /// where the process is ending.
    fn reload(&self) -> impl Future<Output = Option<Reloaded>> + Send;
}

/// Why requests should not be sent here, if that is so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readiness {
    /// Each an object with its `cause`; none: it is ready.
    pub causes: Vec<Value>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    pub report: Value,
    pub refused: bool,
}

/// Clients at once.
const CLIENTS: usize = 32;
/// For a head to come, counted from the end of the answer before it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A large tree takes seconds to reload; a client that waits longer than this waits for nothing.
pub(super) const LONGEST_ANSWER: Duration = Duration::from_secs(300);
/// A client that does not take its answer is not waited for.
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);
/// For what is on its way then.
const LAST_CALL: Duration = Duration::from_secs(10);
/// For a request's head; nobody who asks here needs more.
const LARGEST_HEAD: usize = 16 << 10;
/// The text format's media type (Prometheus, exposition formats).
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answered to everybody: who sends requests here, as load balancers and kubelets, has no token.
const OPEN: [&str; 2] = ["/live", "/ready"];

type Answer = Response<Full<Bytes>>;

/// Where requests come in.
struct Door {
    local: Bind,
    turned_away: TurnedAway,
}

impl AdminSocket {
    /// Answers until it is dropped.
    pub async fn serve<D: Desk>(self, desk: Arc<D>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        let door = Arc::new(Door { local: self.local().clone(), turned_away: TurnedAway::default() });
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.accept().await {
                Ok((stream, peer)) => {
                    let (desk, door) = (desk.clone(), door.clone());
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = converse(stream, peer, desk, door).await {
                            tracing::debug!(%error, "a client of the administration went wrong");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(target: crate::telemetry::log::CLIENTS, %error, "the administration cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse<D: Desk>(
    stream: Box<dyn Stream>,
    peer: Peer,
    desk: Arc<D>,
    door: Arc<Door>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let (desk, door) = (desk.clone(), door.clone());
        async move { Ok::<_, Infallible>(answer(&request, peer, &*desk, &door).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    match timeout(LONGEST_CONNECTION, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_CALL, connection).await.unwrap_or(Ok(()))
        }
    }
}

async fn answer<D: Desk>(request: &Request<Incoming>, peer: Peer, desk: &D, door: &Door) -> Answer {
    let token = desk.token();
    if let Err(problem) = origin::check(request, &door.local, token.is_some()) {
        return refusal(StatusCode::FORBIDDEN, problem);
    }
    let is_admitted = token::admits(request.headers(), token.as_ref(), &door.local);
    if !is_admitted && !OPEN.contains(&request.uri().path()) {
        door.turned_away.note(peer);
        return unauthorized();
    }
    if !request.body().is_end_stream() {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "requests have no body here");
    }
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/reload" if request.method() == Method::POST => reload(desk).await,
        "/reload" => not_allowed("POST"),
        "/upstream" if request.method() == Method::POST => change(desk, request.uri().query()),
        "/upstream" => not_allowed("POST"),
        _ if !ADMIN_PATHS.contains(&path) && path != desk.metrics_path() => {
            refusal(StatusCode::NOT_FOUND, "there is nothing here")
        }
        _ if !reads => not_allowed("GET, HEAD"),
        "/live" => said(StatusCode::OK, &json!({ "status": "ok" })),
        "/ready" => ready(&desk.readiness(), is_admitted),
        "/health" => health(desk),
        "/status" => said(StatusCode::OK, &desk.status()),
        _ => text(desk.metrics()),
    }
}

async fn reload<D: Desk>(desk: &D) -> Answer {
    match timeout(LONGEST_ANSWER, desk.reload()).await {
        Ok(Some(Reloaded { report, refused: false })) => said(StatusCode::OK, &report),
        Ok(Some(Reloaded { report, refused: true })) => said(StatusCode::UNPROCESSABLE_ENTITY, &report),
        Ok(None) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
        Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "it takes too long"),
    }
}

fn change<D: Desk>(desk: &D, query: Option<&str>) -> Answer {
    match Order::parse(query.unwrap_or_default()) {
        Err(problem) => refusal(StatusCode::BAD_REQUEST, &problem),
        Ok(order) => match desk.change(&order) {
            Ok(()) => said(StatusCode::OK, &json!({ "result": "changed" })),
            Err(problem) => refusal(StatusCode::NOT_FOUND, &problem),
        },
    }
}

/// Why not is for those who may know the upstreams.
fn ready(readiness: &Readiness, is_admitted: bool) -> Answer {
    let (status, word) = match readiness.causes.is_empty() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    match is_admitted {
        true => said(status, &json!({ "status": word, "causes": readiness.causes })),
        false => said(status, &json!({ "status": word })),
    }
}

/// Whoever asks is answered 200 as long as anything is: what is amiss is said, not acted upon.
fn health<D: Desk>(desk: &D) -> Answer {
    let mut causes = desk.readiness().causes;
    causes.extend(desk.complaints());
    let word = if causes.is_empty() { "ok" } else { "degraded" };
    said(StatusCode::OK, &json!({ "status": word, "causes": causes }))
}

fn text(metrics: String) -> Answer {
    response(StatusCode::OK, TEXT_FORMAT, metrics.into())
}

fn said(status: StatusCode, value: &Value) -> Answer {
    response(status, "application/json", value.to_string().into())
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let error = status.canonical_reason().unwrap_or("Error");
    said(status, &json!({ "error": error, "message": message, "status": status.as_u16() }))
}

/// Each further try takes a connection of its own.
fn unauthorized() -> Answer {
    let mut answer = refusal(StatusCode::UNAUTHORIZED, "a token is asked for here: it is missing or wrong");
    let fields = answer.headers_mut();
    fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portolan\""));
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

fn response(status: StatusCode, media_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Nothing here is a page: a browser that is led here shall make none of it.
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

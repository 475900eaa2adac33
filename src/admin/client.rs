//! Asking a running process.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header, request};
use pingora::protocols::{Stream, l4};
use serde_json::Value;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Builder,
    time::timeout,
};

use super::{serve::LONGEST_ANSWER, upstream::Order};
use crate::{
    upstream::exchange::{Exchange, Http1, RequestHead, whole},
    value::{Bind, Secret},
    wire::h1::{body::BodyLength, response::HeadLimits},
};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Read the configuration again; the answer comes when that has succeeded or failed.
    Reload,
    /// How the process does.
    Status,
    /// Change how an endpoint is used.
    Change(Order),
}

/// Why nothing came of a question.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no process listens at {place}: {source}")]
    NotRunning { place: Bind, source: io::Error },
    /// Another configuration's process.
    #[error("process {pid} at {place} runs {runs}, not {}", wanted.display())]
    Other { place: Bind, pid: u64, runs: String, wanted: PathBuf },
    #[error("the process does not reply: {0}")]
    Io(#[from] io::Error),
    #[error("the process's reply cannot be understood: {0}")]
    Reply(String),
    #[error("{0}")]
    Refused(String),
}

const LARGEST_REPLY: usize = 64 << 20;
/// For connecting, and for what is sent beside the wait for a reload.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the process that listens there, showing the token, and waits for its reply.
pub fn ask(place: &Bind, token: Option<&Secret>, question: &Question) -> Result<Value, AskError> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stream = timeout(PATIENCE, connect(place)).await.unwrap_or_else(|_| Err(late()));
        let stream = stream.map_err(|source| AskError::NotRunning { place: place.clone(), source })?;
        let reply = converse(stream, place, request(token, question));
        timeout(LONGEST_ANSWER + PATIENCE, reply).await.unwrap_or_else(|_| Err(late().into()))
    })
}

async fn connect(place: &Bind) -> io::Result<Stream> {
    let stream: l4::stream::Stream = match place {
        Bind::Unix(path) => UnixStream::connect(path).await?.into(),
        Bind::Any(port) => TcpStream::connect(("localhost", *port)).await?.into(),
        Bind::Tcp(address) => TcpStream::connect(address).await?.into(),
    };
    Ok(Box::new(stream))
}

async fn converse(stream: Stream, place: &Bind, request: request::Parts) -> Result<Value, AskError> {
    let mut exchange = Exchange::Http1(Box::new(Http1::new(stream, HeadLimits::default())));
    let head = RequestHead {
        parts: &request,
        host: &host(place),
        tls: false,
        body: BodyLength::Empty,
        tunnel: None,
    };
    let response = whole(&mut exchange, head, Bytes::new(), LARGEST_REPLY).await;
    let response = response.map_err(|failure| AskError::Io(io::Error::other(failure.to_string())))?;
    understand(response.status(), response.body())
}

fn host(place: &Bind) -> HeaderValue {
    let host = match place {
        Bind::Tcp(address) => address.to_string(),
        Bind::Any(_) | Bind::Unix(_) => "localhost".to_owned(),
    };
    HeaderValue::try_from(host).expect("an address is visible ASCII")
}

fn request(token: Option<&Secret>, question: &Question) -> request::Parts {
    let (method, path) = match question {
        Question::Reload => (Method::POST, "/reload".to_owned()),
        Question::Status => (Method::GET, "/status".to_owned()),
        Question::Change(order) => (Method::POST, format!("/upstream?{}", order.query())),
    };
    let request =
        Request::builder().method(method).uri(path).body(()).expect("each caller passes a constant path");
    let mut request = request.into_parts().0;
    let shown = token.and_then(|token| HeaderValue::try_from(format!("Bearer {}", token.0)).ok());
    if let Some(mut shown) = shown {
        shown.set_sensitive(true);
        request.headers.insert(header::AUTHORIZATION, shown);
    }
    request
}

/// A refused configuration is an answer like another; what the process itself refuses is none.
fn understand(status: StatusCode, body: &[u8]) -> Result<Value, AskError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| AskError::Reply(error.to_string()))?;
    match status {
        StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => Ok(value),
        _ => Err(AskError::Refused(value["message"].as_str().unwrap_or(status.as_str()).to_owned())),
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

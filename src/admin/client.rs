//! Asking a running process.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Builder,
    time::timeout,
};

use super::{serve::LONGEST_ANSWER, socket::Stream};
use crate::value::{Bind, Secret};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Read the configuration again; the answer comes when that has succeeded or failed.
    Reload,
    /// How the process does.
    Status,
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
pub fn ask(place: &Bind, token: Option<&Secret>, question: Question) -> Result<Value, AskError> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stream = timeout(PATIENCE, connect(place)).await.unwrap_or_else(|_| Err(late()));
        let stream = stream.map_err(|source| AskError::NotRunning { place: place.clone(), source })?;
        let reply = converse(stream, request(place, token, question));
        timeout(LONGEST_ANSWER + PATIENCE, reply).await.unwrap_or_else(|_| Err(late().into()))
    })
}

async fn connect(place: &Bind) -> io::Result<Box<dyn Stream>> {
    match place {
        Bind::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Bind::Any(port) => Ok(Box::new(TcpStream::connect(("localhost", *port)).await?)),
        Bind::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
    }
}

async fn converse(stream: Box<dyn Stream>, request: Request<Empty<Bytes>>) -> Result<Value, AskError> {
    let broken = |error: hyper::Error| AskError::Io(io::Error::other(error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_REPLY).collect().await;
        let body = body.map_err(|error| AskError::Reply(error.to_string()))?.to_bytes();
        Ok::<_, AskError>((status, body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let (status, body) = tokio::select! {
        biased;
        replied = &mut exchange => replied?,
        ended = &mut connection => {
            ended.map_err(broken)?;
            exchange.await?
        }
    };
    understand(status, &body)
}

fn request(place: &Bind, token: Option<&Secret>, question: Question) -> Request<Empty<Bytes>> {
    let (method, path) = match question {
        Question::Reload => (Method::POST, "/reload"),
        Question::Status => (Method::GET, "/status"),
    };
    let host = match place {
        Bind::Tcp(address) => address.to_string(),
        Bind::Any(_) | Bind::Unix(_) => "localhost".to_owned(),
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let mut request = request.body(Empty::new()).expect("an address is a Host");
    let shown = token.and_then(|token| HeaderValue::try_from(format!("Bearer {}", token.0)).ok());
    if let Some(mut shown) = shown {
        shown.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, shown);
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

//! HTTP/2 origins in the clear, by the `h2` crate and by hyper-h2: what nginx cannot be made to say.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

use super::Python;

/// By the `h2` crate.
pub struct H2Origin {
    address: SocketAddr,
    /// Why streams were reset that are not answered.
    resets: Arc<Mutex<Vec<h2::Reason>>>,
    _stop: oneshot::Sender<()>,
}

/// By hyper-h2, which behaves as it is told: see `h2_origin.py`.
pub struct HyperH2 {
    python: Python,
    port: String,
}

/// What an [`H2Origin`] answers.
#[derive(Clone)]
enum Answer {
    /// Nothing, until the stream is reset.
    Nothing(Arc<Mutex<Vec<h2::Reason>>>),
    Trailers,
    Length,
    /// So many bytes, while the body is read.
    AtOnce(usize),
    Told(Told),
}

/// An answer in full. Without trailers the body ends the stream; without a body too, the head does.
#[derive(Clone, Copy, Default)]
pub struct Told {
    pub status: u16,
    pub head: &'static [(&'static str, &'static str)],
    pub body: Option<&'static [u8]>,
    pub trailers: Option<&'static [(&'static str, &'static str)]>,
}

impl HyperH2 {
    #[track_caller]
    pub fn run(specification: &Value) -> Self {
        let mut python = Python::run(include_str!("h2_origin.py"), &[&specification.to_string()]);
        let port = python.line();
        Self { python, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next thing that it says.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let line = self.python.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl H2Origin {
    /// Answers every request with `abc`, its target in `x-path` and the trailer `x-sum: 42`.
    pub fn with_trailers() -> Self {
        Self::start(Answer::Trailers)
    }

    /// Reads the body of every request and answers with its length.
    pub fn counting() -> Self {
        Self::start(Answer::Length)
    }

    /// Answers every request with so many bytes, while it reads the body.
    pub fn answering_at_once(length: usize) -> Self {
        Self::start(Answer::AtOnce(length))
    }

    /// Answers every request with this.
    pub fn answering(told: Told) -> Self {
        Self::start(Answer::Told(told))
    }

    /// Answers nothing.
    pub fn silent() -> Self {
        let resets = Arc::<Mutex<Vec<_>>>::default();
        let origin = Self::start(Answer::Nothing(resets.clone()));
        Self { resets, ..origin }
    }

    /// Why streams were reset that are not answered.
    pub fn resets(&self) -> Vec<h2::Reason> {
        self.resets.lock().unwrap().clone()
    }

    fn start(answer: Answer) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener, answer) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), resets: Arc::default(), _stop: stop }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

async fn serve(listener: TcpListener, answer: Answer) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::Builder::new()
                .initial_window_size(1 << 20)
                .initial_connection_window_size(1 << 20)
                .handshake::<_, Bytes>(socket)
                .await?;
            while let Some(request) = connection.accept().await {
                let (request, respond) = request?;
                tokio::spawn(answer.clone().give(request, respond));
            }
            Ok::<(), h2::Error>(())
        });
    }
}

impl Answer {
    async fn give(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let response = Response::builder().header("x-path", path).body(()).expect("a response");
        match self {
            Self::Nothing(resets) => {
                let reason = poll_fn(|cx| respond.poll_reset(cx)).await?;
                resets.lock().unwrap().push(reason);
                Ok(())
            }
            Self::Trailers => {
                let mut body = respond.send_response(response, false)?;
                body.send_data(Bytes::from_static(b"abc"), false)?;
                body.send_trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    http::HeaderValue::from_static("42"),
                )]))
            }
            Self::AtOnce(length) => {
                let body = respond.send_response(response, false)?;
                tokio::spawn(say(body, length));
                count(request.into_body()).await.map(drop)
            }
            Self::Told(Told { status, head, body: told, trailers }) => {
                count(request.into_body()).await?;
                let mut response = Response::builder().status(status).body(()).expect("a response");
                *response.headers_mut() = fields(head);
                let mut body = respond.send_response(response, told.is_none() && trailers.is_none())?;
                if let Some(told) = told {
                    body.send_data(Bytes::from_static(told), trailers.is_none())?;
                }
                trailers.map_or(Ok(()), |trailers| body.send_trailers(fields(trailers)))
            }
            Self::Length => {
                let length = count(request.into_body()).await?;
                let mut body = respond.send_response(response, false)?;
                body.send_data(Bytes::from(length.to_string()), true)
            }
        }
    }
}

fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| -> (http::HeaderName, http::HeaderValue) {
        (name.parse().expect("a name"), value.parse().expect("a value"))
    };
    list.iter().map(field).collect()
}

/// Reads a body, and says how long it is.
async fn count(mut body: RecvStream) -> Result<usize, h2::Error> {
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(length)
}

async fn say(mut body: SendStream<Bytes>, mut left: usize) -> Result<(), h2::Error> {
    while left > 0 {
        body.reserve_capacity(left.min(64 << 10));
        let Some(room) = poll_fn(|cx| body.poll_capacity(cx)).await else { break };
        let room = room?.min(left);
        left -= room;
        body.send_data(Bytes::from(vec![b'y'; room]), left == 0)?;
    }
    Ok(())
}

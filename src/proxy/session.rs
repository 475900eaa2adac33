//! The seam downstream: one exchange with a client, whatever the protocol.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};

use crate::{
    error::Reason,
    http::{connection::Connection, seen::Seen},
};

/// One request and its response. Every future may be dropped and asked for again without loss. A write that is dropped
/// half-way is finished by [`Session::poll_sent`], before anything else is written.
pub trait Session: Send + Sync + Unpin + 'static {
    /// Whether the head says that no body follows.
    fn body_is_empty(&self) -> bool;

    /// Whether the request has been read to its end.
    fn body_is_done(&self) -> bool;

    /// Whether the client holds its body back until it is asked for it (RFC 9110 section 10.1.1).
    fn awaits_continue(&self) -> bool {
        false
    }

    /// The next piece of the request's body, `None` at its end.
    fn read_body(&mut self) -> impl Future<Output = Result<Option<Bytes>, ClientError>> + Send;

    /// The request's trailers, once its body has ended.
    fn take_trailers(&mut self) -> Option<HeaderMap>;

    /// Ends when the client has gone, or when for `limit` nothing was read from it or sent to it.
    /// Waiting anew goes on with the time that is left.
    fn closed(&mut self, limit: Duration) -> impl Future<Output = Closed> + Send;

    /// Begins the wait of [`Session::closed`] anew.
    fn restart_wait(&mut self);

    /// Ends when the client has gone. That it says nothing more is no going where a tunnel's way back stays open.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Nobody is going to read what is left of the request's body: to be said before an answer's head, so
    /// that the head can say what becomes of the connection. Nothing to streams, whose rests are refused one by one.
    fn leave_body(&mut self) {}

    /// What comes after this request is not to be read as one, where requests follow each other: to be said
    /// before an answer's head. Nothing to streams, which are apart from each other.
    fn close(&mut self) {}

    /// Sends a 1xx head other than 101.
    fn send_informational(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Sends the final head, or the 101 that turns the exchange into a tunnel. `end`: no body follows.
    /// Framing is decided here, after everything that edits the head.
    fn send_head(
        &mut self,
        head: response::Parts,
        end: bool,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Sends a piece of the body, waiting while the client takes no more.
    fn send_data(&mut self, data: Bytes, end: bool) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Goes on with a write that was dropped half-way. Ready when nothing of it is left.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>>;

    /// Sends a few bytes through a tunnel and hands them over to the network. May be dropped and asked for again: what is
    /// on its way is gone from `data`.
    fn say(&mut self, data: &mut Bytes) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Sends trailers, which end the response.
    fn send_trailers(&mut self, trailers: HeaderMap) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Hands over to the network what has been sent so far. Nothing is to be done where the connection writes by itself.
    fn flush(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Gives the response up in its middle, so that the client can tell.
    fn reset(&mut self);

    /// Bytes of bodies so far: received, sent.
    fn bytes(&self) -> (u64, u64);
}

impl<S: Session> Session for Box<S> {
    fn body_is_empty(&self) -> bool {
        (**self).body_is_empty()
    }

    fn body_is_done(&self) -> bool {
        (**self).body_is_done()
    }

    fn awaits_continue(&self) -> bool {
        (**self).awaits_continue()
    }

    fn read_body(&mut self) -> impl Future<Output = Result<Option<Bytes>, ClientError>> + Send {
        (**self).read_body()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        (**self).take_trailers()
    }

    fn closed(&mut self, limit: Duration) -> impl Future<Output = Closed> + Send {
        (**self).closed(limit)
    }

    fn restart_wait(&mut self) {
        (**self).restart_wait();
    }

    fn gone(&mut self) -> impl Future<Output = ()> + Send {
        (**self).gone()
    }

    fn leave_body(&mut self) {
        (**self).leave_body();
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn send_informational(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).send_informational(status, fields)
    }

    fn send_head(
        &mut self,
        head: response::Parts,
        end: bool,
    ) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).send_head(head, end)
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).send_data(data, end)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        (**self).poll_sent(cx)
    }

    fn say(&mut self, data: &mut Bytes) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).say(data)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).send_trailers(trailers)
    }

    fn flush(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send {
        (**self).flush()
    }

    fn reset(&mut self) {
        (**self).reset();
    }

    fn bytes(&self) -> (u64, u64) {
        (**self).bytes()
    }
}

/// Why waiting for a client's end is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    Gone,
    Idle,
}

/// What runs the requests of a connection.
pub trait Handler: Send + Sync + 'static {
    /// Runs one request to its end and gives the session back.
    fn handle<S: Session>(
        &self,
        connection: &Arc<Connection>,
        head: request::Parts,
        session: S,
    ) -> impl Future<Output = S> + Send;

    /// Answers and logs a request whose head is not sound.
    fn refuse<S: Session>(
        &self,
        connection: &Arc<Connection>,
        reason: Reason,
        seen: Box<Seen>,
        session: S,
    ) -> impl Future<Output = S> + Send;
}

/// Why an exchange with a client cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("the client has gone")]
    Gone,
    #[error("the request's body stalled")]
    BodyTimeout,
    #[error("the client took the response too slowly")]
    WriteTimeout,
    #[error("the request's body is malformed: {0}")]
    Malformed(&'static str),
}

impl ClientError {
    pub fn reason(self) -> Reason {
        match self {
            Self::Gone => Reason::ClientGone,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::WriteTimeout => Reason::ClientTooSlow,
            Self::Malformed(_) => Reason::BadChunk,
        }
    }
}

impl From<ClientError> for Reason {
    fn from(error: ClientError) -> Self {
        error.reason()
    }
}

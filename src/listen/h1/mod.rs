//! HTTP/1.1 and 1.0: one connection's requests, one after the other.

mod answer;
mod exchange;
pub mod head;
mod output;
mod partial;
mod session;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use self::head::{Head, Rejected};
use crate::{
    error::Reason,
    http::{connection::Connection, seen::Seen},
    listen::pace::Rule,
    proxy::{session::Handler, signal::Signal},
    snapshot::settings::Listener,
};

pub use self::session::Http1;

/// A stream that HTTP/1 is spoken over.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    /// From here on its end is none that was meant, and looks so to the client, where the carrier can show it.
    fn cut(&mut self);

    /// Ends when the client has broken the connection off, whatever of it is still to be read.
    fn broken_off(&self) -> impl Future<Output = ()> + Send;
}

/// The deadlines of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub body: Rule,
    pub write_idle: Duration,
}

/// Serves requests until the connection ends.
pub async fn serve<I: Io, H: Handler>(
    io: I,
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
) {
    let patience = Patience { body: Rule::of(&settings), write_idle: settings.timeouts.write_idle };
    let limits = head::Limits {
        size: settings.limits.header_size,
        fields: settings.limits.headers,
        target: settings.limits.uri,
    };
    // Boxed, since each request hands it through several futures.
    let mut session = Box::new(Http1::new(io, patience, connection.draining.clone()));
    // A listener that is no more drains, too.
    let mut drain = Signal::or_gone(connection.draining.clone());
    let mut served = 0;
    loop {
        match next(&mut session, &settings, &limits, served, &mut drain).await {
            Next::Request(head) => {
                served += 1;
                let spoken = settings.protocols.h1;
                let last = served >= settings.limits.requests_per_connection || !spoken;
                session = match session.begin(&head, !head.keep_alive || last) {
                    // RFC 9110 section 15.6.6.
                    Ok(()) if !spoken => {
                        let (reason, seen) = (Reason::UnsupportedVersion, Seen::of(&head.parts));
                        placed(|| handler.refuse(&connection, reason, seen, session)).await
                    }
                    // In a box: between requests a connection would keep the room that one needs.
                    Ok(()) => placed(|| handler.handle(&connection, head.parts, session)).await,
                    Err(reason) => {
                        session.begin_refusal();
                        let seen = Seen::of(&head.parts);
                        placed(|| handler.refuse(&connection, reason, seen, session)).await
                    }
                };
            }
            Next::Refuse(Rejected { reason, seen }) => {
                session.begin_refusal();
                session = placed(|| handler.refuse(&connection, reason, seen, session)).await;
            }
            Next::Close => return,
        }
        if !session.end().await {
            break;
        }
    }
    if !session.is_broken() {
        linger(&mut session.io).await;
    }
}

/// A future in a box that is there before it: it is large, and would be copied into the box.
fn placed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let place = Box::new_uninit();
    Box::into_pin(Box::write(place, make()))
}

/// Closes so that the client still receives the response: our side first, then the client's (RFC 9112 section 9.6). A client
/// that uploads is read past until it sees the response: a close with unread bytes would reset the connection, and the client
/// would lose the response.
async fn linger<I: Io>(io: &mut I) {
    /// More than the socket buffers of both ends hold.
    const MOST: usize = 16 * 1024 * 1024;
    const PIECE: usize = 16 * 1024;
    let closing = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let mut read = 0;
        let mut sink = BytesMut::with_capacity(PIECE);
        while read < MOST {
            sink.clear();
            match io.read_buf(&mut sink).await {
                Ok(count) if count > 0 => read += count,
                _ => return,
            }
        }
    };
    let _ = timeout(Duration::from_secs(2), closing).await;
}

/// What a connection does next.
#[expect(
    clippy::large_enum_variant,
    reason = "it is matched where it is made; a box would cost each request"
)]
enum Next {
    Request(Head),
    Refuse(Rejected),
    Close,
}

/// Waits for the next head: for its first byte as long as a connection may be idle, for the rest as
/// long as a head may take in all.
async fn next<I: Io>(
    session: &mut Http1<I>,
    settings: &Listener,
    limits: &head::Limits,
    served: usize,
    drain: &mut Signal,
) -> Next {
    let mut scan = head::Scan::default();
    let timeouts = &settings.timeouts;
    let first_wait = if served == 0 { timeouts.header } else { timeouts.idle };
    session.read_deadline.clear();
    loop {
        match head::take(&mut session.input, &mut scan, limits) {
            Ok(Some(head)) => return Next::Request(head),
            Ok(None) => {}
            Err(rejected) => return Next::Refuse(rejected),
        }
        let begun = !session.input.is_empty() && !head::is_empty_line(&session.input);
        let filled = poll_fn(|cx| match begun {
            false => idle(session, first_wait, drain, cx),
            true => filling(session, timeouts.header, cx),
        });
        match filled.await {
            Filled::Some if !begun => session.read_deadline.clear(),
            Filled::Some => {}
            Filled::Late if begun => {
                let seen = Seen::of_bytes(&session.input);
                return Next::Refuse(Rejected { reason: Reason::HeaderTimeout, seen });
            }
            Filled::Late | Filled::Closed => return Next::Close,
        }
    }
}

/// What came of waiting for bytes.
enum Filled {
    Some,
    Closed,
    Late,
}

fn filling<I: Io>(session: &mut Http1<I>, limit: Duration, cx: &mut Context<'_>) -> Poll<Filled> {
    match session.poll_fill(cx) {
        Poll::Ready(Ok(1..)) => Poll::Ready(Filled::Some),
        Poll::Ready(_) => Poll::Ready(Filled::Closed),
        Poll::Pending => session.read_deadline.poll(limit, cx).map(|()| Filled::Late),
    }
}

/// Between requests a connection that shall end does so at once.
fn idle<I: Io>(
    session: &mut Http1<I>,
    limit: Duration,
    drain: &mut Signal,
    cx: &mut Context<'_>,
) -> Poll<Filled> {
    match filling(session, limit, cx) {
        Poll::Pending => {
            session.rest();
            drain.poll(cx).map(|()| Filled::Closed)
        }
        ready => ready,
    }
}

//! HTTP/2: one connection, a task for each of its requests, and the rules by which it ends.

mod blocks;
mod corked;
mod hpack;
mod judged;
mod requests;
mod rules;
mod sections;
mod session;

use std::{
    fmt::Display,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::Request;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::timeout,
};

use self::{corked::Corked, judged::Judged, requests::Requests, session::Http2};
use super::{AT_ONCE, deadline::Deadline, head, stream::Stream};
use crate::{
    error::Reason,
    http::{connection::Connection, seen::Seen},
    proxy::{session::Handler, signal::Signal},
    snapshot::settings::Listener,
};

/// What a client may send of a body before it is read: large enough for a fast network.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all requests of a connection; it bounds the memory that a connection takes.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What of a response waits for the client, per request.
const SEND_BUFFER: usize = 128 << 10;
/// Requests that a client may cancel before they are looked at (CVE-2023-44487), that are remembered after
/// they were cancelled, and that may break the protocol (CVE-2025-8671), before the connection ends.
const CANCELLED_UNSEEN: usize = 32;
const CANCELLED_REMEMBERED: usize = 64;
const MALFORMED: usize = 128;

type Incoming = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(
    stream: Stream,
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
) {
    let stream = Corked::new(stream);
    let judged = Judged::new(stream.handle(), most_fields(&settings));
    let handshake = builder(&settings).handshake(judged);
    match timeout(settings.timeouts.handshake, handshake).await {
        Err(_) => {
            tracing::debug!(listener = %settings.name, peer = %connection.peer, "no HTTP/2 preface in time")
        }
        Ok(Err(error)) => {
            tracing::debug!(listener = %settings.name, peer = %connection.peer, %error, "no HTTP/2");
        }
        Ok(Ok(h2)) => Serving::new(h2, stream, Served { connection, settings, handler }).run().await,
    }
}

/// Twice what we take, so that the answer to a section just past the limit is ours and is logged; beyond that h2 answers 431
/// by itself.
fn most_fields(settings: &Listener) -> usize {
    settings.limits.header_size.saturating_mul(2)
}

fn builder(settings: &Listener) -> server::Builder {
    let header_list = u32::try_from(most_fields(settings)).unwrap_or(u32::MAX);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(settings.limits.streams)
        .max_header_list_size(header_list)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(CANCELLED_UNSEEN)
        .max_concurrent_reset_streams(CANCELLED_REMEMBERED)
        .max_local_error_reset_streams(Some(MALFORMED))
        .enable_connect_protocol();
    builder
}

/// What all requests of a connection share.
struct Served<H> {
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
}

struct Serving<H> {
    h2: server::Connection<Judged<Corked<Stream>>, Bytes>,
    /// What h2 writes to.
    stream: Corked<Stream>,
    served: Arc<Served<H>>,
    /// Never more than the streams that the client is allowed.
    requests: Requests,
    seen: usize,
    /// The client has been told to ask for nothing more.
    closing: bool,
    quiet: Deadline,
    /// The client takes nothing of what is sent, since it took something for the time that is counted here.
    stuck: Deadline,
    taken: u64,
    /// The runtime is one that runs next what was woken last.
    last_is_first: bool,
    /// Other tasks have had their turn since it was woken.
    has_waited: bool,
}

impl<H: Handler> Serving<H> {
    fn new(
        h2: server::Connection<Judged<Corked<Stream>>, Bytes>,
        stream: Corked<Stream>,
        served: Served<H>,
    ) -> Self {
        stream.cork();
        let most = usize::try_from(served.settings.limits.streams).unwrap_or(usize::MAX);
        Self {
            h2,
            stream,
            served: Arc::new(served),
            requests: Requests::new(most),
            seen: 0,
            closing: false,
            quiet: Deadline::default(),
            stuck: Deadline::default(),
            taken: 0,
            last_is_first: Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread,
            has_waited: false,
        }
    }

    async fn run(mut self) {
        // A listener that is no more drains, too.
        let mut drain = Signal::or_gone(self.served.connection.draining.clone());
        poll_fn(|cx| self.poll(&mut drain, cx)).await;
        self.end().await;
    }

    /// Moves everything on, to the connection's end, and sends what came of it.
    fn poll(&mut self, drain: &mut Signal, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits_for_others() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.requests.took_over();
        let polled = self.poll_all(drain, cx);
        match self.stream.poll_send(cx) {
            Poll::Ready(Err(error)) => {
                self.log_end(&error);
                Poll::Ready(())
            }
            // What the client does not take is kept: h2 is told as it hands over more.
            Poll::Ready(Ok(())) | Poll::Pending if polled.is_ready() => polled,
            Poll::Ready(Ok(())) | Poll::Pending => self.poll_stuck(cx),
        }
    }

    /// Ends a connection whose client takes nothing.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (is_stuck, taken) = self.stream.stuck();
        if !is_stuck || std::mem::replace(&mut self.taken, taken) != taken {
            self.stuck.clear();
        }
        if !is_stuck {
            return Poll::Pending;
        }
        ready!(self.stuck.poll(self.served.settings.timeouts.write_idle, cx));
        self.stream.with(Stream::give_up);
        self.log_end(&"the client takes nothing");
        Poll::Ready(())
    }

    fn poll_all(&mut self, drain: &mut Signal, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.seen + AT_ONCE;
        loop {
            if self.seen == turn {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let was_full = self.requests.is_full();
            match self.poll_incoming(was_full, cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begin(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.log_end(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if !self.closing && drain.poll(cx).is_ready() {
                self.close();
                continue;
            }
            if self.requests.at_work() > 0 {
                ready!(self.requests.poll_change(was_full, cx));
                continue;
            }
            let limit = quiet_limit(&self.served.settings, self.closing);
            ready!(self.quiet.poll(limit, cx));
            if self.closing {
                // The client neither takes the rest nor answers the ping that ends a connection.
                if self.stream.stuck().0 {
                    self.stream.with(Stream::give_up);
                }
                return Poll::Ready(());
            }
            self.close();
        }
    }

    /// A request wakes the connection at each piece of its response, and tokio's threads run next what was woken last: those
    /// that wait for their turn shall add theirs first, so that all goes to the client as one. What fills a record does not
    /// wait: it would leave the processor's cache.
    fn waits_for_others(&mut self) -> bool {
        self.has_waited = self.last_is_first
            && !self.has_waited
            && self.requests.at_work() > 1
            && self.requests.handed_over() < corked::MOST;
        self.has_waited
    }

    /// Moves the connection on. While as many requests are at work as may be, new ones wait inside, where
    /// h2 counts those that are cancelled meanwhile.
    fn poll_incoming(&mut self, is_full: bool, cx: &mut Context<'_>) -> Poll<Incoming> {
        match is_full {
            false => self.h2.poll_accept(cx),
            true => self.h2.poll_closed(cx).map(|ended| ended.err().map(Err)),
        }
    }

    /// Starts a task for a request.
    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.quiet.clear();
        self.seen += 1;
        if self.seen >= self.served.settings.limits.requests_per_connection {
            self.close();
        }
        let (served, one) = (self.served.clone(), self.requests.begin());
        // In a box of its own: tokio moves a task's whole future at its start and at its end.
        tokio::spawn(Box::pin(async move {
            let Served { connection, settings, handler } = &*served;
            let (mut parts, body) = request.into_parts();
            let mut session = Http2::new(&parts, body, respond, settings, one);
            let read = match session.is_as_empty_as_said().await {
                true => head::read(&mut parts, &settings.limits),
                false => Err(Reason::AmbiguousFraming),
            };
            let session = match read {
                Ok(()) => handler.handle(connection, parts, session).await,
                Err(reason) => handler.refuse(connection, reason, Seen::of(&parts), session).await,
            };
            session.finish().await;
        }));
    }

    /// Tells the client to ask for nothing more; what it has asked for is finished (RFC 9113 section 6.8).
    fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.quiet.clear();
            self.h2.graceful_shutdown();
        }
    }

    /// Lets the requests see that the client has gone, and waits for them.
    async fn end(self) {
        let Self { h2, stream, requests, .. } = self;
        drop((h2, stream));
        poll_fn(|cx| requests.poll_none(cx)).await;
    }

    fn log_end(&self, error: &dyn Display) {
        let Served { connection, settings, .. } = &*self.served;
        tracing::debug!(listener = %settings.name, peer = %connection.peer, %error, "connection ended");
    }
}

fn quiet_limit(settings: &Listener, closing: bool) -> std::time::Duration {
    match closing {
        true => settings.timeouts.write_idle,
        false => settings.timeouts.idle,
    }
}

#[cfg(test)]
mod tests;

//! HTTP/3: one connection, a task for each of its requests, and the rules by which it ends (RFC 9114). Frames, QPACK and
//! streams are read here and not by a library, since each of their errors has its code and each reset its meaning.

mod code;
mod control;
mod frame;
mod head;
mod message;
mod piece;
mod qpack;
mod session;
mod settings;
mod unsent;
mod varint;

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::{
    task::{JoinError, JoinSet, yield_now},
    time::timeout,
};

pub(super) use self::qpack::{huffman, integer};
pub use self::{
    code::{Code, Fault},
    control::Control,
    head::{Head, Unfit, request as read_request, trailers as read_trailers},
    message::{Message, Part},
};
use self::{control::Critical, head::NoHead, session::Http3};
use super::{
    AT_ONCE,
    deadline::Deadline,
    pace::{Pace, Rule},
};
use crate::{
    http::{connection::Connection, seen::Seen},
    proxy::{session::Handler, signal::Signal},
    snapshot::settings::Listener,
};

/// The size that field sections may have. Twice what we take, so that the answer to one just past the limit is ours and
/// is logged.
fn most_fields(settings: &Listener) -> usize {
    settings.limits.header_size.saturating_mul(2)
}

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(
    quic: quinn::Connection,
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
) {
    match timeout(settings.timeouts.handshake, open_control(&quic, &settings)).await {
        Ok(Some(control)) => Serving::new(quic, control, connection, settings, handler).run().await,
        // A client must let us say that much (RFC 9114 section 6.2).
        _ => quic.close(Code::StreamCreationError.into(), b""),
    }
}

/// Opens the control stream and says the settings, the first thing that is said (RFC 9114 section 6.2.1). Streams of
/// QPACK's are not opened, since there would be nothing to say on them (RFC 9204 section 4.2).
async fn open_control(quic: &quinn::Connection, settings: &Listener) -> Option<SendStream> {
    let mut control = quic.open_uni().await.ok()?;
    let mut begin = BytesMut::new();
    varint::put(control::CONTROL, &mut begin);
    settings::put(most_fields(settings) as u64, &mut begin);
    control.write_chunk(begin.freeze()).await.ok()?;
    // Nothing of a response shall go before it.
    let _ = control.set_priority(1);
    Some(control)
}

struct Serving<H> {
    quic: quinn::Connection,
    control: SendStream,
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
    /// The tasks of the requests at work, never more than the streams that the client is allowed.
    requests: JoinSet<Ended>,
    /// Those of the streams that carry none.
    others: JoinSet<()>,
    critical: Arc<Critical>,
    seen: usize,
    /// Requests that were spoilt beyond those that were served.
    spoilt: usize,
    /// Streams without a request that were begun.
    others_seen: usize,
    /// The number of the stream after the last that was begun.
    next: u64,
    closing: Closing,
    /// The client has said that it goes: it may ask for more, and is not waited for.
    left: bool,
    quiet: Deadline,
    /// Where the client was when it was last looked at.
    at: SocketAddr,
}

/// How far the connection's end is (RFC 9114 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// The client was told to ask for nothing more; what it has asked before it hears of it is served.
    Told,
    /// It was told which of its requests are served. Others are not.
    Final,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Served,
    /// The client took it back, or broke the rules: work for nothing.
    Spoilt,
}

/// More than any stream has: the first GOAWAY refuses nothing.
const NO_LIMIT: u64 = varint::MOST - 3;
/// From so many requests on that were given up, beyond those that were not, a client only makes work: opening streams and
/// resetting them at once is bounded by no limit to streams at once (RFC 9114 section 10.5, as CVE-2023-44487 in HTTP/2).
const MOST_SPOILT: usize = 500;
/// A client needs three streams without a request, and may have some that mean nothing.
const MOST_OTHERS: usize = 250;
/// How long a client has to hear of the end, at least; more where it is far.
const HEARING: Duration = Duration::from_millis(50);
/// How long a connection is kept for a client that goes.
const LEAVING: Duration = Duration::from_secs(1);

impl<H: Handler> Serving<H> {
    fn new(
        quic: quinn::Connection,
        control: SendStream,
        connection: Arc<Connection>,
        settings: Arc<Listener>,
        handler: Arc<H>,
    ) -> Self {
        let at = quic.remote_address();
        Self {
            quic,
            control,
            connection,
            settings,
            handler,
            requests: JoinSet::new(),
            others: JoinSet::new(),
            critical: Arc::default(),
            seen: 0,
            spoilt: 0,
            others_seen: 0,
            next: 0,
            closing: Closing::No,
            left: false,
            quiet: Deadline::default(),
            at,
        }
    }

    async fn run(mut self) {
        let stopped = self.control.stopped();
        let quic = self.quic.clone();
        self.others.spawn(async move {
            // The client wants none of it, or the connection has ended.
            if stopped.await.is_ok() {
                quic.close(Code::ClosedCriticalStream.into(), b"");
            }
        });
        // A listener that is no more drains, too.
        let mut drain = Signal::or_gone(self.connection.draining.clone());
        let quic = self.quic.clone();
        let critical = self.critical.clone();
        let most = self.settings.quic.as_ref().map_or(1, |quic| quic.max_streams);
        loop {
            let idle = self.requests.is_empty();
            if idle && self.closing == Closing::Final {
                break self.quic.close(Code::NoError.into(), b"");
            }
            if self.seen >= self.settings.limits.requests_per_connection && self.closing == Closing::No {
                self.close().await;
            }
            if self.spoilt > MOST_SPOILT || self.others_seen > MOST_OTHERS {
                break self.quic.close(Code::ExcessiveLoad.into(), b"");
            }
            let limit = self.quiet_limit();
            tokio::select! {
                stream = quic.accept_bi(), if self.requests.len() < most => match stream {
                    Ok(streams) => {
                        self.begin(streams);
                        if self.seen.is_multiple_of(AT_ONCE) {
                            yield_now().await;
                        }
                    }
                    Err(error) => break self.log_end(&error),
                },
                stream = quic.accept_uni() => match stream {
                    Ok(stream) => self.begin_other(stream),
                    Err(error) => break self.log_end(&error),
                },
                Some(ended) = self.requests.join_next(), if !idle => self.note(ended),
                Some(_) = self.others.join_next(), if !self.others.is_empty() => {}
                () = critical.left.notified(), if !self.left => {
                    self.left = true;
                    self.quiet.clear();
                }
                () = poll_fn(|cx| drain.poll(cx)), if self.closing == Closing::No => self.close().await,
                () = poll_fn(|cx| self.quiet.poll(limit, cx)), if idle || self.closing == Closing::Told => {
                    match self.closing {
                        Closing::No => self.close().await,
                        _ => self.close_finally().await,
                    }
                }
            }
        }
        self.end().await;
    }

    /// How long nothing may happen: between requests, or until what a client has asked for is known.
    fn quiet_limit(&self) -> Duration {
        match self.closing {
            Closing::No if self.left => self.settings.timeouts.idle.min(LEAVING),
            Closing::No => self.settings.timeouts.idle,
            Closing::Told | Closing::Final => HEARING.max(self.quic.rtt() * 3),
        }
    }

    /// Starts a task for a request.
    fn begin(&mut self, streams: (SendStream, RecvStream)) {
        let id = u64::from(streams.0.id());
        if self.closing == Closing::Final && id >= self.next {
            return reject(streams);
        }
        self.next = self.next.max(id + 4);
        if self.closing == Closing::No {
            self.quiet.clear();
        }
        self.count_migration();
        self.settings.metrics.quic.streams.inc();
        match streams.1.is_0rtt() {
            true => self.settings.metrics.quic.early_streams.inc(),
            // Known here first, where the handshake ends while streams wait.
            false => self.connection.handshake_ended(),
        }
        self.seen += 1;
        let session = Http3::new(self.quic.clone(), streams, &self.settings);
        let (connection, settings, handler) =
            (self.connection.clone(), self.settings.clone(), self.handler.clone());
        // In a box of its own: tokio moves a task's whole future at its start and at its end.
        self.requests.spawn(Box::pin(serve_request(session, connection, settings, handler)));
    }

    fn count_migration(&mut self) {
        let now = self.quic.remote_address();
        if std::mem::replace(&mut self.at, now) != now {
            self.settings.metrics.quic.migrations.inc();
        }
    }

    fn begin_other(&mut self, stream: RecvStream) {
        self.others_seen += 1;
        let (critical, quic) = (self.critical.clone(), self.quic.clone());
        let requests = self.settings.limits.requests_per_connection;
        self.others.spawn(async move {
            let mut stream = stream;
            if let Err(code) = control::read(&mut stream, &critical, requests).await {
                quic.close(code.into(), b"");
            }
        });
    }

    /// Tells the client to ask for nothing more.
    async fn close(&mut self) {
        self.closing = Closing::Told;
        self.quiet.clear();
        self.go_away(NO_LIMIT).await;
    }

    /// Tells it what is not served.
    async fn close_finally(&mut self) {
        self.closing = Closing::Final;
        self.quiet.clear();
        self.go_away(self.next).await;
    }

    async fn go_away(&mut self, first_refused: u64) {
        let mut payload = BytesMut::new();
        varint::put(first_refused, &mut payload);
        let mut bytes = BytesMut::new();
        frame::put_head(frame::GOAWAY, payload.len(), &mut bytes);
        bytes.extend_from_slice(&payload);
        // A client that takes nothing hears of it when the connection ends.
        let _ = timeout(self.settings.timeouts.write_idle, self.control.write_chunk(bytes.freeze())).await;
    }

    /// Lets the requests see that the client has gone, and waits for them.
    async fn end(mut self) {
        self.count_migration();
        self.others.abort_all();
        while self.requests.join_next().await.is_some() {}
    }

    fn log_end(&self, error: &ConnectionError) {
        tracing::debug!(listener = %self.settings.name, peer = %self.connection.peer, %error, "connection ended");
    }

    fn note(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended::Served) => self.spoilt = self.spoilt.saturating_sub(1),
            Ok(Ended::Spoilt) => self.spoilt += 1,
            Err(error) => {
                tracing::error!(target: crate::telemetry::log::CLIENTS, listener = %self.settings.name, peer = %self.connection.peer, %error, "a request's task failed");
            }
        }
    }
}

async fn serve_request<H: Handler>(
    mut session: Http3,
    connection: Arc<Connection>,
    settings: Arc<Listener>,
    handler: Arc<H>,
) -> Ended {
    let read =
        session.read_head(settings.timeouts.header).await.and_then(|mut head| {
            match super::head::read(&mut head, &settings.limits) {
                Ok(()) => Ok(head),
                Err(reason) => Err(NoHead::Refuse(reason, Seen::of(&head))),
            }
        });
    if let Ok(head) = &read {
        session.pace = Pace::new(Rule::of_stream(&settings, &head.headers));
    }
    let session = match read {
        Ok(head) => handler.handle(&connection, head, session).await,
        Err(NoHead::Refuse(reason, seen)) => handler.refuse(&connection, reason, seen, session).await,
        Err(NoHead::Over) => return Ended::Spoilt,
    };
    session.finish().await
}

/// Nothing was done for the request: it may be sent again elsewhere (RFC 9114 section 4.1.1).
fn reject((mut respond, mut request): (SendStream, RecvStream)) {
    let _ = respond.reset(Code::RequestRejected.into());
    let _ = request.stop(Code::RequestRejected.into());
}

#[cfg(test)]
mod tests;

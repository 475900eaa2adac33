//! Shows a client's session to Pingora as a custom session. It lies where others find it whenever Pingora does
//! nothing with it: while Pingora connects, whoever called it listens to the client.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use atomic_refcell::AtomicRefCell;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, StatusCode, response};
use pingora::{
    Error, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{
        Digest,
        http::{HttpTask, custom::CustomMessageWrite, custom::server::Session as CustomSession},
        l4::socket::SocketAddr,
    },
};

use super::{
    call::Call,
    downstream::Progress,
    errors::{end, gone, ours},
    farewell::{Farewell, Next, next},
    replay::Replay,
    session::{Closed, Session},
    slot::{Lent, Slot},
    tunnel::{Silence, Tunnel},
};
use crate::error::Reason;

/// How long an upstream may be silent to a client that has ended its way of a tunnel.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Waits of a proxied request that end it.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    pub first_byte: Duration,
    pub body_idle: Duration,
    pub tunnel_idle: Duration,
}

/// One request as Pingora sees it.
pub struct Adapter<S: Session> {
    slot: Arc<Slot<S>>,
    call: Arc<AtomicRefCell<Call>>,
    request: RequestHeader,
    bodiless: bool,
    waits: Waits,
    replay: Replay,
    upgrade: Upgrade,
    /// What is asked for, where that is another protocol.
    tunnel: Option<Tunnel>,
    silence: Silence,
    /// Where the tunnel carries WebSocket. In a box: few do.
    farewell: Option<Box<Farewell>>,
    /// What was sent, as far as Pingora asks: the status.
    written: Option<ResponseHeader>,
}

/// A request for another protocol.
///
/// Pingora (#946) ends the tunnel at once where the 101 is there before it has passed on the empty body
/// of the request. With each try it asks twice whether the body is empty: for the framing, which must know
/// that it is, and, once the head is `sent`, for passing it on, which must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    No,
    Asked { sent: bool },
    Refused,
    Done,
}

impl<S: Session> Adapter<S> {
    pub fn new(
        slot: Arc<Slot<S>>,
        call: Arc<AtomicRefCell<Call>>,
        request: RequestHeader,
        tunnel: Option<Tunnel>,
        waits: Waits,
    ) -> Self {
        let bodiless = slot.lend().session.body_is_empty();
        let upgrade = if tunnel.is_some() { Upgrade::Asked { sent: false } } else { Upgrade::No };
        let (replay, silence) = (Replay::default(), Silence::default());
        Self {
            slot,
            call,
            request,
            bodiless,
            waits,
            replay,
            upgrade,
            tunnel,
            silence,
            farewell: None,
            written: None,
        }
    }

    fn downstream(&self) -> Lent<'_, S> {
        self.slot.lend()
    }

    async fn task(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => {
                self.head(*head, end).await?;
                Ok(end && self.downstream().progress() == Progress::Ended)
            }
            HttpTask::Body(data, end) | HttpTask::UpgradedBody(data, end) => {
                self.data(data, end).await?;
                Ok(end)
            }
            HttpTask::Trailer(trailers) => {
                let trailers = trailers.map(|trailers| *trailers).unwrap_or_default();
                self.downstream().send_trailers(trailers).await.map_err(gone)?;
                Ok(true)
            }
            HttpTask::Done => {
                self.data(None, true).await?;
                Ok(true)
            }
            HttpTask::Failed(error) => {
                self.downstream().flush().await.map_err(gone)?;
                Err(error)
            }
        }
    }

    async fn head(&mut self, head: ResponseHeader, end: bool) -> Result<()> {
        let mut head = response::Parts::from(head);
        if let Some(tunnel) = &self.tunnel {
            tunnel.switch(&mut head);
        }
        let status = head.status;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            self.written = ResponseHeader::build_no_case(status, Some(0)).ok();
            self.upgrade = match (self.upgrade, status) {
                (Upgrade::No, _) => Upgrade::No,
                (_, StatusCode::SWITCHING_PROTOCOLS) => Upgrade::Done,
                _ => Upgrade::Refused,
            };
        }
        if self.upgrade == Upgrade::Done {
            // Nothing of a tunnel can be said again.
            self.replay.give_up();
            if self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_websocket(&head)) {
                let leaving = self.downstream().exchange.connection.leaving.clone();
                self.farewell = Some(Box::new(Farewell::new(leaving)));
            }
        }
        self.downstream().forward_head(head, end).await.map_err(gone)
    }

    async fn data(&mut self, data: Option<Bytes>, end: bool) -> Result<()> {
        let mut data = data.unwrap_or_default();
        if data.is_empty() && !end {
            return Ok(());
        }
        self.silence.broken();
        if let Some(farewell) = &mut self.farewell {
            data = farewell.down(data);
            if farewell.is_leaving() {
                return self.data_before_leave(data, end).await;
            }
        }
        self.downstream().send_data(data, end).await.map_err(gone)
    }

    /// Sends what is left of a frame, and the Close that may stand behind it.
    async fn data_before_leave(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.downstream().send_data(data, false).await.map_err(gone)?;
        self.close_client().await?;
        if end {
            self.hear_client_out().await;
            self.downstream().finish().await.map_err(gone)?;
        }
        Ok(())
    }

    /// The upstream has ended. The client is still to say its own Close (RFC 6455 section 7.1.1): what comes when its end is
    /// closed could cost it ours.
    async fn hear_client_out(&mut self) {
        let Self { slot, farewell: Some(farewell), .. } = self else { return };
        let mut downstream = slot.lend();
        while farewell.awaits_client() {
            tokio::select! {
                data = downstream.session.read_body() => match data {
                    Ok(Some(data)) => drop(farewell.up(data)),
                    _ => return,
                },
                _ = farewell.next() => return,
            }
        }
    }

    /// Sends the client its Close, where it is time for that. May be dropped and asked for again.
    async fn close_client(&mut self) -> Result<()> {
        let Self { slot, farewell: Some(farewell), .. } = self else { return Ok(()) };
        if let Some(close) = farewell.close_client() {
            let mut downstream = slot.lend();
            downstream.session.say(close).await.map_err(gone)?;
            downstream.exchange.reason = Some(Reason::TunnelDrained);
            farewell.client_closed();
        }
        Ok(())
    }

    fn connects_upstream(&self) -> bool {
        self.tunnel.as_ref().is_some_and(Tunnel::connects_upstream)
    }

    /// The next bytes through the tunnel, as long as it is not silent for too long in both its ways and does not have to go.
    /// Of a client that has left the rest is waited for: what the upstream still has to say to it, as to browsers behind
    /// their Close.
    async fn read_tunnel(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(close) = self.farewell.as_mut().and_then(|farewell| farewell.close_upstream()) {
                return Ok(Some(close));
            }
            self.close_client().await?;
            let left = self.has_left();
            let Self { slot, silence, farewell, waits, .. } = self;
            let limit = if left { waits.tunnel_idle.min(LAST_WORDS) } else { waits.tunnel_idle };
            let data = tokio::select! {
                biased;
                data = async { slot.lend().read_body().await }, if !left => {
                    silence.broken();
                    data.map_err(|reason| ours(reason).into_down())?
                }
                () = async { slot.lend().session.gone().await }, if left => return Err(ours(Reason::ClientGone)),
                next = next(farewell) => match next {
                    Next::Leave => continue,
                    Next::End => {
                        // It has its end; the upstream had its time.
                        slot.lend().finish().await.map_err(gone)?;
                        return Err(ours(Reason::TunnelDrained));
                    }
                },
                () = silence.lasts(limit) => {
                    return if left { Ok(None) } else { Err(ours(Reason::TunnelIdle)) };
                }
            };
            let Some(data) = data else {
                if self.has_left() {
                    continue;
                }
                return Ok(None);
            };
            let Some(farewell) = &mut self.farewell else { return Ok(Some(data)) };
            let passed = farewell.up(data);
            if !passed.is_empty() {
                return Ok(Some(passed));
            }
        }
    }

    /// Whether a client that opened the tunnel by extended CONNECT has ended its way of it, and may still be told
    /// something. Pingora ends an upgrade with either way, and has no end of one to hand on.
    fn has_left(&self) -> bool {
        matches!(self.tunnel, Some(Tunnel::ConnectByUpgrade { .. })) && self.downstream().body_is_done()
    }

    /// Ends an exchange that is complete by an error, where its upstream connection is not to serve other clients: Pingora
    /// keeps a connection unless its exchange fails.
    fn check_end(&self) -> Result<()> {
        let is_over = || {
            let downstream = self.downstream();
            downstream.progress() == Progress::Ended && downstream.body_is_done()
        };
        match self.call.borrow().is_challenged() && is_over() {
            true => Err(end()),
            false => Ok(()),
        }
    }

    /// Waits while there is nothing to read: for the client's end, or for the upstream's time to be up.
    async fn idle(&mut self) -> Box<Error> {
        let mut downstream = self.downstream();
        let (limit, late) = match downstream.progress() {
            Progress::Waiting => (self.waits.first_byte, Reason::FirstByteTimeout),
            Progress::Tunnel => (self.waits.tunnel_idle, Reason::TunnelIdle),
            _ => (self.waits.body_idle, Reason::UpstreamBodyTimeout),
        };
        match downstream.session.closed(limit).await {
            Closed::Gone => ours(Reason::ClientGone),
            Closed::Idle => ours(late),
        }
    }
}

#[async_trait]
impl<S: Session> CustomSession for Adapter<S> {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let data = self.downstream().read_body().await.map_err(|reason| ours(reason).into_down())?;
        if let Some(data) = &data {
            self.replay.keep(data);
        }
        self.check_end()?;
        Ok(data)
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let done = self.is_body_done();
        match self.upgrade {
            // What comes before the protocol is switched belongs to no one yet.
            Upgrade::Asked { .. } => Err(self.idle().await),
            // Pingora ends its own side of HTTP/2 where ours has ended.
            Upgrade::Done | Upgrade::Refused if done && !no_body_expected && self.connects_upstream() => {
                Ok(None)
            }
            _ if no_body_expected || done => Err(self.idle().await),
            Upgrade::Done => self.read_tunnel().await,
            Upgrade::No | Upgrade::Refused => self.read_body_bytes().await,
        }
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.head(*head, end).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.head(head.clone(), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.data(Some(data), end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.downstream().send_trailers(trailers).await.map_err(gone)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended = self.task(task).await?;
        }
        self.downstream().flush().await.map_err(gone)?;
        self.check_end()?;
        Ok(ended)
    }

    // Deadlines are the session's own: what Pingora would set is not needed.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_ref()
    }

    // Who called Pingora sees how far the response came, and gives it up or answers.
    async fn shutdown(&mut self, _: u32, _: &str) {}

    async fn abandon(&mut self, _: &str) {}

    fn is_body_done(&mut self) -> bool {
        match self.upgrade {
            Upgrade::Asked { .. } => false,
            Upgrade::Refused => true,
            Upgrade::Done if self.downstream().progress() == Progress::Ended => true,
            Upgrade::Done if self.has_left() => false,
            _ => self.downstream().body_is_done(),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        self.downstream().finish().await.map_err(gone)
    }

    fn is_body_empty(&mut self) -> bool {
        let connects = self.connects_upstream();
        match &mut self.upgrade {
            // HTTP/2 asks once: behind the head of a CONNECT, the stream stays open.
            Upgrade::Asked { sent } => !connects && !std::mem::take(sent),
            _ => self.bodiless,
        }
    }

    fn body_bytes_sent(&self) -> usize {
        usize::try_from(self.downstream().session.bytes().1).unwrap_or(usize::MAX)
    }

    fn body_bytes_read(&self) -> usize {
        usize::try_from(self.downstream().session.bytes().0).unwrap_or(usize::MAX)
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let mut raw = BytesMut::new();
        raw.extend_from_slice(self.request.method.as_str().as_bytes());
        raw.extend_from_slice(b" ");
        raw.extend_from_slice(self.request.raw_path());
        raw.extend_from_slice(b" HTTP/1.1\r\n");
        self.request.header_to_h1_wire(&mut raw);
        raw.extend_from_slice(b"\r\n");
        raw.freeze()
    }

    /// Called once per try, when the request's head has been sent.
    fn enable_retry_buffering(&mut self) {
        if let Upgrade::Asked { sent } = &mut self.upgrade {
            *sent = true;
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        !self.replay.is_whole()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.replay.kept()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.upgrade != Upgrade::No && !self.connects_upstream()
    }

    /// To Pingora, a tunnel by HTTP/2 is a request whose body and response last long.
    fn was_upgraded(&self) -> bool {
        self.upgrade == Upgrade::Done && !self.connects_upstream()
    }
}

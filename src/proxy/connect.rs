//! A tunnel that CONNECT opened: bytes both ways, until both sides have ended or neither says anything any more.

use bytes::{Buf, Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{Instant, sleep_until},
};

use super::{
    downstream::Downstream,
    engine::fail,
    session::{ClientError, Session},
};
use crate::{action::forward::Forward, error::Reason, http::errors::Errors};

/// How much is read of the target at once.
const READ: usize = 16 * 1024;

/// Opens the tunnel that the request asks for and carries what comes, to its end.
pub(super) async fn through<S: Session>(downstream: &mut Downstream<S>, forward: &Forward, errors: &Errors) {
    let target = match open(downstream, forward).await {
        Ok(target) => target,
        Err(reason) => {
            downstream.exchange.reason = Some(reason);
            // Whatever follows was meant for the tunnel.
            downstream.session.close();
            return fail(downstream, reason, errors).await;
        }
    };
    if let Err(error) = carry(downstream, target, forward).await {
        downstream.exchange.reason = Some(error.reason());
        downstream.session.reset();
    }
}

/// Connects to what the request asks for.
async fn open<S: Session>(downstream: &mut Downstream<S>, forward: &Forward) -> Result<TcpStream, Reason> {
    let authority = downstream.exchange.head.uri.authority().cloned().ok_or(Reason::BadHost)?;
    tokio::select! {
        biased;
        opened = forward.open(authority.as_str()) => opened,
        () = downstream.session.gone() => Err(Reason::ClientGone),
    }
}

/// Says that the tunnel is there, and carries what comes.
async fn carry<S: Session>(
    downstream: &mut Downstream<S>,
    target: TcpStream,
    forward: &Forward,
) -> Result<(), ClientError> {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::OK;
    downstream.send_head(head, false).await?;
    downstream.flush().await?;
    let (mut from, to) = target.into_split();
    let mut to = Some(to);
    let mut pending = Bytes::new();
    let mut read = BytesMut::new();
    let mut target_ended = false;
    let mut silent_until = Instant::now() + forward.idle;
    while to.is_some() || !target_ended {
        read.reserve(READ);
        // What waits for its turn is no silence.
        let due = downstream.due();
        tokio::select! {
            written = write(&mut to, &pending), if !pending.is_empty() => match written {
                Ok(count) => pending.advance(count),
                // It takes no more; what it still says is passed on.
                Err(_) => (to, pending) = (None, Bytes::new()),
            },
            data = hear(downstream, due, pending.is_empty()), if to.is_some() => match data? {
                Some(data) => pending = data,
                // Dropping this half says so to the target.
                None => to = None,
            },
            count = from.read_buf(&mut read), if !target_ended => match count {
                Ok(1..) => {
                    downstream.send_data(read.split().freeze(), false).await?;
                    downstream.flush().await?;
                }
                _ => {
                    target_ended = true;
                    downstream.finish().await?;
                }
            },
            () = sleep_until(silent_until.max(due + forward.idle)) => break,
        }
        silent_until = Instant::now() + forward.idle;
    }
    downstream.finish().await
}

/// What the client says, where that can be taken. Where it cannot, what it says waits, but not that it goes.
async fn hear<S: Session>(
    downstream: &mut Downstream<S>,
    due: Instant,
    takes: bool,
) -> Result<Option<Bytes>, ClientError> {
    if takes {
        return downstream.read_tunnel(due).await;
    }
    downstream.session.gone().await;
    Err(ClientError::Gone)
}

async fn write(to: &mut Option<OwnedWriteHalf>, data: &[u8]) -> std::io::Result<usize> {
    match to {
        Some(to) => to.write(data).await,
        None => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

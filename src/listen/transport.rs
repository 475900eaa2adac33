//! Sockets of either kind: those that carry streams of bytes, and those that carry QUIC.

use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use super::{
    accept,
    live::Live,
    quic::{self, Kept},
    socket::{self, BindError},
};
use crate::{proxy::session::Handler, value::Bind};

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP or a unix socket, by its address.
    Stream,
    /// QUIC, over UDP.
    Quic,
}

/// Where a socket is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub bind: Bind,
    pub transport: Transport,
}

/// A socket with its address taken, on which nobody can connect yet.
#[derive(Debug)]
pub enum Bound {
    Stream(socket::Bound),
    Quic(quic::Bound),
}

/// A socket that clients can connect to.
#[derive(Debug)]
pub enum Listening {
    Stream(socket::Listening),
    Quic(quic::Listening),
}

/// A socket whose connections are accepted.
#[derive(Debug)]
pub enum Accepting {
    Stream(accept::Accepting),
    Quic(quic::Accepting),
}

// === impl Bound ===

impl Bound {
    /// Takes the address. `shared`: another socket of this process may have it still.
    pub fn bind(place: &Place, shared: bool) -> Result<Self, BindError> {
        match place.transport {
            Transport::Stream => socket::Bound::bind(&place.bind, shared).map(Self::Stream),
            Transport::Quic => quic::Bound::bind(&place.bind).map(Self::Quic),
        }
    }

    /// Takes up a socket that was left and still has connections.
    pub fn again(kept: &Kept) -> Option<Self> {
        kept.take_up().map(Self::Quic)
    }

    /// The address taken, its port known where 0 was asked for.
    pub fn local(&self) -> &Bind {
        match self {
            Self::Stream(bound) => bound.local(),
            Self::Quic(bound) => bound.local(),
        }
    }

    /// Lets clients connect; they are accepted on this runtime.
    pub fn listen(self, runtime: &Handle) -> Result<Listening, BindError> {
        match self {
            Self::Stream(bound) => bound.listen(runtime).map(Listening::Stream),
            Self::Quic(bound) => bound.listen(runtime).map(Listening::Quic),
        }
    }
}

// === impl Listening ===

impl Listening {
    /// The address, for as long as it is held, where others of this process may share it.
    pub fn held(&self) -> Option<Weak<Bind>> {
        match self {
            Self::Stream(socket) => Some(socket.held()),
            Self::Quic(_) => None,
        }
    }
}

// === impl Accepting ===

impl Accepting {
    /// Starts to accept, on this runtime.
    pub fn start<H: Handler>(runtime: &Handle, socket: Listening, live: Arc<Live>, handler: Arc<H>) -> Self {
        match socket {
            Listening::Stream(socket) => {
                Self::Stream(accept::Accepting::start(runtime, socket, live, handler))
            }
            Listening::Quic(socket) => Self::Quic(socket.start(runtime, live, handler)),
        }
    }

    /// The address, with the port that was given where 0 was asked for.
    pub fn local(&self) -> &Bind {
        match self {
            Self::Stream(accepting) => accepting.local(),
            Self::Quic(accepting) => accepting.local(),
        }
    }

    /// Gives the socket to another listener.
    pub fn assign(&self, live: Arc<Live>) {
        match self {
            Self::Stream(accepting) => accepting.assign(live),
            Self::Quic(accepting) => accepting.assign(live),
        }
    }

    /// Where it can be found again after it is stopped: connections over streams have sockets of their own, those of
    /// QUIC go on with the one that was stopped.
    pub fn kept(&self) -> Option<Kept> {
        match self {
            Self::Stream(_) => None,
            Self::Quic(accepting) => Some(accepting.kept()),
        }
    }

    /// Takes no more connections, but for those that wait. The present ones go on. Gives what they need for that.
    pub async fn stop(self) -> Option<quic::Stopped> {
        match self {
            Self::Stream(accepting) => {
                accepting.stop().await;
                None
            }
            Self::Quic(accepting) => Some(accepting.stop()),
        }
    }
}

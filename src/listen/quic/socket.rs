//! UDP sockets, bound before anything is accepted: a reload binds everything first, and dropping undoes it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use ring::{
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use super::{accept::Accepting, id::Ids};
use crate::{
    listen::{
        live::Live,
        socket::{BindError, at, no_ipv6},
    },
    proxy::session::Handler,
    value::Bind,
};

/// A socket with its address taken.
#[derive(Debug)]
pub enum Bound {
    New {
        socket: UdpSocket,
        local: Bind,
    },
    /// One that was left and is taken up again.
    Again(Accepting),
}

/// A socket that can accept connections.
#[derive(Debug)]
pub struct Listening(Accepting);

/// What the kernel may hold of packets while nobody reads or sends: the connections have no other place.
const BUFFER: usize = 2 << 20;

// === impl Bound ===

impl Bound {
    /// Takes the address.
    pub fn bind(bind: &Bind) -> Result<Self, BindError> {
        let bound = match bind {
            Bind::Any(port) => bind_any(*port),
            Bind::Tcp(addr) => bind_udp(*addr, false),
            Bind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        let (socket, addr) = bound.map_err(at(bind))?;
        let local = match bind {
            Bind::Any(_) => Bind::Any(addr.port()),
            _ => Bind::Tcp(addr),
        };
        Ok(Self::New { socket, local })
    }

    /// The address taken, its port known where 0 was asked for.
    pub fn local(&self) -> &Bind {
        match self {
            Self::New { local, .. } => local,
            Self::Again(accepting) => accepting.local(),
        }
    }

    /// Gets ready to accept on this runtime.
    pub fn listen(self, runtime: &Handle) -> Result<Listening, BindError> {
        match self {
            Self::Again(accepting) => Ok(Listening(accepting)),
            Self::New { socket, local } => {
                let endpoint = endpoint(socket, runtime).map_err(at(&local))?;
                let tokens = token_key().map_err(at(&local))?;
                Ok(Listening(Accepting::new(local, endpoint, tokens)))
            }
        }
    }
}

// === impl Listening ===

impl Listening {
    /// Starts to accept.
    pub fn start<H: Handler>(self, runtime: &Handle, live: Arc<Live>, handler: Arc<H>) -> Accepting {
        self.0.start(runtime, live, handler);
        self.0
    }
}

fn endpoint(socket: UdpSocket, runtime: &Handle) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(Ids::new(std::process::id(), 0)));
    let _context = runtime.enter();
    Endpoint::new(config, None, socket, Arc::new(TokioRuntime))
}

/// By which a client that was asked to prove its address is known when it comes again.
fn token_key() -> io::Result<hkdf::Prk> {
    let mut secret = [0; 32];
    let filled = SystemRandom::new().fill(&mut secret);
    filled.map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret))
}

/// One socket for both families, or for IPv4 alone where the machine has no IPv6.
fn bind_any(port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let dual = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port);
    match bind_udp(dual, true) {
        Err(error) if no_ipv6(&error) => {
            bind_udp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), false)
        }
        other => other,
    }
}

fn bind_udp(addr: SocketAddr, dual: bool) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!dual)?;
    }
    // The kernel gives what it may.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let local = socket.local_addr()?.as_socket().unwrap_or(addr);
    Ok((socket.into(), local))
}

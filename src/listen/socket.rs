//! Sockets, bound before they listen: a reload binds everything first, and dropping undoes it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
};

use super::stream::Io;
use crate::{http::connection::Peer, value::Bind};

/// A socket with its address taken, on which nobody can connect yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    local: Arc<Bind>,
    file: Option<SocketFile>,
}

/// A socket that clients can connect to.
#[derive(Debug)]
pub struct Listening {
    listener: Listener,
    /// Shared with who wants to know for how long the address is held.
    local: Arc<Bind>,
    /// Removed with the socket.
    file: Option<SocketFile>,
}

/// Why an address could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{bind}: {source}")]
    Io { bind: Bind, source: io::Error },
    #[error("{bind}: another process listens there")]
    Taken { bind: Bind },
    #[error("{bind}: a living process listens there")]
    Living { bind: Bind },
    #[error("{bind}: something other than a socket lies there")]
    NoSocket { bind: Bind },
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A unix socket's file, removed on drop unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

const BACKLOG: i32 = 4096;

// === impl Bound ===

impl Bound {
    /// Takes the address. `shared`: another socket of this process may have it still; else whoever has it is another
    /// process, which would get a part of the connections that are meant for this one.
    pub fn bind(bind: &Bind, shared: bool) -> Result<Self, BindError> {
        match bind {
            Bind::Any(port) => bind_any(*port, shared).map_err(at(bind)),
            Bind::Tcp(addr) => bind_tcp(*addr, false, shared).map_err(at(bind)),
            Bind::Unix(path) => bind_unix(bind, path),
        }
    }

    /// The address taken, its port known where 0 was asked for.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// Lets clients connect; they are accepted on this runtime.
    pub fn listen(self, runtime: &Handle) -> Result<Listening, BindError> {
        let Self { socket, local, file } = self;
        let listener = listen(socket, &local, runtime).map_err(at(&local))?;
        Ok(Listening { listener, local, file })
    }
}

impl BindError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        let (Self::Taken { bind } | Self::Living { bind }) = self else { return None };
        let listed = match bind.socket_addr() {
            Some(addr) => format!("ss -lntup 'sport = :{}'", addr.port()),
            None => "ss -lxp".into(),
        };
        Some(format!(
            "end it, or bind another address; `{listed}` shows which it is: a Portolan that still runs?"
        ))
    }
}

pub(super) fn at(bind: &Bind) -> impl FnOnce(io::Error) -> BindError {
    let bind = bind.clone();
    move |source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { bind },
        _ => BindError::Io { bind, source },
    }
}

fn listen(socket: Socket, local: &Bind, runtime: &Handle) -> io::Result<Listener> {
    socket.listen(BACKLOG)?;
    let _context = runtime.enter();
    match local {
        Bind::Unix(_) => UnixListener::from_std(socket.into()).map(Listener::Unix),
        _ => TcpListener::from_std(socket.into()).map(Listener::Tcp),
    }
}

/// One socket for both families, or for IPv4 alone where the machine has no IPv6.
fn bind_any(port: u16, shared: bool) -> io::Result<Bound> {
    let dual = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port);
    let bound = match bind_tcp(dual, true, shared) {
        Err(error) if no_ipv6(&error) => {
            bind_tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), false, shared)
        }
        other => other,
    }?;
    let port = bound.local.socket_addr().map_or(port, |addr| addr.port());
    Ok(Bound { local: Bind::Any(port).into(), ..bound })
}

pub(super) fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

fn bind_tcp(addr: SocketAddr, dual: bool, shared: bool) -> io::Result<Bound> {
    if !shared && addr.port() != 0 {
        // Sockets that are willing to share share with other processes as well: one that is not finds these.
        tcp_socket(addr, dual)?.bind(&addr.into())?;
    }
    let socket = tcp_socket(addr, dual)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let local = socket.local_addr()?.as_socket().unwrap_or(addr);
    Ok(Bound { socket, local: Bind::Tcp(local).into(), file: None })
}

fn tcp_socket(addr: SocketAddr, dual: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!dual)?;
    }
    // Connections that have not quite ended do not keep their listener's address.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn bind_unix(bind: &Bind, path: &Path) -> Result<Bound, BindError> {
    remove_stale(bind, path)?;
    let bound = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::of(path)?;
        // Before anybody can connect: nobody listens yet.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Bound { socket, local: bind.clone().into(), file: Some(file) })
    };
    bound().map_err(at(bind))
}

/// Removes the file that a dead process left behind; nobody accepts there.
fn remove_stale(bind: &Bind, path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(bind)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket { bind: bind.clone() });
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(at(bind))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(bind)(error)),
        Ok(_) => Err(BindError::Living { bind: bind.clone() }),
    }
}

// === impl Listening ===

impl Listening {
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// The address, for as long as it is held.
    pub fn held(&self) -> Weak<Bind> {
        Arc::downgrade(&self.local)
    }

    pub(super) async fn accept(&self) -> io::Result<(Io, Peer)> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                Ok((Io::Tcp(stream), Peer::Tcp(addr)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Io::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Takes what already waits in the socket's queue, then closes it.
    pub(super) fn close(self) -> Vec<(Io, Peer)> {
        // The file goes first, so that nobody new comes by it.
        drop(self.file);
        match self.listener {
            Listener::Tcp(listener) => match listener.into_std() {
                Ok(listener) => queued(|| {
                    let (stream, addr) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Io::Tcp(tokio::net::TcpStream::from_std(stream)?), Peer::Tcp(addr)))
                }),
                Err(_) => Vec::new(),
            },
            Listener::Unix(listener) => match listener.into_std() {
                Ok(listener) => queued(|| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Io::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix))
                }),
                Err(_) => Vec::new(),
            },
        }
    }
}

fn queued(mut accept: impl FnMut() -> io::Result<(Io, Peer)>) -> Vec<(Io, Peer)> {
    let mut taken = Vec::new();
    // Bounded, for a flood could keep the queue from ever being empty.
    for _ in 0..2 * BACKLOG {
        match accept() {
            Ok(one) => taken.push(one),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    taken
}

// === impl SocketFile ===

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { identity: identity(path)?, path: path.into() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

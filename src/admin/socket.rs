//! Where the administration listens: a file that its owner alone can open, or an address of this machine.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use crate::{http::connection::Peer, value::Bind};

/// A connection to it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A socket that listens. Dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    kind: Kind,
    local: Bind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf, identity: (u64, u64) },
}

impl AdminSocket {
    /// Listens there. A file that a dead process left is replaced, a living process's is not. Called within
    /// the runtime that serves it.
    pub fn bind(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Unix(path) => Self::bind_file(path),
            Bind::Any(_) | Bind::Tcp(_) => {
                let address = bind.socket_addr().expect("a bind that is not a unix socket has an IP address");
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = Bind::Tcp(listener.local_addr()?);
                Ok(Self { kind: Kind::Tcp(TcpListener::from_std(listener)?), local })
            }
        }
    }

    fn bind_file(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before it listens: nobody can have connected yet.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(128)?;
        let identity = identity(path)?;
        let listener = UnixListener::from_std(socket.into())?;
        let local = Bind::Unix(path.into());
        Ok(Self { kind: Kind::Unix { listener, path: path.into(), identity }, local })
    }

    /// Where it listens, with the port that was given where 0 was asked for.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Box::new(stream), Peer::Tcp(peer)))
            }
            Kind::Unix { listener, .. } => Ok((Box::new(listener.accept().await?.0), Peer::Unix)),
        }
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        if let Self::Unix { path, identity: own, .. } = self
            && identity(path).is_ok_and(|now| now == *own)
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |text| Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return taken("something other than a socket lies there");
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => taken("another process listens there; is Portolan running already?"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_living_socket_is_left_alone_and_a_dead_one_replaced() {
        let path = std::env::temp_dir().join(format!("portolan-admin-{}-stale", std::process::id()));
        let bind = Bind::Unix(path.clone());
        let living = AdminSocket::bind(&bind).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(AdminSocket::bind(&bind).unwrap_err().to_string().contains("running already"));
        drop(living);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(AdminSocket::bind(&bind).unwrap());
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(AdminSocket::bind(&bind).is_err());
        fs::remove_file(&path).unwrap();
    }
}

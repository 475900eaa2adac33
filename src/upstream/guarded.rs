//! Connecting for delegated files: each address is checked again at the moment of connecting, when the admin API's is
//! known and a path may lead to another socket than before.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, net::SocketAddr as UnixAddr},
    },
};

use super::{
    announce::{Announcing, connect, failure},
    reach::{Denial, Denied},
};
use crate::value::Address;
use async_trait::async_trait;
use pingora::{
    connectors::L4Connect,
    protocols::l4::{socket::SocketAddr as PeerAddr, stream::Stream},
};

/// Connects where that is not denied.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    pub denied: Denied,
    /// How the connection begins, where it begins with a PROXY header.
    pub announcing: Option<Announcing>,
}

impl Guarded {
    pub(super) async fn open(&self, address: &PeerAddr) -> io::Result<Stream> {
        match address {
            PeerAddr::Inet(address) => {
                self.denied.check(&Address::Tcp(*address)).map_err(denied)?;
                self.begin(&PeerAddr::Inet(*address)).await
            }
            PeerAddr::Unix(address) => {
                let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
                self.denied.check(&Address::Unix(path.into())).map_err(denied)?;
                // What was opened is what is checked and connected to: the path could be swapped in between.
                let socket = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
                self.denied.check_socket(&socket.metadata()?).map_err(denied)?;
                let opened = UnixAddr::from_pathname(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
                self.begin(&PeerAddr::Unix(opened)).await
            }
        }
    }

    async fn begin(&self, address: &PeerAddr) -> io::Result<Stream> {
        connect(address, self.announcing.as_ref()).await
    }
}

fn denied(denial: Denial) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("denied to delegated files: {denial}"))
}

#[async_trait]
impl L4Connect for Guarded {
    async fn connect(&self, address: &PeerAddr) -> pingora::Result<Stream> {
        self.open(address).await.map_err(|error| failure("a delegated upstream", error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;
    use crate::upstream::reach::AdminAddresses;

    #[tokio::test]
    async fn a_path_that_leads_to_the_admin_socket_is_not_connected_to() {
        let root = std::env::temp_dir().join(format!("portolan-guarded-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let (admin, app, link) = (root.join("admin.sock"), root.join("app.sock"), root.join("link.sock"));
        let _listeners = (UnixListener::bind(&admin).unwrap(), UnixListener::bind(&app).unwrap());
        let own = AdminAddresses::default();
        own.listens_at(&crate::value::Bind::Unix(admin.clone()));
        let denied = Denied::delegated([], ["unix:*".parse().unwrap()]).and_admin(&own);
        let guarded = Guarded { denied, announcing: None };
        let open = async |path: &std::path::Path| {
            guarded.open(&PeerAddr::Unix(UnixAddr::from_pathname(path).unwrap())).await.map(drop)
        };
        symlink(&app, &link).unwrap();
        assert!(open(&app).await.is_ok() && open(&link).await.is_ok());
        std::fs::remove_file(&link).unwrap();
        symlink(&admin, &link).unwrap();
        for path in [&admin, &link] {
            assert_eq!(open(path).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        std::fs::remove_file(&link).unwrap();
        std::fs::hard_link(&admin, &link).unwrap();
        assert_eq!(open(&link).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

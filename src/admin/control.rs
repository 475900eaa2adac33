//! The control socket: one line of JSON with a request, one line of JSON with the reply. It is a file that
//! its owner alone can open.

use std::{
    fs,
    future::Future,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Reads the configuration again; the reply comes when that has succeeded or failed.
    Reload,
    /// How the process does.
    Status,
}

/// What is replied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Result(Value),
    Error(String),
}

/// Who answers.
pub trait Control: Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// A control socket that listens. Dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

/// Why nothing came of a question.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no process listens at {path}: {source}")]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("the process does not reply: {0}")]
    Io(#[from] io::Error),
    #[error("the process's reply cannot be understood: {0}")]
    Reply(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

const LONGEST_REQUEST: u64 = 64 << 10;
const LONGEST_REPLY: u64 = 64 << 20;
/// For a request's line to come and for the reply to be taken. A reload may take longer, between the two.
const PATIENCE: Duration = Duration::from_secs(5);
/// A large tree takes seconds; a client that waits longer than this waits for nothing.
const LONGEST_ANSWER: Duration = Duration::from_secs(300);
/// Clients at once.
const CLIENTS: usize = 32;

// === impl ControlSocket ===

impl ControlSocket {
    /// Listens there. A file that a dead process left is replaced, a living process's is not. Called within
    /// the runtime that serves it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before it listens: nobody can have connected yet.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(128)?;
        let identity = identity(path)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, path: path.into(), identity })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until it is dropped.
    pub async fn serve<C: Control>(self, control: Arc<C>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let control = control.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = converse(stream, &*control).await {
                            tracing::debug!(%error, "a client of the control socket went wrong");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Asks the process that listens there, and waits for its reply.
pub fn ask(path: &Path, request: Request) -> Result<Value, AskError> {
    let mut stream =
        StdUnixStream::connect(path).map_err(|source| AskError::NotRunning { path: path.into(), source })?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(LONGEST_ANSWER + PATIENCE))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(stream).take(LONGEST_REPLY).read_until(b'\n', &mut reply)?;
    match serde_json::from_slice(&reply)? {
        Reply::Result(value) => Ok(value),
        Reply::Error(message) => Err(AskError::Refused(message)),
    }
}

async fn converse<C: Control>(stream: UnixStream, control: &C) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = tokio::io::BufReader::new(read).take(LONGEST_REQUEST);
    timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
    let reply = match request(&line) {
        Ok(request) => timeout(LONGEST_ANSWER, control.answer(request))
            .await
            .unwrap_or_else(|_| Reply::Error("it takes too long".into())),
        Err(problem) => Reply::Error(problem),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    timeout(PATIENCE, write.write_all(&line)).await?
}

fn request(line: &[u8]) -> Result<Request, String> {
    if !line.ends_with(b"\n") {
        return Err("a request is one line of at most 64 KiB".into());
    }
    serde_json::from_slice(line).map_err(|error| format!("the request cannot be understood: {error}"))
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
    use serde_json::json;

    use super::*;

    struct Echo;

    impl Control for Echo {
        async fn answer(&self, request: Request) -> Reply {
            match request {
                Request::Status => Reply::Result(json!({ "generation": 7 })),
                Request::Reload => Reply::Error("no".into()),
            }
        }
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("portolan-control-{}-{name}", std::process::id()))
    }

    async fn said(path: &Path, text: &'static [u8]) -> Value {
        let path = path.to_owned();
        let reply = tokio::task::spawn_blocking(move || {
            let mut stream = StdUnixStream::connect(path).unwrap();
            stream.write_all(text).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            reply
        });
        serde_json::from_str(&reply.await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn questions_are_answered_and_nonsense_is_refused() {
        let path = path("answers");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let serving = tokio::spawn(socket.serve(Arc::new(Echo)));
        let asked = path.clone();
        let (status, reload) =
            tokio::task::spawn_blocking(move || (ask(&asked, Request::Status), ask(&asked, Request::Reload)))
                .await
                .unwrap();
        assert_eq!(status.unwrap(), json!({ "generation": 7 }));
        assert_eq!(reload.unwrap_err().to_string(), "no");
        for nonsense in [&b"{}\n"[..], b"", b"{\"command\":\"status\"}", b"\xff\n"] {
            assert!(said(&path, nonsense).await["error"].is_string());
        }
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
        assert!(matches!(ask(&path, Request::Status), Err(AskError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn a_living_socket_is_left_alone_and_a_dead_one_replaced() {
        let path = path("stale");
        let living = ControlSocket::bind(&path).unwrap();
        assert!(ControlSocket::bind(&path).unwrap_err().to_string().contains("running already"));
        drop(living);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(ControlSocket::bind(&path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(ControlSocket::bind(&path).is_err());
        fs::remove_file(&path).unwrap();
    }
}

//! A client that sends exact bytes, in the clear or over TLS.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::{
    DEADLINE,
    message::{self, Response},
};

/// One connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    /// The same socket, to set its timeouts and to close it by.
    socket: Option<TcpStream>,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A socket whose reads go on after a signal: with a timeout they would end (signal(7)).
pub struct Steady<T>(pub T);

impl<T: Read> Read for Steady<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl<T: Write> Write for Steady<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Client {
    pub fn tcp(port: u16) -> Self {
        let socket = connect(port);
        let handle = socket.try_clone().unwrap();
        Self { stream: BufReader::new(Box::new(Steady(socket))), socket: Some(handle) }
    }

    pub fn unix(path: impl AsRef<Path>) -> Self {
        let socket = UnixStream::connect(path).expect("the socket takes connections");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream: BufReader::new(Box::new(Steady(socket))), socket: None }
    }

    pub fn tls(port: u16, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = connect(port);
        let handle = socket.try_clone()?;
        let mut socket = Steady(socket);
        let name = ServerName::try_from(name.to_owned()).expect("a name that SNI can carry");
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let stream = StreamOwned::new(connection, socket);
        Ok(Self { stream: BufReader::new(Box::new(stream)), socket: Some(handle) })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the proxy takes bytes");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Sends until the proxy has taken nothing for a second.
    pub fn write_until_blocked(&mut self) {
        self.socket
            .as_ref()
            .expect("a TCP connection")
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        while self.try_send([b'x'; 64 * 1024]).is_ok() {}
    }

    /// The final response to a request whose method is not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).expect("a response")
    }

    pub fn try_response_to(&mut self, method: &str) -> io::Result<Response> {
        message::response(&mut self.stream, method)
    }

    /// The next response's head, its body left unread.
    #[track_caller]
    pub fn response_head(&mut self) -> Response {
        message::response_head(&mut self.stream).expect("a response's head")
    }

    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut piece = vec![0; length];
        self.stream.read_exact(&mut piece).expect("bytes");
        piece
    }

    /// Everything until the proxy closes; a reset is an end too.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = [0; 64 * 1024];
        while let Ok(length @ 1..) = self.stream.read(&mut piece) {
            all.extend(&piece[..length]);
        }
        all
    }

    /// Everything until the proxy says that this was all.
    pub fn read_whole(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).map(|_| all)
    }

    /// Whether the proxy closes within the deadline; anything that it still sends is thrown away.
    pub fn is_closed(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }

    /// Whether the next thing is an orderly end: of TLS, one that is said.
    pub fn has_ended_well(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// How long a read waits at most.
    pub fn patience(&mut self, limit: Duration) -> &mut Self {
        self.socket.as_ref().expect("a TCP connection").set_read_timeout(Some(limit)).unwrap();
        self
    }

    /// No more bytes from here; the other direction stays open.
    pub fn finish_sending(&mut self) {
        self.socket.as_ref().expect("a TCP connection").shutdown(Shutdown::Write).unwrap();
    }

    /// A GET with everything that HTTP/1.1 asks for.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).response()
    }
}

fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy takes connections");
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

//! An origin that does what it is told and records every byte that reaches it.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    DEADLINE,
    client::Steady,
    message::{self, Message},
};

/// An origin on a port of its own; a thread for each connection.
pub struct Origin {
    address: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    bytes: AtomicUsize,
    /// Connections that the other side closed.
    closed: AtomicUsize,
    /// Connections that the origin has closed.
    ended: AtomicUsize,
    stopped: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

/// One request at the origin, and the connection that it came by.
pub struct Exchange<'a> {
    pub request: Message,
    pub stream: &'a mut BufReader<Counting>,
}

/// What to do with the connection after a reply.
#[derive(PartialEq, Eq)]
pub enum Reply {
    Keep,
    Close,
}

/// A stream that counts what it reads.
pub struct Counting {
    socket: Steady<TcpStream>,
    record: Arc<Record>,
    /// Its number among the origin's connections.
    number: usize,
}

impl Origin {
    /// Answers every request with these bytes.
    pub fn replying(bytes: &'static [u8]) -> Self {
        Self::serving(move |exchange| {
            exchange.send(bytes);
            Reply::Keep
        })
    }

    /// Answers 200 with this body.
    pub fn saying(body: &str) -> Self {
        let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Self::replying(bytes.into_bytes().leak())
    }

    /// The same at this address.
    pub fn saying_at(address: &str, body: &str) -> Self {
        let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Self::accepting(address, move |stream, record| {
            while let Ok(Some(request)) = message::request(stream) {
                record.requests.lock().unwrap().push(request.clone());
                Exchange { request, stream }.send(&bytes);
            }
        })
    }

    /// Answers 200 with the request itself, as it arrived.
    pub fn echoing() -> Self {
        Self::serving(|exchange| {
            let raw = exchange.request.raw.clone();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", raw.len()));
            exchange.send(raw);
            Reply::Keep
        })
    }

    /// Reads requests whole, then hands them to `serve`.
    pub fn serving(serve: impl Fn(&mut Exchange) -> Reply + Send + Sync + 'static) -> Self {
        Self::speaking(message::request, serve)
    }

    /// Hands requests to `serve` as soon as their head is there.
    pub fn serving_early(serve: impl Fn(&mut Exchange) -> Reply + Send + Sync + 'static) -> Self {
        Self::speaking(message::request_head, serve)
    }

    fn speaking(
        read: fn(&mut BufReader<Counting>) -> io::Result<Option<Message>>,
        serve: impl Fn(&mut Exchange) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::accepting("127.0.0.1:0", move |stream, record| {
            while let Ok(Some(request)) = read(stream) {
                record.requests.lock().unwrap().push(request.clone());
                if serve(&mut Exchange { request, stream }) == Reply::Close {
                    return;
                }
            }
        })
    }

    fn accepting(
        address: &str,
        serve: impl Fn(&mut BufReader<Counting>, &Record) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free address");
        let address = listener.local_addr().unwrap();
        let record = Arc::<Record>::default();
        let serve = Arc::new(serve);
        let of_origin = Arc::clone(&record);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if record.stopped.load(Ordering::Acquire) {
                    return;
                }
                let number = record.connections.fetch_add(1, Ordering::Relaxed);
                record.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let _ = socket.set_nodelay(true);
                let (serve, record) = (Arc::clone(&serve), Arc::clone(&record));
                thread::spawn(move || {
                    let counting = Counting { socket: Steady(socket), record: Arc::clone(&record), number };
                    let mut stream = BufReader::new(counting);
                    serve(&mut stream, &record);
                    let _ = stream.get_ref().socket.0.shutdown(Shutdown::Both);
                    record.ended.fetch_add(1, Ordering::Release);
                });
            }
        });
        Self { address, record: of_origin }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn requests(&self) -> Vec<Message> {
        self.record.requests.lock().unwrap().clone()
    }

    /// The one request that arrived.
    #[track_caller]
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the origin");
        requests.remove(0)
    }

    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> usize {
        self.record.bytes.load(Ordering::Relaxed)
    }

    /// How many connections the proxy closed, or reset.
    pub fn closed(&self) -> usize {
        self.record.closed.load(Ordering::Relaxed)
    }

    /// How many connections are closed from this side.
    pub fn ended(&self) -> usize {
        self.record.ended.load(Ordering::Acquire)
    }
}

impl Drop for Origin {
    /// As a process that is killed: the port is closed, and so is every connection.
    fn drop(&mut self) {
        self.record.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread, which then lets the port go.
        let _ = TcpStream::connect_timeout(&self.address, DEADLINE);
        for socket in self.record.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Exchange<'_> {
    /// Sends bytes; a proxy that is gone is no fault of the origin.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().socket.write_all(bytes.as_ref())
    }

    /// The same connection, to write to while it is read.
    pub fn writer(&self) -> TcpStream {
        self.stream.get_ref().socket.0.try_clone().expect("a socket")
    }

    /// Which of the origin's connections it is, from 0 on.
    pub fn connection(&self) -> usize {
        self.stream.get_ref().number
    }

    /// Reads until the other side closes, and says how much came.
    pub fn read_to_end(&mut self) -> usize {
        let mut piece = [0; 64 * 1024];
        let mut total = 0;
        while let Ok(length @ 1..) = self.stream.read(&mut piece) {
            total += length;
        }
        total
    }

    pub fn read_some(&mut self) -> Vec<u8> {
        let mut piece = [0; 64 * 1024];
        let length = self.stream.read(&mut piece).unwrap_or(0);
        piece[..length].to_vec()
    }
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(buffer);
        match &read {
            Ok(0) | Err(_) => self.record.closed.fetch_add(1, Ordering::Relaxed),
            Ok(length) => self.record.bytes.fetch_add(*length, Ordering::Relaxed),
        };
        read
    }
}

//! A client of HTTP/2 that sends whatever frames it is told to, in the clear.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::DEADLINE;

/// A connection after its preface.
pub struct Frames {
    socket: TcpStream,
    read: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

impl Frames {
    /// Connects and sends the preface with these settings.
    pub fn connect(port: u16, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy takes connections");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut frames = Self { socket, read: Vec::new() };
        frames.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload);
        frames
    }

    /// Sends a frame; says whether the proxy still takes bytes.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// Sends bytes; says whether the proxy still takes them.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// How long a write waits for the proxy to take bytes.
    pub fn patience(&mut self, limit: Duration) {
        self.socket.set_write_timeout(Some(limit)).unwrap();
    }

    /// The next frame, or none where the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Some(frame);
            }
            let mut piece = [0; 16 * 1024];
            match self.socket.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.read.extend(&piece[..length]),
            }
        }
    }

    /// Reads until a frame of this kind comes.
    pub fn until(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.receive()).find(|frame| frame.kind == kind)
    }

    /// The code of the GOAWAY that ends the connection; none where it ends without.
    pub fn ended(&mut self) -> Option<u32> {
        let last = std::iter::from_fn(|| self.receive()).filter(|frame| frame.kind == GOAWAY).last();
        last.map(|frame| u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field section of literals that no table remembers (RFC 7541 section 6.2.2).
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127, "one byte holds the length");
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The section of a request for `path`.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    section(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")])
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let head = bytes.get(..9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = bytes.get(9..9 + length)?.to_vec();
    Some((Frame { kind: head[3], payload }, 9 + length))
}

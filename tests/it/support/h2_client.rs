//! An HTTP/2 client that sends what it is told, right or wrong: frames by hand, fields as literals (RFC 7541 section 6.2.2).

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use super::DEADLINE;

/// One connection in the clear, by prior knowledge.
pub struct H2Client {
    socket: TcpStream,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    /// A response has begun.
    Answered,
    /// RST_STREAM with this error code.
    Reset(String),
    /// GOAWAY with this error code, or the connection's end.
    Ended(String),
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113 section 7.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

impl H2Client {
    #[track_caller]
    pub fn tcp(port: u16) -> Self {
        Self::tcp_after(port, b"")
    }

    /// As [`H2Client::tcp`], with these bytes before all others.
    #[track_caller]
    pub fn tcp_after(port: u16, first: &[u8]) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy takes connections");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(first).expect("the proxy takes bytes");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the proxy takes bytes");
        let mut client = Self { socket };
        client.send(SETTINGS, 0, 0, &[]);
        client
    }

    pub fn headers(&mut self, stream: u32, fields: &[(Vec<u8>, Vec<u8>)], end: bool) {
        const MOST: usize = 16_384;
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        let end = if end { END_STREAM } else { 0 };
        let mut pieces = block.chunks(MOST).peekable();
        let (mut kind, mut flags) = (HEADERS, end);
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= END_HEADERS;
            }
            self.send(kind, flags, stream, piece);
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    pub fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        self.send(DATA, if end { END_STREAM } else { 0 }, stream, data);
    }

    /// Reads on until it is clear what became of a request.
    pub fn reaction(&mut self, stream: u32) -> io::Result<Reaction> {
        loop {
            let frame = match self.frame() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => return Ok(Reaction::Ended(error.to_string())),
            };
            match frame.kind {
                HEADERS if frame.stream == stream => return Ok(Reaction::Answered),
                RST_STREAM if frame.stream == stream => return Ok(Reaction::Reset(code(&frame.payload))),
                GOAWAY => return Ok(Reaction::Ended(code(&frame.payload[4..]))),
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                _ => {}
            }
        }
    }

    /// The next bytes of a response's body.
    #[track_caller]
    pub fn read_data(&mut self, stream: u32) -> Vec<u8> {
        loop {
            let frame = self.frame().expect("a frame");
            if (frame.kind, frame.stream) == (DATA, stream) {
                return frame.payload;
            }
        }
    }

    /// Sends a frame; a proxy that has closed says so by what it sent before.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.socket.write_all(&frame);
    }

    fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}

fn code(payload: &[u8]) -> String {
    let number = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let name = number.and_then(|number| CODES.get(number as usize));
    name.map_or_else(|| format!("{number:?}"), |name| (*name).to_owned())
}

/// A field that enters no table, its name and value without Huffman's coding.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name), name, &length(value), value].concat()
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(text: &[u8]) -> Vec<u8> {
    let mut rest = text.len();
    if rest < 127 {
        return vec![rest as u8];
    }
    let mut bytes = vec![127];
    rest -= 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

//! A client of HTTP/2 that sends whatever frames it is told to, in the clear.

use std::{
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::DEADLINE;

/// A connection after its preface.
pub struct Frames(BufReader<TcpStream>);

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

impl Frames {
    /// Connects and sends the preface with these settings.
    #[track_caller]
    pub fn connect(port: u16, settings: &[(u16, u32)]) -> Self {
        Self::connect_after(port, b"", settings)
    }

    /// As [`Frames::connect`], with these bytes before all others.
    #[track_caller]
    pub fn connect_after(port: u16, first: &[u8], settings: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        Self::begun(port, first, &frame(SETTINGS, 0, 0, &payload))
    }

    /// Connects and sends the preface with this frame where its settings should be.
    #[track_caller]
    pub fn connect_with(port: u16, frame: &[u8]) -> Self {
        Self::begun(port, b"", frame)
    }

    #[track_caller]
    fn begun(port: u16, first: &[u8], settings: &[u8]) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy takes connections");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut frames = Self(BufReader::new(socket));
        let preface = [first, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat();
        assert!(frames.write(&preface), "the proxy takes bytes");
        frames.write(settings);
        frames
    }

    /// Sends a frame; says whether the proxy still takes bytes.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// Sends bytes; says whether the proxy still takes them.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).is_ok()
    }

    /// How long a write waits for the proxy to take bytes.
    pub fn patience(&mut self, limit: Duration) {
        self.0.get_mut().set_write_timeout(Some(limit)).unwrap();
    }

    /// The next frame, or none where the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        self.try_receive().ok()
    }

    /// The next frame.
    pub fn try_receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [l0, l1, l2, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
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
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// A field that enters no table, its name and value without Huffman's coding.
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// A length as an integer with a prefix of seven bits (RFC 7541 section 5.1).
pub fn length(mut rest: usize) -> Vec<u8> {
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

/// The section of a request for `path`.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    section(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")])
}

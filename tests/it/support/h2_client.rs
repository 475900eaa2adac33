//! An HTTP/2 client that sends what it is told, right or wrong: frames by hand, fields as literals (RFC 7541 section 6.2.2).

use std::io;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, literal,
};

/// One connection in the clear, by prior knowledge.
pub struct H2Client(Frames);

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
        Self(Frames::connect_after(port, first, &[]))
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
            let frame = match self.0.try_receive() {
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
            let frame = self.0.receive().expect("a frame");
            if (frame.kind, frame.stream) == (DATA, stream) {
                return frame.payload;
            }
        }
    }

    /// Sends a frame; a proxy that has closed says so by what it sent before.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.0.send(kind, flags, stream, payload);
    }
}

fn code(payload: &[u8]) -> String {
    let number = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let name = number.and_then(|number| CODES.get(number as usize));
    name.map_or_else(|| format!("{number:?}"), |name| (*name).to_owned())
}

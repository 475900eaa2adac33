//! Reads a message body by its framing (RFC 9112 section 6), the chunked coding (section 7.1) without any leniency.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The framing of a message body (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    Empty,
    Exact(u64),
    Chunked,
    /// Until the connection ends: responses alone.
    UntilClose,
}

/// Where in the body the reading stands.
#[derive(Debug)]
pub struct Body {
    state: State,
    /// What [`Body::look_ahead`] has taken.
    ahead: VecDeque<Piece>,
    trailers: Option<HeaderMap>,
    forbidden_trailers: Forbidden,
}

/// What becomes of trailers that must not be trailers (RFC 9110 section 6.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forbidden {
    /// The message is malformed.
    Refuse,
    /// They are left out.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Exact(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// A response without a length: bytes until the connection ends.
    UntilClose,
    /// After an upgrade: bytes until the connection ends.
    Tunnel,
}

/// What a look at the buffer gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    End,
    More,
}

/// A chunk's size line with its extensions, and the trailer section, are not longer than these.
const MOST_SIZE_LINE: usize = 256;
const MOST_TRAILERS: usize = 8 * 1024;
const MOST_TRAILER_FIELDS: usize = 32;

impl Body {
    /// The body of a request: trailers that frame or route a message make it malformed.
    pub fn new(length: BodyLength) -> Self {
        Self::with(length, Forbidden::Refuse)
    }

    /// The body of a response: trailers that frame or route a message are left out.
    pub fn of_response(length: BodyLength) -> Self {
        Self::with(length, Forbidden::Drop)
    }

    fn with(length: BodyLength, forbidden_trailers: Forbidden) -> Self {
        let state = match length {
            BodyLength::Empty => State::Done,
            BodyLength::Exact(length) => State::Exact(length),
            BodyLength::Chunked => State::ChunkSize,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, ahead: VecDeque::new(), trailers: None, forbidden_trailers }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done && self.ahead.is_empty()
    }

    /// Whether what is left is known to be no more than `most` bytes.
    pub fn is_short(&self, most: u64) -> bool {
        matches!(self.state, State::Done) || matches!(self.state, State::Exact(left) if left <= most)
    }

    pub fn become_tunnel(&mut self) {
        self.state = State::Tunnel;
    }

    pub fn end(&mut self) {
        self.state = State::Done;
        self.ahead.clear();
    }

    /// Whether the connection's end is the body's.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Tunnel)
    }

    pub fn is_tunnel(&self) -> bool {
        self.state == State::Tunnel
    }

    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads the chunks that have come with the head: what is wrong with them is known before any of the request
    /// goes on. Says whether there were some.
    pub fn look_ahead(&mut self, buffer: &mut BytesMut) -> Result<bool, &'static str> {
        let mut more = self.state == State::ChunkSize;
        while more {
            let piece = self.decode(buffer)?;
            more = matches!(piece, Piece::Data(_));
            if piece != Piece::More {
                self.ahead.push_back(piece);
            }
        }
        Ok(!self.ahead.is_empty())
    }

    /// Takes the next piece off the buffer.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        match self.ahead.pop_front() {
            Some(piece) => Ok(piece),
            None => self.decode(buffer),
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                _ if buffer.is_empty() => return Ok(Piece::More),
                State::UntilClose | State::Tunnel => return Ok(Piece::Data(buffer.split().freeze())),
                State::Exact(left) => {
                    let data = take_up_to(buffer, left);
                    self.state = match left - data.len() as u64 {
                        0 => State::Done,
                        left => State::Exact(left),
                    };
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let data = take_up_to(buffer, left);
                    self.state = match left - data.len() as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    return Ok(Piece::Data(data));
                }
                State::ChunkSize => match take_line(buffer, MOST_SIZE_LINE)? {
                    None => return Ok(Piece::More),
                    Some(line) => {
                        self.state = match chunk_size(&line)? {
                            0 => State::Trailers,
                            size => State::Chunk(size),
                        };
                    }
                },
                State::ChunkEnd => match buffer.first_chunk::<2>() {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::ChunkSize;
                    }
                    None if buffer[0] == b'\r' => return Ok(Piece::More),
                    _ => return Err("a chunk is longer than its size"),
                },
                State::Trailers => {
                    let Some(section) = take_trailers(buffer, self.forbidden_trailers)? else {
                        return Ok(Piece::More);
                    };
                    self.trailers = section.filter(|trailers| !trailers.is_empty());
                    self.state = State::Done;
                }
            }
        }
    }
}

fn take_up_to(buffer: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(length).freeze()
}

/// A line without its CRLF; a bare LF or CR and an overlong line are errors.
fn take_line(buffer: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, &'static str> {
    let window = &buffer[..buffer.len().min(most)];
    match memchr::memchr2(b'\n', b'\r', window) {
        Some(at) if window[at] == b'\n' => Err("a chunk's size line ends with a bare LF"),
        Some(at) => match window.get(at + 1) {
            Some(b'\n') => {
                let line = buffer.split_to(at);
                buffer.advance(2);
                Ok(Some(line))
            }
            Some(_) => Err("a bare CR in a chunk's size line"),
            None if window.len() == most => Err("a chunk's size line is too long"),
            None => Ok(None),
        },
        None if window.len() == most => Err("a chunk's size line is too long"),
        None => Ok(None),
    }
}

/// `1*HEXDIG` and extensions, which are checked for their shape and otherwise ignored.
fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !(1..=15).contains(&digits) {
        return Err("a chunk's size is no hexadecimal number");
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| "a chunk's size is no hexadecimal number")?;
    let size = u64::from_str_radix(text, 16).map_err(|_| "a chunk's size is no hexadecimal number")?;
    extensions(&line[digits..])?;
    Ok(size)
}

/// `*( ";" name [ "=" ( token / quoted-string ) ] )` without white space (RFC 9112 section 7.1.1).
fn extensions(mut rest: &[u8]) -> Result<(), &'static str> {
    const MALFORMED: &str = "a chunk's extension is malformed";
    while let Some((first, after)) = rest.split_first() {
        if *first != b';' {
            return Err(MALFORMED);
        }
        rest = token(after).ok_or(MALFORMED)?;
        if let Some(value) = rest.strip_prefix(b"=") {
            rest = match value.strip_prefix(b"\"") {
                Some(quoted) => quoted_string(quoted).ok_or(MALFORMED)?,
                None => token(value).ok_or(MALFORMED)?,
            };
        }
    }
    Ok(())
}

/// What follows a token of at least one character.
fn token(text: &[u8]) -> Option<&[u8]> {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let length = text.iter().take_while(|b| is_tchar(b)).count();
    (length > 0).then(|| &text[length..])
}

/// What follows a quoted string whose opening quote is taken already.
fn quoted_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let (first, rest) = text.split_first()?;
        text = match first {
            b'"' => return Some(rest),
            b'\\' => rest.split_first().filter(|(b, _)| !b.is_ascii_control())?.1,
            b'\t' => rest,
            b if b.is_ascii_control() => return None,
            _ => rest,
        };
    }
}

/// The trailer section with its empty line.
fn take_trailers(
    buffer: &mut BytesMut,
    forbidden: Forbidden,
) -> Result<Option<Option<HeaderMap>>, &'static str> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(None));
    }
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        let bare = memchr::memchr_iter(b'\n', buffer).any(|at| at == 0 || buffer[at - 1] != b'\r');
        return match (bare, buffer.len() > MOST_TRAILERS) {
            (true, _) => Err("a bare LF in the trailers"),
            (_, true) => Err("the trailers are too long"),
            _ => Ok(None),
        };
    };
    let section = buffer.split_to(end + 4).freeze();
    if memchr::memchr_iter(b'\n', &section).any(|at| at == 0 || section[at - 1] != b'\r') {
        return Err("a bare LF in the trailers");
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&section, &mut fields) else {
        return Err("the trailers are malformed");
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "the trailers are malformed")?;
        let value = HeaderValue::from_maybe_shared(section.slice_ref(field.value))
            .map_err(|_| "the trailers are malformed")?;
        if crate::http::hop_by_hop::forbidden_in_trailers(&name) {
            match forbidden {
                Forbidden::Refuse => return Err("a field that must not stand in trailers"),
                Forbidden::Drop => continue,
            }
        }
        map.append(name, value);
    }
    Ok(Some(Some(map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the whole text as a chunked body, handed over in pieces of `step` bytes.
    fn chunked(text: &[u8], step: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let mut body = Body::new(BodyLength::Chunked);
        let (mut buffer, mut data) = (BytesMut::new(), Vec::new());
        for part in text.chunks(step) {
            buffer.extend_from_slice(part);
            loop {
                match body.take(&mut buffer)? {
                    Piece::Data(piece) => data.extend_from_slice(&piece),
                    Piece::End => return Ok((data, true)),
                    Piece::More => break,
                }
            }
        }
        Ok((data, false))
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let text = b"5\r\nhello\r\n06;a=b;c=\"d \\\" e\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
        for step in 1..text.len() {
            assert_eq!(chunked(text, step), Ok((b"hello world".to_vec(), true)), "step {step}");
        }
    }

    #[test]
    fn trailers_are_kept() {
        let mut body = Body::new(BodyLength::Chunked);
        let mut buffer = BytesMut::from(&b"0\r\nX-Sum: 1\r\n\r\nnext"[..]);
        assert_eq!(body.take(&mut buffer), Ok(Piece::End));
        assert_eq!(body.take_trailers().unwrap()["x-sum"], "1");
        assert_eq!(&buffer[..], b"next");
    }

    #[test]
    fn what_another_parser_could_read_otherwise_is_refused() {
        for wrong in [
            &b"+5\r\nhello\r\n"[..],
            b"5 \r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5_\r\nhello\r\n",
            b"\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhellox\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5;\r\nhello\r\n",
            b"5;a=\r\nhello\r\n",
            b"5;a b\r\nhello\r\n",
            b"5;a=\"b\nc\"\r\nhello\r\n",
            b"5\rX\nhello\r\n",
            b"ffffffffffffffffff\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nA b\r\n\r\n",
        ] {
            for step in [1, 3, wrong.len()] {
                assert!(chunked(wrong, step).is_err(), "{:?} step {step}", String::from_utf8_lossy(wrong));
            }
        }
        let endless = [b"5;", &[b'a'; 300][..]].concat();
        assert!(chunked(&endless, endless.len()).is_err());
        let endless = [b"0\r\n", &b"A: b\r\n".repeat(2000)[..]].concat();
        assert!(chunked(&endless, endless.len()).is_err());
    }

    #[test]
    fn an_exact_body_ends_where_it_says() {
        let mut body = Body::new(BodyLength::Exact(3));
        let mut buffer = BytesMut::from(&b"abcd"[..]);
        assert_eq!(body.take(&mut buffer), Ok(Piece::Data(Bytes::from_static(b"abc"))));
        assert_eq!(body.take(&mut buffer), Ok(Piece::End));
        assert_eq!(&buffer[..], b"d");
    }
}

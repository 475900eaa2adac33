//! Reading HTTP/1.1 messages as a patient, exact peer does.

use std::io::{self, Read};

/// The head of a message and what followed it.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Every byte, as received.
    pub raw: Vec<u8>,
}

/// A response with its status.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub message: Message,
}

/// How a body ends where neither its length nor chunks say so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unframed {
    /// There is none: a request, or an answer to HEAD.
    Empty,
    /// At the connection's end: a response.
    UntilClose,
}

impl Message {
    /// Every value of a field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "{name} stands {} times: {values:?}", values.len());
        values.first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn head(reader: &mut impl Read) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        let Some(start) = line(reader, &mut raw)? else { return Ok(None) };
        let fields = fields(reader, &mut raw)?;
        Ok(Some(Self { start, fields, raw, ..Self::default() }))
    }

    fn body(&mut self, reader: &mut impl Read, unframed: Unframed) -> io::Result<()> {
        if self.values("transfer-encoding").iter().any(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.chunks(reader);
        }
        match self.values("content-length").first() {
            Some(length) => {
                let length = length.parse().map_err(|_| wrong("a content-length that is no number"))?;
                self.exactly(reader, length)
            }
            None if unframed == Unframed::UntilClose => {
                reader.read_to_end(&mut self.body)?;
                self.raw.extend(&self.body);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn chunks(&mut self, reader: &mut impl Read) -> io::Result<()> {
        loop {
            let size = line(reader, &mut self.raw)?.ok_or_else(|| wrong("no chunk size"))?;
            let digits = size.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(|_| wrong("a bad chunk size"))?;
            if size == 0 {
                self.trailers = fields(reader, &mut self.raw)?;
                return Ok(());
            }
            self.exactly(reader, size)?;
            let end = line(reader, &mut self.raw)?;
            if end.as_deref() != Some("") {
                return Err(wrong("a chunk without its end"));
            }
        }
    }

    fn exactly(&mut self, reader: &mut impl Read, length: usize) -> io::Result<()> {
        let mut piece = vec![0; length];
        reader.read_exact(&mut piece)?;
        self.raw.extend(&piece);
        self.body.extend(piece);
        Ok(())
    }
}

/// The next request, or none at the connection's end.
pub fn request(reader: &mut impl Read) -> io::Result<Option<Message>> {
    let Some(mut message) = Message::head(reader)? else { return Ok(None) };
    message.body(reader, Unframed::Empty)?;
    Ok(Some(message))
}

/// The next request's head alone.
pub fn request_head(reader: &mut impl Read) -> io::Result<Option<Message>> {
    Message::head(reader)
}

/// The next response; to `method`, for HEAD has no body.
pub fn response(reader: &mut impl Read, method: &str) -> io::Result<Response> {
    let mut response = response_head(reader)?;
    let bodiless = method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304);
    if !bodiless {
        response.message.body(reader, Unframed::UntilClose)?;
    }
    Ok(response)
}

/// The next response's head alone.
pub fn response_head(reader: &mut impl Read) -> io::Result<Response> {
    let message = Message::head(reader)?.ok_or_else(|| wrong("closed before a response"))?;
    let status = message.start.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| wrong(&format!("no status in {:?}", message.start)))?;
    Ok(Response { status, message })
}

fn fields(reader: &mut impl Read, raw: &mut Vec<u8>) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader, raw)?.ok_or_else(|| wrong("closed within a head"))?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a field without a colon"))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its CRLF; none at the end of what there is.
fn line(reader: &mut impl Read, raw: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        match reader.read(&mut byte)? {
            0 if line.is_empty() => return Ok(None),
            0 => return Err(wrong("closed within a line")),
            _ => line.push(byte[0]),
        }
    }
    raw.extend(&line);
    line.truncate(line.len() - 2);
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl std::ops::Deref for Response {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

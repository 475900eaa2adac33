//! Tells HTTP/2 by prior knowledge from HTTP/1 on a cleartext connection (RFC 9113 section 3.3), by no
//! more bytes than it takes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a connection's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The whole HTTP/2 preface.
    Http2,
    /// Something else, or the end.
    Other,
}

/// What every HTTP/2 connection starts with (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at once: what is no preface is mostly a whole request.
const READ: usize = 4096;

/// Waits for the first bytes, into `buffer`.
pub(super) async fn first_bytes(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(READ);
    io.read_buf(buffer).await.map(drop)
}

/// Reads on while the bytes could still become the preface.
pub(super) async fn decide(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<First> {
    loop {
        let known = buffer.len().min(PREFACE.len());
        if buffer[..known] != PREFACE[..known] {
            return Ok(First::Other);
        }
        if known == PREFACE.len() {
            return Ok(First::Http2);
        }
        if io.read_buf(buffer).await? == 0 {
            return Ok(First::Other);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_preface_is_told_byte_by_byte() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let told = tokio::spawn(async move {
            let mut buffer = BytesMut::new();
            let first = decide(&mut server, &mut buffer).await.unwrap();
            (first, buffer)
        });
        for byte in PREFACE {
            client.write_all(&[*byte]).await.unwrap();
        }
        let (first, buffer) = told.await.unwrap();
        assert_eq!((first, &buffer[..]), (First::Http2, &PREFACE[..]));
    }

    #[tokio::test]
    async fn the_first_other_byte_decides() {
        for text in ["G", "PU", "PROPFIND", "PRI * HTTP/1"] {
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(text.as_bytes()).await.unwrap();
            let mut buffer = BytesMut::new();
            assert_eq!(decide(&mut server, &mut buffer).await.unwrap(), First::Other, "{text}");
            assert_eq!(buffer, text.as_bytes());
        }
    }
}

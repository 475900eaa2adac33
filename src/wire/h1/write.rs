//! Writes the parts of HTTP/1 messages that requests and responses share: fields, chunks, trailers.

use bytes::{BufMut, BytesMut};
use http::HeaderMap;

/// Writes a field line. Names get upper-case initials, as in `Content-Type`; the case has no meaning.
pub fn write_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    if let Some(first) = out.get_mut(start) {
        first.make_ascii_uppercase();
    }
    for dash in memchr::memchr_iter(b'-', name.as_bytes()) {
        if let Some(next) = out.get_mut(start + dash + 1) {
            next.make_ascii_uppercase();
        }
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk with the trailers.
pub fn write_trailers(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    trailers.iter().for_each(|(name, value)| write_field(out, name.as_str(), value.as_bytes()));
    out.put_slice(b"\r\n");
}

/// Writes a chunk's size line.
pub fn write_chunk_size(out: &mut BytesMut, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.reserve(20);
    (0..digits).rev().for_each(|digit| out.put_u8(HEX[(size >> (digit * 4)) & 15]));
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (size, text) in [(0, "0\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65536, "10000\r\n")] {
            let mut out = BytesMut::new();
            write_chunk_size(&mut out, size);
            assert_eq!(&out[..], text.as_bytes());
        }
    }
}

//! Writes the parts of HTTP/1 messages that requests and responses share: fields, chunks, trailers.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, header};

/// Writes a field line. Names get upper-case initials, as in `Content-Type`; the case has no meaning.
pub fn write_field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.reserve(name.as_str().len() + value.len() + 4);
    match usual(name) {
        Some(line) => out.extend_from_slice(line),
        None => write_name(out, name.as_str()),
    }
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_name(out: &mut BytesMut, name: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let mut is_initial = true;
    for byte in &mut out[start..] {
        if is_initial {
            byte.make_ascii_uppercase();
        }
        is_initial = *byte == b'-';
    }
    out.extend_from_slice(b": ");
}

/// The names that most messages have, as they are written.
fn usual(name: &HeaderName) -> Option<&'static [u8]> {
    Some(match *name {
        header::ACCEPT => b"Accept: ",
        header::ACCEPT_ENCODING => b"Accept-Encoding: ",
        header::ACCEPT_LANGUAGE => b"Accept-Language: ",
        header::ACCEPT_RANGES => b"Accept-Ranges: ",
        header::AGE => b"Age: ",
        header::ALT_SVC => b"Alt-Svc: ",
        header::AUTHORIZATION => b"Authorization: ",
        header::CACHE_CONTROL => b"Cache-Control: ",
        header::CONTENT_ENCODING => b"Content-Encoding: ",
        header::CONTENT_LENGTH => b"Content-Length: ",
        header::CONTENT_SECURITY_POLICY => b"Content-Security-Policy: ",
        header::CONTENT_TYPE => b"Content-Type: ",
        header::COOKIE => b"Cookie: ",
        header::DATE => b"Date: ",
        header::ETAG => b"Etag: ",
        header::EXPIRES => b"Expires: ",
        header::IF_MODIFIED_SINCE => b"If-Modified-Since: ",
        header::IF_NONE_MATCH => b"If-None-Match: ",
        header::LAST_MODIFIED => b"Last-Modified: ",
        header::LOCATION => b"Location: ",
        header::ORIGIN => b"Origin: ",
        header::RANGE => b"Range: ",
        header::REFERER => b"Referer: ",
        header::REFERRER_POLICY => b"Referrer-Policy: ",
        header::SERVER => b"Server: ",
        header::SET_COOKIE => b"Set-Cookie: ",
        header::STRICT_TRANSPORT_SECURITY => b"Strict-Transport-Security: ",
        header::USER_AGENT => b"User-Agent: ",
        header::VARY => b"Vary: ",
        header::VIA => b"Via: ",
        header::X_CONTENT_TYPE_OPTIONS => b"X-Content-Type-Options: ",
        header::X_FRAME_OPTIONS => b"X-Frame-Options: ",
        _ => return usual_of_proxies(name.as_str()),
    })
}

/// The same of fields that a proxy adds: the library has no constants for these.
fn usual_of_proxies(name: &str) -> Option<&'static [u8]> {
    Some(match name {
        "x-request-id" => b"X-Request-Id: ",
        "x-forwarded-for" => b"X-Forwarded-For: ",
        "x-forwarded-host" => b"X-Forwarded-Host: ",
        "x-forwarded-proto" => b"X-Forwarded-Proto: ",
        _ => return None,
    })
}

/// Writes the last chunk with the trailers.
pub fn write_trailers(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    trailers.iter().for_each(|(name, value)| write_field(out, name, value.as_bytes()));
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
    fn names_are_written_alike_whether_they_are_usual_or_not() {
        let written = |name: &HeaderName| {
            let mut out = BytesMut::new();
            write_field(&mut out, name, b"v");
            String::from_utf8(out.to_vec()).unwrap()
        };
        let rare: HeaderName = "x-a-b".parse().unwrap();
        assert_eq!(written(&rare), "X-A-B: v\r\n");
        let all = [header::ACCEPT, header::ETAG, header::X_FRAME_OPTIONS, header::SET_COOKIE, header::AGE];
        let of_proxies = ["x-request-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        for name in all.into_iter().chain(of_proxies.map(HeaderName::from_static)) {
            let mut slowly = BytesMut::new();
            write_name(&mut slowly, name.as_str());
            assert_eq!(usual(&name), Some(&slowly[..]), "{name}");
        }
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (size, text) in [(0, "0\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65536, "10000\r\n")] {
            let mut out = BytesMut::new();
            write_chunk_size(&mut out, size);
            assert_eq!(&out[..], text.as_bytes());
        }
    }
}

//! A line as one JSON object. Keys that have no value are left out. Written by hand into a buffer that is
//! used again: a serializer's cost would be paid by every request.

use http::Method;

use super::{put, record::Record};
use crate::{error::Reason, value::Name};

/// Writes a key and the beginning of its value. Both are known here, so that the copy is a few moves.
macro_rules! begin {
    ($line:ident, $name:literal, $value:literal) => {
        $line.extend_from_slice(concat!(",\"", $name, "\":", $value).as_bytes())
    };
}

/// A text, where there is one, whose bytes are written by `$put`.
macro_rules! text {
    ($put:ident, $line:ident, $name:literal, $value:expr) => {
        if let Some(value) = $value {
            begin!($line, $name, "\"");
            $put($line, value.as_ref());
            $line.push(b'"');
        }
    };
}

macro_rules! milliseconds {
    ($line:ident, $name:literal, $value:expr) => {
        if let Some(value) = $value {
            begin!($line, $name, "");
            put::milliseconds($line, value);
        }
    };
}

macro_rules! number {
    ($line:ident, $name:literal, $value:expr) => {
        begin!($line, $name, "");
        put::number($line, $value);
    };
}

pub(super) fn write(line: &mut Vec<u8>, record: &Record<'_>) {
    line.extend_from_slice(b"{\"time\":\"");
    put::time(line, record.time);
    line.push(b'"');
    text!(word, line, "request_id", record.request_id);
    if let Some(id) = record.trace_id {
        begin!(line, "trace_id", "\"");
        put::text(line, format_args!("{id}\""));
    }
    begin!(line, "client_ip", "\"");
    put::ip(line, record.client_ip);
    line.push(b'"');
    text!(foreign, line, "user", record.user);
    text!(word, line, "method", record.method.map(Method::as_str));
    text!(word, line, "scheme", Some(record.scheme));
    text!(foreign, line, "authority", record.authority);
    let (path, query) = record.path_and_query();
    text!(foreign, line, "path", path);
    text!(foreign, line, "query", query);
    text!(word, line, "protocol", record.protocol);
    number!(line, "status", record.status.into());
    number!(line, "received", record.received);
    number!(line, "sent", record.sent);
    milliseconds!(line, "duration_ms", Some(record.duration));
    milliseconds!(line, "first_byte_ms", record.first_byte);
    milliseconds!(line, "connect_ms", record.connect);
    milliseconds!(line, "queued_ms", record.queued);
    text!(word, line, "listener", Some(record.listener.as_str()));
    text!(word, line, "host", record.host.map(Name::as_str));
    text!(word, line, "tenant", record.tenant.map(Name::as_str));
    text!(word, line, "route", record.route.map(Name::as_str));
    text!(word, line, "upstream", record.upstream.map(Name::as_str));
    text!(word, line, "split", record.split.map(Name::as_str));
    text!(foreign, line, "endpoint", record.endpoint);
    if record.attempts > 0 {
        number!(line, "attempts", record.attempts.into());
    }
    if record.hedges > 0 {
        number!(line, "hedges", record.hedges.into());
    }
    text!(word, line, "circuit", record.circuit);
    text!(word, line, "sticky", record.sticky);
    text!(word, line, "reason", record.reason);
    text!(foreign, line, "cause", record.cause);
    if !record.observed.is_empty() {
        begin!(line, "observed", "[");
        codes(line, record.observed);
        line.push(b']');
    }
    text!(foreign, line, "referer", record.referer);
    text!(foreign, line, "user_agent", record.user_agent);
    text!(word, line, "tls_version", record.tls_version);
    line.push(b'}');
}

/// A word of Portolan's own or of a protocol, which needs no escape: names, methods, codes, request ids.
fn word(line: &mut Vec<u8>, value: &str) {
    line.extend_from_slice(value.as_bytes());
}

/// What comes from elsewhere.
fn foreign(line: &mut Vec<u8>, value: &[u8]) {
    match is_plain(value) {
        true => line.extend_from_slice(value),
        false => escaped(line, value),
    }
}

fn codes(line: &mut Vec<u8>, reasons: &[Reason]) {
    for (n, reason) in reasons.iter().enumerate() {
        line.extend_from_slice(if n == 0 { b"\"" } else { b",\"" });
        line.extend_from_slice(reason.code().as_bytes());
        line.push(b'"');
    }
}

/// Whether it is text that needs no escape, as nearly all is: eight bytes at a time.
fn is_plain(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    words.iter().all(|word| are_plain(u64::from_ne_bytes(*word)))
        && match value.last_chunk::<8>() {
            Some(last) if !rest.is_empty() => are_plain(u64::from_ne_bytes(*last)),
            _ => rest.iter().all(|byte| !needs_escape(*byte) && byte.is_ascii()),
        }
}

/// Whether each byte is from 0x20 to 0x7e, and neither a quote nor a backslash.
fn are_plain(bytes: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = EACH << 7;
    // The highest bit of a byte is set where it is below `bound`, or is what `other` is: for bytes below 0x80 without error.
    let below = |bytes: u64, bound: u64| bytes.wrapping_sub(EACH * bound) & !bytes;
    let is = |other: u8| below(bytes ^ (EACH * u64::from(other)), 1);
    (bytes | bytes.wrapping_add(EACH) | below(bytes, 0x20) | is(b'"') | is(b'\\')) & TOP == 0
}

/// The value as the inside of a JSON string (RFC 8259 section 7); what is no UTF-8 becomes U+FFFD.
fn escaped(line: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        escaped_text(line, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escaped_text(line: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = text.iter().position(|byte| needs_escape(*byte)) {
        line.extend_from_slice(&text[..at]);
        match text[at] {
            byte @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
            byte => put::text(line, format_args!("\\u{byte:04x}")),
        }
        text = &text[at + 1..];
    }
    line.extend_from_slice(text);
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn parsed(record: &Record<'_>) -> Value {
        let mut line = Vec::new();
        write(&mut line, record);
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&line)))
    }

    #[test]
    fn a_line_says_all_there_is_and_nothing_else() {
        let line = parsed(&Record::for_tests());
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.123Z", "request_id": "id-1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "client_ip": "192.0.2.1",
            "method": "GET", "scheme": "https", "authority": "www.example.com", "path": "/a/b", "query": "c=d",
            "protocol": "HTTP/1.1", "status": 200, "received": 0, "sent": 5, "duration_ms": 1234.567,
            "first_byte_ms": 0.9, "listener": "web", "host": "www", "route": "all", "upstream": "origin",
            "endpoint": "10.0.0.1:80", "attempts": 1, "user_agent": "curl/8", "tls_version": "TLSv1.3",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_request_that_could_not_be_read_has_a_line_too() {
        let unread =
            Record { method: None, authority: None, target: None, protocol: None, ..Record::for_tests() };
        let line = parsed(&unread);
        for key in ["method", "authority", "path", "query", "protocol"] {
            assert_eq!(line.get(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_read_back(
            target in prop::collection::vec(any::<u8>(), 0..60),
            agent in prop::collection::vec(any::<u8>(), 0..60),
            name in ".{0,20}",
            micros in 0u64..10_000_000_000,
        ) {
            let record = Record {
                target: Some(&target),
                user_agent: Some(&agent),
                endpoint: Some(&name),
                duration: Duration::from_micros(micros),
                ..Record::for_tests()
            };
            let line = parsed(&record);
            let (path, query) = record.path_and_query();
            prop_assert_eq!(&line["path"], &*String::from_utf8_lossy(path.unwrap()));
            match query {
                Some(query) => prop_assert_eq!(&line["query"], &*String::from_utf8_lossy(query)),
                None => prop_assert!(line.get("query").is_none()),
            }
            prop_assert_eq!(&line["user_agent"], &*String::from_utf8_lossy(&agent));
            prop_assert_eq!(&line["endpoint"], &name);
            let duration = line["duration_ms"].as_f64().unwrap();
            prop_assert!((duration - micros as f64 / 1000.0).abs() < 0.0005);
        }
    }
}

//! A line as one JSON object. Keys that have no value are left out. Written by hand into a buffer that is
//! used again: a serializer's cost would be paid by every request.

use std::time::Duration;

use super::{put, record::Record};
use crate::error::Reason;

/// `,"name":`, of which no part need be put together.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

pub(super) fn write(line: &mut Vec<u8>, record: &Record<'_>) {
    line.extend_from_slice(b"{\"time\":\"");
    put::time(line, record.time);
    line.push(b'"');
    text(line, key!("request_id"), record.request_id);
    if let Some(id) = record.trace_id {
        line.extend_from_slice(key!("trace_id"));
        put::text(line, format_args!("\"{id}\""));
    }
    line.extend_from_slice(key!("client_ip"));
    line.push(b'"');
    put::ip(line, record.client_ip);
    line.push(b'"');
    text(line, key!("method"), record.method);
    text(line, key!("scheme"), Some(record.scheme));
    bytes(line, key!("authority"), record.authority);
    let (path, query) = record.path_and_query();
    bytes(line, key!("path"), path);
    bytes(line, key!("query"), query);
    text(line, key!("protocol"), record.protocol);
    number(line, key!("status"), record.status.into());
    number(line, key!("received"), record.received);
    number(line, key!("sent"), record.sent);
    milliseconds(line, key!("duration_ms"), Some(record.duration));
    milliseconds(line, key!("first_byte_ms"), record.first_byte);
    milliseconds(line, key!("connect_ms"), record.connect);
    text(line, key!("listener"), Some(record.listener));
    text(line, key!("host"), record.host);
    text(line, key!("tenant"), record.tenant);
    text(line, key!("route"), record.route);
    text(line, key!("upstream"), record.upstream);
    text(line, key!("endpoint"), record.endpoint);
    if record.attempts > 0 {
        number(line, key!("attempts"), record.attempts.into());
    }
    text(line, key!("circuit"), record.circuit);
    text(line, key!("reason"), record.reason);
    text(line, key!("cause"), record.cause);
    codes(line, key!("observed"), record.observed);
    bytes(line, key!("referer"), record.referer);
    bytes(line, key!("user_agent"), record.user_agent);
    text(line, key!("tls_version"), record.tls_version);
    line.push(b'}');
}

fn text(line: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    bytes(line, key, value.map(str::as_bytes));
}

fn bytes(line: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        line.extend_from_slice(key);
        line.push(b'"');
        match value.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
            true => line.extend_from_slice(value),
            false => escaped(line, value),
        }
        line.push(b'"');
    }
}

fn codes(line: &mut Vec<u8>, key: &[u8], reasons: &[Reason]) {
    for (n, reason) in reasons.iter().enumerate() {
        match n {
            0 => {
                line.extend_from_slice(key);
                line.extend_from_slice(b"[\"");
            }
            _ => line.extend_from_slice(b",\""),
        }
        line.extend_from_slice(reason.code().as_bytes());
        line.push(b'"');
    }
    if !reasons.is_empty() {
        line.push(b']');
    }
}

fn number(line: &mut Vec<u8>, key: &[u8], value: u64) {
    line.extend_from_slice(key);
    put::number(line, value);
}

fn milliseconds(line: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    if let Some(value) = value {
        line.extend_from_slice(key);
        put::milliseconds(line, value);
    }
}

/// Whether the byte is text that needs no escape. Nearly all bytes are; the loop over them does not branch.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
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
                route: Some(&name),
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
            prop_assert_eq!(&line["route"], &name);
            prop_assert_eq!(&line["endpoint"], &name);
            let duration = line["duration_ms"].as_f64().unwrap();
            prop_assert!((duration - micros as f64 / 1000.0).abs() < 0.0005);
        }
    }
}

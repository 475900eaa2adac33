//! A line as one JSON object. Keys that have no value are left out. Written by hand into a buffer that is
//! used again: a serializer's cost would be paid by every request.

use std::time::Duration;

use super::{put, record::Record};
use crate::{error::Reason, value::Timestamp};

pub(super) fn write(line: &mut Vec<u8>, record: &Record<'_>) {
    put(line, format_args!("{{\"time\":\"{}\"", Timestamp(record.time)));
    text(line, "request_id", record.request_id);
    if let Some(id) = record.trace_id {
        shown(line, "trace_id", id);
    }
    shown(line, "client_ip", &record.client_ip);
    text(line, "method", Some(record.method).filter(|method| !method.is_empty()));
    text(line, "scheme", Some(record.scheme));
    bytes(line, "authority", record.authority);
    let (path, query) = record.path_and_query();
    bytes(line, "path", Some(path));
    bytes(line, "query", query);
    text(line, "protocol", Some(record.protocol));
    number(line, "status", record.status.into());
    number(line, "received", record.received);
    number(line, "sent", record.sent);
    milliseconds(line, "duration_ms", Some(record.duration));
    milliseconds(line, "first_byte_ms", record.first_byte);
    milliseconds(line, "connect_ms", record.connect);
    text(line, "listener", Some(record.listener));
    text(line, "host", record.host);
    text(line, "tenant", record.tenant);
    text(line, "route", record.route);
    text(line, "upstream", record.upstream);
    if let Some(endpoint) = record.endpoint {
        shown(line, "endpoint", endpoint);
    }
    if record.attempts > 0 {
        number(line, "attempts", record.attempts.into());
    }
    text(line, "reason", record.reason);
    text(line, "cause", record.cause);
    codes(line, "observed", record.observed);
    bytes(line, "referer", record.referer);
    bytes(line, "user_agent", record.user_agent);
    text(line, "tls_version", record.tls_version);
    line.push(b'}');
}

fn key(line: &mut Vec<u8>, key: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(b"\":");
}

fn text(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    bytes(line, name, value.map(str::as_bytes));
}

fn bytes(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        key(line, name);
        line.push(b'"');
        escaped(line, value);
        line.push(b'"');
    }
}

/// Something whose text needs no escapes: an address, a unix socket's path excepted.
fn shown(line: &mut Vec<u8>, name: &str, value: &dyn std::fmt::Display) {
    key(line, name);
    line.push(b'"');
    let start = line.len();
    put(line, format_args!("{value}"));
    if line[start..].iter().any(|byte| needs_escape(*byte) || !byte.is_ascii()) {
        let plain = line.split_off(start);
        escaped(line, &plain);
    }
    line.push(b'"');
}

fn codes(line: &mut Vec<u8>, name: &str, reasons: &[Reason]) {
    for (n, reason) in reasons.iter().enumerate() {
        match n {
            0 => {
                key(line, name);
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

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    key(line, name);
    put(line, format_args!("{value}"));
}

fn milliseconds(line: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    if let Some(value) = value {
        key(line, name);
        super::milliseconds(line, value);
    }
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
            byte => put(line, format_args!("\\u{byte:04x}")),
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
        let record = Record { method: "", authority: None, target: b"", ..Record::for_tests() };
        let line = parsed(&record);
        assert_eq!(line.get("method"), None);
        assert_eq!(line["path"], "");
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
                target: &target,
                user_agent: Some(&agent),
                route: Some(&name),
                endpoint: Some(&name),
                duration: Duration::from_micros(micros),
                ..Record::for_tests()
            };
            let line = parsed(&record);
            let (path, query) = record.path_and_query();
            prop_assert_eq!(&line["path"], &*String::from_utf8_lossy(path));
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

//! A line in Apache's combined format.

use std::time::SystemTime;

use super::{escaped, put, record::Record};

pub(super) fn write(line: &mut Vec<u8>, record: &Record<'_>) {
    put::ip(line, record.client_ip);
    line.extend_from_slice(b" - ");
    escaped(line, record.user.unwrap_or(b"-"));
    line.extend_from_slice(b" [");
    time(line, record.time);
    line.extend_from_slice(b"] \"");
    match record.method {
        None => line.push(b'-'),
        Some(method) => {
            escaped(line, method.as_str().as_bytes());
            line.push(b' ');
            escaped(line, record.target.unwrap_or(b"-"));
            line.push(b' ');
            escaped(line, record.protocol.unwrap_or("-").as_bytes());
        }
    }
    line.extend_from_slice(b"\" ");
    put::number(line, record.status.into());
    line.push(b' ');
    match record.sent {
        0 => line.push(b'-'),
        sent => put::number(line, sent),
    }
    for field in [record.referer, record.user_agent] {
        line.extend_from_slice(b" \"");
        escaped(line, field.unwrap_or(b"-"));
        line.push(b'"');
    }
}

/// `14/Nov/2023:22:13:20 +0000`, of HTTP's `Tue, 14 Nov 2023 22:13:20 GMT`.
fn time(line: &mut Vec<u8>, time: SystemTime) {
    let date = httpdate::fmt_http_date(time);
    let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
    put::text(line, format_args!("{day}/{month}/{year}:{time} +0000"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &Record<'_>) -> String {
        let mut line = Vec::new();
        write(&mut line, record);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_as_apache_writes_it() {
        let record = Record { referer: Some(b"http://b/"), ..Record::for_tests() };
        let expected = r#"192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a/b?c=d HTTP/1.1" 200 5 "http://b/" "curl/8""#;
        assert_eq!(text(&record), expected);
    }

    #[test]
    fn what_is_missing_is_a_dash_and_quotes_cannot_be_closed() {
        let record =
            Record { method: None, sent: 0, user_agent: Some(b"a\"b\\c\n\xff"), ..Record::for_tests() };
        let expected = r#"192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "-" 200 - "-" "a\"b\\c\x0a\xff""#;
        assert_eq!(text(&record), expected);
    }
}

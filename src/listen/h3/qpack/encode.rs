//! Writing field sections (RFC 9204 section 4.5): references to the static table, and strings as they are.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    integer,
    table::{self, Match},
};

/// Begins a section, which refers to nothing but the static table.
fn prefix(out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
}

/// Begins the section of a response.
pub fn status(status: StatusCode, out: &mut BytesMut) {
    prefix(out);
    line(":status", status.as_str().as_bytes(), false, out);
}

/// Begins the section of trailers.
pub fn trailers(out: &mut BytesMut) {
    prefix(out);
}

/// Writes a field.
pub fn field(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    line(name.as_str(), value.as_bytes(), value.is_sensitive(), out);
}

/// `secret`: nobody on the way may put it into a table (RFC 9204 section 7.1.3).
fn line(name: &str, value: &[u8], secret: bool, out: &mut BytesMut) {
    let never = |bit: u8| if secret { bit } else { 0 };
    match table::find(name, value) {
        Match::Whole(index) if !secret => return integer::put(0xc0, 6, index, out),
        Match::Whole(index) | Match::Name(index) => integer::put(0x50 | never(0x20), 4, index, out),
        Match::Nothing => {
            integer::put(0x20 | never(0x10), 3, name.len(), out);
            out.put_slice(name.as_bytes());
        }
    }
    integer::put(0, 7, value.len(), out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::{super::Fields, *};

    #[test]
    fn what_is_written_is_read() {
        let mut section = BytesMut::new();
        status(StatusCode::OK, &mut section);
        let long = "x".repeat(300);
        let mut secret = HeaderValue::from_static("a=b");
        secret.set_sensitive(true);
        let fields = [
            ("content-type", HeaderValue::from_static("text/html; charset=utf-8")),
            ("content-type", HeaderValue::from_static("text/x")),
            ("x-long-name-of-its-own", HeaderValue::from_str(&long).unwrap()),
            ("set-cookie", secret),
            ("empty", HeaderValue::from_static("")),
        ];
        for (name, value) in &fields {
            field(&HeaderName::from_static(name), value, &mut section);
        }
        let read: Vec<_> = Fields::new(section.freeze(), 10_000).map(Result::unwrap).collect();
        assert_eq!((&read[0].name[..], &read[0].value[..]), (&b":status"[..], &b"200"[..]));
        for (read, (name, value)) in read[1..].iter().zip(&fields) {
            assert_eq!((&read.name[..], &read.value[..]), (name.as_bytes(), value.as_bytes()));
        }
        assert_eq!(read.len(), 6);
    }

    #[test]
    fn what_the_table_has_takes_a_byte_or_two() {
        let mut section = BytesMut::new();
        status(StatusCode::OK, &mut section);
        assert_eq!(section[..], [0, 0, 0xd9]);
    }
}

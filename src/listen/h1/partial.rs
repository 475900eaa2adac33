//! Checks the bytes of a head that is not whole yet: a head that cannot become a request any more is rejected at once, not
//! when its deadline passes.

use crate::{error::Reason, http::token::is_tchar, listen::head::MOST_METHOD};

/// How far the head was checked, and which part of it comes next.
#[derive(Debug, Default)]
pub struct Partial {
    checked: usize,
    place: Place,
    /// Bytes of the part at hand: of the method, the target or the version.
    length: usize,
}

/// The parts of a head (RFC 9112 sections 2.1 to 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// An empty line may stand before the request (section 2.2).
    #[default]
    Start,
    EmptyLine,
    Method,
    Target,
    Version,
    /// Behind the carriage return of a line.
    LineEnd,
    FieldStart,
    FieldName,
    FieldValue,
    HeadEnd,
    Whole,
}

/// `HTTP-version` (section 2.3), where 0 stands for any digit.
const VERSION: &[u8] = b"HTTP/0.0";

impl Partial {
    /// Checks what has come since the last check. `most_target`: the longest target that is allowed.
    pub fn check(&mut self, buffer: &[u8], most_target: usize) -> Result<(), Reason> {
        for byte in &buffer[self.checked.min(buffer.len())..] {
            self.place = self.next(*byte, most_target)?;
        }
        self.checked = buffer.len();
        Ok(())
    }

    fn next(&mut self, byte: u8, most_target: usize) -> Result<Place, Reason> {
        match (self.place, byte) {
            (Place::Start, b'\r') => Ok(Place::EmptyLine),
            (Place::EmptyLine, b'\n') => Ok(Place::Method),
            (Place::Start | Place::Method, byte) if is_tchar(byte) => {
                self.longer(MOST_METHOD, Reason::MethodTooLong).map(|()| Place::Method)
            }
            (Place::Method, b' ') if self.length > 0 => self.enter(Place::Target),
            (Place::Target, b' ') if self.length > 0 => self.enter(Place::Version),
            (Place::Target, byte) if byte.is_ascii_graphic() => {
                self.longer(most_target, Reason::UriTooLong).map(|()| Place::Target)
            }
            (Place::Version, b'\r') if self.length == VERSION.len() => Ok(Place::LineEnd),
            (Place::Version, byte) if self.is_of_version(byte) => {
                self.length += 1;
                Ok(Place::Version)
            }
            (Place::LineEnd, b'\n') => Ok(Place::FieldStart),
            (Place::FieldStart, b'\r') => Ok(Place::HeadEnd),
            (Place::FieldStart | Place::FieldName, byte) if is_tchar(byte) => Ok(Place::FieldName),
            (Place::FieldName, b':') => Ok(Place::FieldValue),
            (Place::FieldValue, b'\r') => Ok(Place::LineEnd),
            (Place::FieldValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(Place::FieldValue),
            (Place::HeadEnd, b'\n') | (Place::Whole, _) => Ok(Place::Whole),
            _ => Err(Reason::MalformedRequest),
        }
    }

    fn enter(&mut self, place: Place) -> Result<Place, Reason> {
        self.length = 0;
        Ok(place)
    }

    fn longer(&mut self, most: usize, reason: Reason) -> Result<(), Reason> {
        self.length += 1;
        if self.length > most { Err(reason) } else { Ok(()) }
    }

    fn is_of_version(&self, byte: u8) -> bool {
        match VERSION.get(self.length) {
            Some(b'0') => byte.is_ascii_digit(),
            expected => expected == Some(&byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_TARGET: usize = 256;

    fn checked(text: &[u8], piece: usize) -> Result<(), Reason> {
        let mut partial = Partial::default();
        let ends = (0..text.len()).step_by(piece.max(1)).skip(1).chain([text.len()]);
        ends.into_iter().try_for_each(|end| partial.check(&text[..end], MOST_TARGET))
    }

    #[test]
    fn every_beginning_of_a_sound_head_passes() {
        for head in [
            &b"GET /a?b=\"{}\" HTTP/1.1\r\nHost: a\r\nX-"[..],
            b"\r\nPOST * HTTP/9.9\r\nA:\r\nB: \t\xe4 \r\n\r\nrest \x00",
            b"!#$%&'*+-.^_`|~9 http://a/ HTTP/1.0\r\n",
        ] {
            for piece in 1..=head.len() {
                assert_eq!(checked(head, piece), Ok(()), "{:?}", String::from_utf8_lossy(head));
            }
        }
    }

    #[test]
    fn what_cannot_become_a_head_is_rejected_at_its_first_wrong_byte() {
        for (good, wrong) in [
            (&b"GET / HTTP/1.1\r"[..], b'X'),
            (b"GET", 0),
            (b"", 0x16),
            (b"", b' '),
            (b"\r", b'G'),
            (b"\r\n", b'\r'),
            (b"G", b'\x01'),
            (b"GET ", b' '),
            (b"GET /", b'\t'),
            (b"GET /", 0x7f),
            (b"GET /", 0xc3),
            (b"GET /", b'\r'),
            (b"GET / ", b'h'),
            (b"GET / HTTP/", b'x'),
            (b"GET / HTTP/1.1", b' '),
            (b"GET / HTTP/1.1\r\n", b' '),
            (b"GET / HTTP/1.1\r\n", b':'),
            (b"GET / HTTP/1.1\r\nA", b' '),
            (b"GET / HTTP/1.1\r\nA", b'\r'),
            (b"GET / HTTP/1.1\r\nA: b", 0),
            (b"GET / HTTP/1.1\r\nA: b\r", b'c'),
            (b"GET / HTTP/1.1\r\nA: b\r\n\r", b'c'),
        ] {
            let text = [good, &[wrong]].concat();
            assert_eq!(checked(good, 1), Ok(()), "{:?}", good.escape_ascii().to_string());
            assert_eq!(
                checked(&text, text.len()),
                Err(Reason::MalformedRequest),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_long_method_and_a_long_target_have_their_own_answers() {
        assert_eq!(checked(&[b'A'; MOST_METHOD], 7), Ok(()));
        assert_eq!(checked(&[b'A'; MOST_METHOD + 1], 7), Err(Reason::MethodTooLong));
        let target = |length: usize| format!("GET /{}", "a".repeat(length - 1)).into_bytes();
        assert_eq!(checked(&target(256), 9), Ok(()));
        assert_eq!(checked(&target(257), 9), Err(Reason::UriTooLong));
    }
}

//! Finds the lines of a head, in whatever pieces it comes, and splits field lines into name and value.

use std::ops::Range;

use smallvec::SmallVec;

/// A line that ends with a bare LF: two parsers could see two different heads (RFC 9112 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareLineFeed;

/// A field line without a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoColon;

/// Where each line of a head ends, behind its line feed: the start line, the field lines, the empty line.
pub type LineEnds = SmallVec<[usize; 32]>;

/// A field line. Neither the name nor the value is validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine<'h> {
    pub name: &'h [u8],
    /// Where the value is in the head, without the white space around it.
    pub value: Range<usize>,
}

/// Finds the lines of the head at the start of `buffer`. Says whether the head is complete. `scanned` remembers how far
/// the buffer was looked at.
pub fn find_lines(buffer: &[u8], scanned: &mut usize, ends: &mut LineEnds) -> Result<bool, BareLineFeed> {
    let begin = std::mem::replace(scanned, buffer.len());
    for at in memchr::memchr_iter(b'\n', &buffer[begin..]).map(|at| begin + at) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(BareLineFeed);
        }
        if at >= 3 && buffer[at - 3..at - 1] == *b"\r\n" {
            if begin > 0 {
                // The lines that came before were not kept.
                ends.clear();
                ends.extend(memchr::memchr_iter(b'\n', &buffer[..at]).map(|at| at + 1));
            }
            ends.push(at + 1);
            return Ok(true);
        }
        ends.push(at + 1);
    }
    Ok(false)
}

/// The field lines of a complete head.
pub fn field_lines<'h>(
    head: &'h [u8],
    ends: &[usize],
) -> impl Iterator<Item = Result<FieldLine<'h>, NoColon>> {
    let without_empty_line = &ends[..ends.len().saturating_sub(1)];
    without_empty_line.windows(2).map(|ends| split(head, ends[0], ends[1] - 2))
}

fn split(head: &[u8], start: usize, end: usize) -> Result<FieldLine<'_>, NoColon> {
    let colon = start + head[start..end].iter().position(|byte| *byte == b':').ok_or(NoColon)?;
    let (mut first, mut last) = (colon + 1, end);
    while first < last && is_blank(head[first]) {
        first += 1;
    }
    while first < last && is_blank(head[last - 1]) {
        last -= 1;
    }
    Ok(FieldLine { name: &head[start..colon], value: first..last })
}

/// Whether it is optional white space (RFC 9110 section 5.6.3).
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn lines(head: &[u8]) -> LineEnds {
        let mut ends = LineEnds::new();
        assert_eq!(find_lines(head, &mut 0, &mut ends), Ok(true));
        ends
    }

    #[test]
    fn lines_are_found_in_whatever_pieces_they_come() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\nC:d \r\n\r\nrest";
        let whole = lines(head);
        assert_eq!(whole[..], [16, 22, 28, 30]);
        for first in 0..30 {
            let (mut scanned, mut ends) = (0, LineEnds::new());
            assert_eq!(find_lines(&head[..first], &mut scanned, &mut ends), Ok(false));
            let mut ends = LineEnds::new();
            assert_eq!(find_lines(head, &mut scanned, &mut ends), Ok(true));
            assert_eq!(ends, whole, "{first}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_an_error_before_the_head_is_complete() {
        for text in ["\n", "A\n", "GET / HTTP/1.1\r\nA: b\n"] {
            assert_eq!(
                find_lines(text.as_bytes(), &mut 0, &mut LineEnds::new()),
                Err(BareLineFeed),
                "{text:?}"
            );
        }
    }

    /// The fields that are read here; `None` where one is malformed.
    fn read(head: &[u8]) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let ends = lines(head);
        let field = |line: Result<FieldLine<'_>, _>| {
            let line = line.ok()?;
            let value = HeaderValue::from_bytes(&head[line.value]).ok()?;
            Some((HeaderName::from_bytes(line.name).ok()?, value))
        };
        field_lines(head, &ends).map(field).collect()
    }

    /// The same by httparse.
    fn read_by_httparse(head: &[u8]) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        request.parse(head).ok().filter(httparse::Status::is_complete)?;
        let field = |field: &httparse::Header<'_>| {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(field.value).ok()?))
        };
        request.headers.iter().map(field).collect()
    }

    proptest! {
        #[test]
        fn fields_are_read_as_httparse_reads_them(
            bytes in prop::collection::vec(prop::sample::select(&b"aZ-_:; \t\r\x00\x7f\x80\xff\"(,"[..]), 0..40),
            breaks in prop::collection::vec(0usize..40, 0..4),
        ) {
            let mut head = b"GET / HTTP/1.1\r\n".to_vec();
            for (at, byte) in bytes.iter().enumerate() {
                if breaks.contains(&at) && !head.ends_with(b"\n") {
                    head.extend_from_slice(b"\r\n");
                }
                head.push(*byte);
            }
            if !head.ends_with(b"\n") {
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(b"\r\n");
            prop_assert_eq!(read(&head), read_by_httparse(&head), "{:?}", head.escape_ascii().to_string());
        }

        #[test]
        fn sound_fields_are_read_as_httparse_reads_them(
            fields in prop::collection::vec(("[A-Za-z!#$%&'*+.^_`|~0-9-]{1,20}", "[ \t]{0,3}", "[ -~\t]{0,40}"), 0..8),
        ) {
            let fields: String = fields.iter().map(|(name, blank, value)| format!("{name}:{blank}{value}\r\n")).collect();
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
            let read = read(&head);
            prop_assert!(read.is_some());
            prop_assert_eq!(read, read_by_httparse(&head));
        }
    }
}

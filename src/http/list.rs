//! Lists of fields, read as bytes: an element that is not text does not hide its neighbours (RFC 9110 section 5.6.1).

use http::HeaderValue;

/// The elements of a line, without the empty ones.
pub fn elements(line: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    let elements = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// The elements of lines, as far as they are text.
pub fn texts<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    lines.into_iter().flat_map(elements).filter_map(|element| str::from_utf8(element).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_hides_nothing_else() {
        let lines: [HeaderValue; 2] =
            [b"a, \xe9 ,b;q=1,,".as_slice(), b"\xff"].map(|line| HeaderValue::from_bytes(line).unwrap());
        assert_eq!(texts(&lines).collect::<Vec<_>>(), ["a", "b;q=1"]);
        assert_eq!(elements(&lines[0]).rev().collect::<Vec<_>>(), [b"b;q=1".as_slice(), b"\xe9", b"a"]);
    }
}

//! The encoding of text files that the configuration names: UTF-8, with or without a byte order mark, with lines that end
//! in LF or CR LF. All of them are read by [`text`]; PEM files, whose comments may be in any encoding, by [`unmarked`].

use std::borrow::Cow;

/// Why a file is not used as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    #[error("the file is UTF-16: save it as UTF-8")]
    Utf16,
    #[error("line {0} has a NUL byte: the file is binary, or not UTF-8")]
    Nul(usize),
    #[error("line {0} is not UTF-8: save the file as UTF-8")]
    NotUtf8(usize),
}

const MARK: &[u8] = "\u{feff}".as_bytes();
/// As many bytes tell whether every second one is NUL.
const SAMPLE: usize = 64;

/// The text of a file, without its byte order mark and with lines that end in LF.
pub fn text(bytes: &[u8]) -> Result<Cow<'_, str>, NotText> {
    let bytes = unmarked(bytes)?;
    let line = |at: usize| bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let text = str::from_utf8(bytes).map_err(|error| NotText::NotUtf8(line(error.valid_up_to())))?;
    if let Some(at) = text.find('\0') {
        return Err(NotText::Nul(line(at)));
    }
    Ok(match text.contains("\r\n") {
        true => Cow::Owned(text.replace("\r\n", "\n")),
        false => Cow::Borrowed(text),
    })
}

/// The bytes of a file after its byte order mark.
pub fn unmarked(bytes: &[u8]) -> Result<&[u8], NotText> {
    match is_utf16(bytes) {
        true => Err(NotText::Utf16),
        false => Ok(bytes.strip_prefix(MARK).unwrap_or(bytes)),
    }
}

/// By its mark, or without one by every second byte being NUL.
fn is_utf16(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE) & !1];
    let every = |first: usize| {
        let (nul, other) = (sample.iter().skip(first).step_by(2), sample.iter().skip(1 - first).step_by(2));
        nul.clone().all(|byte| *byte == 0) && other.clone().all(|byte| *byte != 0)
    };
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || (!sample.is_empty() && (every(0) || every(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_mark_and_ends_of_lines_are_no_part_of_a_text() {
        for bytes in ["a\nb\n", "\u{feff}a\nb\n", "a\r\nb\r\n", "\u{feff}a\r\nb\n"] {
            assert_eq!(text(bytes.as_bytes()).unwrap(), "a\nb\n");
        }
        assert_eq!(text("a\rb\u{feff}".as_bytes()).unwrap(), "a\rb\u{feff}");
        assert_eq!(text(b"").unwrap(), "");
        assert_eq!(text("\u{feff}".as_bytes()).unwrap(), "");
        assert_eq!(unmarked(b"\xef\xbb\xbfa\xe9\r\n").unwrap(), b"a\xe9\r\n");
    }

    #[test]
    fn other_encodings_are_named() {
        for marked in ["\u{feff}10.0.0.0/8\n", "10.0.0.0/8\n"] {
            for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                assert_eq!(text(&utf16(marked, bytes)), Err(NotText::Utf16));
                assert_eq!(unmarked(&utf16(marked, bytes)), Err(NotText::Utf16));
            }
        }
        assert_eq!(text(b"a\nb\n\xe9\n"), Err(NotText::NotUtf8(3)));
        assert_eq!(text(b"a\nb\0\n"), Err(NotText::Nul(2)));
        assert_eq!(text(b"\0\0\0\0"), Err(NotText::Nul(1)));
    }
}

//! Finds where a head ends, in whatever pieces it comes.

/// A line that ends with a bare LF: two parsers could see two different heads (RFC 9112 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareLineFeed;

/// The length of the head at the start of `buffer`, `None` while it is not complete. `scanned` remembers how far the
/// buffer was looked at.
pub fn head_length(buffer: &[u8], scanned: &mut usize) -> Result<Option<usize>, BareLineFeed> {
    let begin = *scanned;
    for at in memchr::memchr_iter(b'\n', &buffer[begin..]).map(|at| begin + at) {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(BareLineFeed);
        }
        if at >= 3 && buffer[at - 3..at - 1] == *b"\r\n" {
            *scanned = at + 1;
            return Ok(Some(at + 1));
        }
    }
    *scanned = buffer.len();
    Ok(None)
}

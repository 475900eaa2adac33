//! Integers as QUIC writes them (RFC 9000 section 16).

use bytes::{Buf, BufMut};

/// The largest there is.
pub const MOST: u64 = (1 << 62) - 1;

/// Takes an integer; `None` where it is cut short.
pub fn take(input: &mut impl Buf) -> Option<u64> {
    let first = *input.chunk().first()?;
    let length = 1 << (first >> 6);
    if input.remaining() < length {
        return None;
    }
    input.advance(1);
    let rest = (1..length).fold(u64::from(first & 0x3f), |value, _| value << 8 | u64::from(input.get_u8()));
    Some(rest)
}

/// Writes an integer of at most [`MOST`] in the shortest form.
pub fn put(value: u64, out: &mut impl BufMut) {
    match value {
        0..=0x3f => out.put_uint(value, 1),
        0x40..=0x3fff => out.put_uint(1 << 14 | value, 2),
        0x4000..=0x3fff_ffff => out.put_uint(2 << 30 | value, 4),
        _ => out.put_uint(3 << 62 | value, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_are_read_and_written() {
        let examples: [(&[u8], u64); 4] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (mut bytes, value) in examples {
            let mut written = Vec::new();
            put(value, &mut written);
            assert_eq!(written, bytes);
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
            assert_eq!(take(&mut bytes), Some(value));
        }
        // Longer than need be is allowed.
        assert_eq!(take(&mut &[0x40, 0x25][..]), Some(37));
    }
}

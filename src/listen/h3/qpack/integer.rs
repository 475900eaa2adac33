//! Integers that begin in the middle of a byte (RFC 7541 section 5.1).

use bytes::{Buf, BufMut};

/// Reads an integer whose first `bits` are the lowest of the first byte; `None` where it is cut short or larger than
/// anything that is meant here (RFC 9204 section 4.1.1 asks for 62 bits).
pub fn take(bits: u32, input: &mut impl Buf) -> Option<u64> {
    let mask = u8::MAX >> (8 - bits);
    let mut value = u64::from(get(input)? & mask);
    if value < u64::from(mask) {
        return Some(value);
    }
    for shift in (0..62).step_by(7) {
        let byte = get(input)?;
        value = value.checked_add(u64::from(byte & 0x7f) << shift)?;
        if byte & 0x80 == 0 {
            return (value < 1 << 62).then_some(value);
        }
    }
    None
}

fn get(input: &mut impl Buf) -> Option<u8> {
    input.has_remaining().then(|| input.get_u8())
}

/// Writes an integer behind the bits of `first` that stand above the lowest `bits`.
pub fn put(first: u8, bits: u32, value: usize, out: &mut impl BufMut) {
    let mask = u8::MAX >> (8 - bits);
    if value < usize::from(mask) {
        return out.put_u8(first | value as u8);
    }
    out.put_u8(first | mask);
    let mut left = value - usize::from(mask);
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7541_are_read_and_written() {
        for (bits, value, bytes) in [(5, 10, &[0b01010][..]), (5, 1337, &[31, 154, 10]), (7, 42, &[42])] {
            let mut written = Vec::new();
            put(0, bits, value, &mut written);
            assert_eq!(written, bytes);
            assert_eq!(take(bits, &mut &bytes[..]), Some(value as u64));
            assert_eq!(take(bits, &mut &bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn an_integer_without_end_is_none() {
        assert_eq!(take(5, &mut &[0xff; 40][..]), None);
        let large = [31, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(take(5, &mut &large[..]), None);
    }
}

//! The Huffman code of strings (RFC 7541 appendix B). It is canonical: codes of one length follow each other in the order
//! of their symbols, and longer ones follow shorter ones; so the lengths are all there is to know.

use bytes::Bytes;

/// What stands after the symbols 0 to 255: the end of a string, which must not stand in one.
const END: u16 = 256;

/// The length in bits of each symbol's code.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The codes of one length, read as numbers of [`LONGEST`] bits.
#[derive(Clone, Copy)]
struct Group {
    /// The first code that is longer.
    beyond: u32,
    first: u32,
    /// The place of the first symbol in [`Code::symbols`].
    at: usize,
}

struct Code {
    groups: [Group; LONGEST + 1],
    /// The symbols in the order of their codes.
    symbols: [u16; 257],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut groups = [Group { beyond: 0, first: 0, at: 0 }; LONGEST + 1];
    let mut symbols = [0; 257];
    let (mut next, mut at, mut length) = (0, 0, SHORTEST);
    while length <= LONGEST {
        groups[length].first = next;
        groups[length].at = at;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
                next += 1 << (LONGEST - length);
            }
            symbol += 1;
        }
        groups[length].beyond = next;
        length += 1;
    }
    Code { groups, symbols }
}

/// Decodes a string; `None` where it is none (RFC 7541 section 5.2).
pub fn decode(input: &[u8]) -> Option<Bytes> {
    let mut out = Vec::with_capacity(input.len() * 8 / SHORTEST);
    let mut input = input.iter();
    // The bits that are next, at the top of 64; ones where there are no more, which is how a string is padded.
    let (mut bits, mut have) = (u64::MAX, 0_usize);
    loop {
        while have <= 56
            && let Some(byte) = input.next()
        {
            let shift = 56 - have;
            bits = bits & !(0xff << shift) | u64::from(*byte) << shift;
            have += 8;
        }
        let window = (bits >> (64 - LONGEST)) as u32;
        let length =
            (SHORTEST..LONGEST).find(|length| window < CODE.groups[*length].beyond).unwrap_or(LONGEST);
        if length > have {
            // What is left is shorter than a byte and the beginning of the code for the end: all ones.
            let padding = bits.leading_ones() as usize;
            return (have < 8 && padding >= have).then(|| out.into());
        }
        let group = &CODE.groups[length];
        let place = (window - group.first) >> (LONGEST - length);
        let symbol = CODE.symbols[group.at + place as usize];
        if symbol == END {
            return None;
        }
        out.push(symbol as u8);
        bits = (bits << length) | ((1 << length) - 1);
        have -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the lengths alone, a bit after the other.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let group = &CODE.groups[length];
            let nth = CODE.symbols[group.at..].iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = (group.first >> (LONGEST - length)) + u32::try_from(nth).unwrap();
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        bits.chunks(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_examples_of_rfc_7541_are_read() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&www).unwrap(), "www.example.com");
        assert_eq!(decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), "no-cache");
        assert_eq!(decode(&[0x64, 0x02]).unwrap(), "302");
        assert_eq!(encode(b"no-cache"), [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
    }

    #[test]
    fn every_byte_is_read_in_every_place() {
        let all: Vec<u8> = (0..=255).collect();
        for start in 0..8 {
            let mut text = vec![b'a'; start];
            text.extend(&all);
            assert_eq!(decode(&encode(&text)).unwrap(), text);
        }
        assert_eq!(decode(&[]).unwrap(), "");
    }

    #[test]
    fn what_is_no_string_is_refused() {
        // Padding of zeros, of a whole byte, of two; and the code for the end.
        for wrong in [
            &[0x60][..],
            &[0x64, 0x02, 0xff],
            &[0x64, 0x02, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xfc],
            &[0xff; 4],
        ] {
            assert_eq!(decode(wrong), None, "{wrong:x?}");
        }
    }
}

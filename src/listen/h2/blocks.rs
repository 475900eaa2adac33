//! Field blocks that came last, kept until it is clear that h2 could unpack them; and whether they can be (RFC 7541).

use super::super::h3::{huffman, integer};

/// Blocks since h2 last asked for more: one that it cannot unpack is among them.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// What the blocks before were long, all together.
    before: usize,
}

/// Fields of the static table.
const STATIC: u64 = 61;
/// The size of the dynamic table that h2 allows, and what a field takes of it at least (RFC 7541 section 4.1).
const TABLE: u64 = 4096;
const LEAST: u64 = 32;

/// More than most blocks have is not held on to.
const COMMON: usize = 1024;

impl Blocks {
    /// Forgets those that were taken; of one that still goes on, all is kept.
    pub fn taken(&mut self, goes_on: bool) {
        if self.starts.is_empty() {
            return;
        }
        let kept = self.starts.last().filter(|_| goes_on).map_or(self.bytes.len(), |start| *start);
        self.bytes.drain(..kept);
        self.bytes.shrink_to(COMMON);
        self.before = self.before.saturating_add(kept);
        self.starts.clear();
        if goes_on {
            self.starts.push(0);
        }
    }

    pub fn begin(&mut self) {
        self.starts.push(self.bytes.len());
    }

    pub fn more(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether there is one that cannot be unpacked. Names of fields and values that are none are no matter here.
    pub fn fail(&self) -> bool {
        // Two bytes put a field into the table. Which of those before have left it again is not known.
        let mut known = (self.before as u64 / 2).min(TABLE / LEAST);
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts
            .iter()
            .zip(ends)
            .any(|(start, end)| unpack(&self.bytes[*start..end], &mut known).is_none())
    }
}

/// Walks through a block, `None` where it is none. `known` are the fields that the dynamic table may have.
fn unpack(mut block: &[u8], known: &mut u64) -> Option<()> {
    let mut may_resize = true;
    while let Some(first) = block.first() {
        let resizes = first >> 5 == 1;
        if resizes {
            (may_resize && integer::take(5, &mut block)? <= TABLE).then_some(())?;
            continue;
        }
        may_resize = false;
        let (bits, remembered) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            _ => (4, false),
        };
        let index = integer::take(bits, &mut block)?;
        (index <= STATIC + *known).then_some(())?;
        match (bits, index) {
            (7, 0) => return None,
            (7, _) => continue,
            (_, 0) => string(&mut block)?,
            _ => {}
        }
        string(&mut block)?;
        *known += u64::from(remembered);
    }
    Some(())
}

/// Section 5.2.
fn string(block: &mut &[u8]) -> Option<()> {
    let is_coded = block.first()? & 0x80 != 0;
    let length = usize::try_from(integer::take(7, block)?).ok()?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    (!is_coded || huffman::decode(text).is_some()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(blocks: &[&[u8]]) -> bool {
        let mut all = Blocks::default();
        for block in blocks {
            all.begin();
            all.more(block);
        }
        all.fail()
    }

    #[test]
    fn what_hpack_allows_is_unpacked() {
        for block in [
            &[][..],
            &[0x82, 0xbd],
            &[0x40, 1, b'x', 1, b'y', 0xbe],
            &[0x7d, 1, b'y', 0xbe],
            &[0x00, 1, b' ', 1, 0],
            &[0x10, 1, b'X', 0],
            &[0x0f, 0x04, 1, b'y'],
            &[0x20, 0x3f, 0xe1, 0x1f, 0x82],
            &[0x01, 0x81, 0x1f],
        ] {
            assert!(!fails(&[block]), "{block:x?}");
        }
        assert!(!fails(&[&[0x40, 1, b'x', 1, b'y'], &[0xbe]]), "the table is one for all blocks");
    }

    #[test]
    fn what_it_does_not_is_not() {
        for block in [
            &[0x80][..],
            &[0xbe],
            &[0x7e, 1, b'y'],
            &[0x0f, 0x2f, 1, b'y'],
            &[0x82, 0x20],
            &[0x3f, 0xe2, 0x1f],
            &[0x00, 5, b'x'],
            &[0x00, 1, b'x'],
            &[0x00, 1],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x01, 0x81, 0x18],
            &[0x01, 0x82, 0x1f, 0xff],
            &[0x01, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(fails(&[block]), "{block:x?}");
            assert!(fails(&[&[0x82], block, &[0x82]]), "{block:x?}");
        }
    }

    #[test]
    fn blocks_that_were_taken_are_forgotten() {
        let mut blocks = Blocks::default();
        blocks.begin();
        blocks.more(&[0x40, 1, b'x', 1, b'y']);
        blocks.taken(false);
        assert!(!blocks.fail() && blocks.bytes.is_empty());
        blocks.begin();
        blocks.more(&[0xbe]);
        assert!(!blocks.fail(), "what is in the table is not forgotten");
        blocks.begin();
        blocks.more(&[0x82, 0x00]);
        blocks.taken(true);
        blocks.more(&[5, b'x', 0, 0]);
        assert_eq!(blocks.bytes, [0x82, 0x00, 5, b'x', 0, 0]);
        assert!(blocks.fail());
    }
}

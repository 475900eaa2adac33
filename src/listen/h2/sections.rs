//! Frames that carry field blocks, on their way to h2: those of a malformed request are replaced by some for which h2 ends the
//! request alone. All else passes as it came, and is not copied.

use super::{
    hpack::{Decoder, MALFORMED, Passed, Undecodable},
    rules::{CONTINUATION, END_HEADERS, END_STREAM, HEAD, HEADERS, Head, PADDED, PRIORITIZED},
};

/// The frames of a connection, behind its preface.
#[derive(Debug)]
pub(super) struct Sections {
    decoder: Decoder,
    /// Bytes up to the next frame's head.
    skip: usize,
    /// What has come of frames that cannot be looked at yet.
    held: Vec<u8>,
    /// So much may be held.
    most: usize,
    /// Nothing is looked at any more: h2 ends the connection.
    is_over: bool,
}

/// What is next in the bytes at hand.
enum Next {
    /// A frame without fields, of this length.
    Other(usize),
    /// The frames of a block, their length in all.
    Block(usize),
    /// It has not come whole.
    Incomplete,
}

/// The largest frame that h2 takes.
const FRAME: usize = 16 << 10;
/// A block that h2 cannot unpack, for which it ends the connection.
const BROKEN: &[u8] = &[0x80];
/// What a priority takes.
const PRIORITY: usize = 5;

impl Sections {
    /// `skip`: the length of the preface. `most_fields`: from what size on h2 answers that a list of fields is too large.
    pub fn new(skip: usize, most_fields: usize) -> Self {
        let most = most_fields.saturating_mul(2).saturating_add(2 * FRAME);
        Self { decoder: Decoder::new(most_fields), skip, held: Vec::new(), most, is_over: false }
    }

    /// Takes bytes that came. `None`: they pass as they are; else these do.
    pub fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return self.look_at(bytes, None);
        }
        let all = [&held[..], bytes].concat();
        self.look_at(&all, Some(Vec::with_capacity(all.len())))
    }

    /// Nothing more comes, or nothing more is looked at: what is held passes.
    pub fn end(&mut self) -> Vec<u8> {
        self.is_over = true;
        std::mem::take(&mut self.held)
    }

    fn look_at(&mut self, bytes: &[u8], mut out: Option<Vec<u8>>) -> Option<Vec<u8>> {
        // Up to where they have been written to `out`, if that is there.
        let (mut at, mut written) = (0, 0);
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            (at, self.skip) = (at + skipped, self.skip - skipped);
            let rest = &bytes[at..];
            if rest.is_empty() || self.is_over {
                break;
            }
            match next(rest) {
                Next::Other(length) => self.skip = length,
                Next::Block(length) => {
                    if let Some(instead) = self.block(&rest[..length]) {
                        let out = out.get_or_insert_default();
                        out.extend_from_slice(&bytes[written..at]);
                        out.extend(instead);
                        written = at + length;
                    }
                    at += length;
                }
                Next::Incomplete if rest.len() > self.most => {
                    self.is_over = true;
                    if self.decoder.rewrites() {
                        let out = out.get_or_insert_default();
                        out.extend_from_slice(&bytes[written..at]);
                        out.extend(end_of_connection(rest));
                        return Some(std::mem::take(out));
                    }
                }
                Next::Incomplete => {
                    out.get_or_insert_default().extend_from_slice(&bytes[written..at]);
                    self.held = rest.to_vec();
                    return out;
                }
            }
        }
        if let Some(out) = &mut out {
            out.extend_from_slice(&bytes[written..]);
        }
        out
    }

    /// What stands in the place of a block's frames.
    fn block(&mut self, frames: &[u8]) -> Option<Vec<u8>> {
        let head = Head::read(frames.first_chunk()?);
        let priority = if head.has(PRIORITIZED) { PRIORITY } else { 0 };
        let (first, others) = frames[HEAD..].split_at(head.length);
        let padding = if head.has(PADDED) { 1 + usize::from(*first.first()?) } else { 0 };
        let start = priority + usize::from(head.has(PADDED));
        // Where it does not fit, h2 ends the connection.
        let Some(fields) =
            first.get(start..(first.len() + usize::from(head.has(PADDED))).checked_sub(padding)?)
        else {
            self.is_over = true;
            return None;
        };
        let gathered;
        let in_pieces = !others.is_empty();
        let block = match in_pieces {
            false => fields,
            true => {
                gathered = gather(fields, others);
                &gathered
            }
        };
        let is_rewritten = self.decoder.rewrites();
        let rewritten = match self.decoder.pass(block, in_pieces) {
            Ok(Passed::AsItCame) => return None,
            Ok(Passed::Rewritten(block)) => block,
            Ok(Passed::Malformed) => MALFORMED.to_vec(),
            Err(Undecodable) => {
                self.is_over = true;
                if !is_rewritten {
                    return None;
                }
                // h2 could unpack it, by a table that is not the client's.
                BROKEN.to_vec()
            }
        };
        let priority = &first[start - priority..start];
        Some(framed(&head, priority, &rewritten))
    }
}

/// A frame for which h2 ends the connection, in the place of one that it must not read.
fn end_of_connection(frame: &[u8]) -> Vec<u8> {
    let head = frame.first_chunk().map(Head::read);
    head.map_or_else(Vec::new, |head| framed(&Head { flags: 0, ..head }, b"", BROKEN))
}

/// The block of some frames, behind what has come of it in the first.
fn gather(fields: &[u8], mut others: &[u8]) -> Vec<u8> {
    let mut block = fields.to_vec();
    while let Some(head) = others.first_chunk().map(Head::read) {
        let frame = &others[HEAD..HEAD + head.length];
        block.extend_from_slice(frame);
        others = &others[HEAD + head.length..];
    }
    block
}

fn framed(head: &Head, priority: &[u8], block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + priority.len() + 2 * HEAD);
    let flags = head.flags & (END_STREAM | PRIORITIZED);
    let (first, rest) = block.split_at(block.len().min(FRAME - priority.len()));
    let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
    Head { length: priority.len() + first.len(), kind: HEADERS, flags: flags | end(rest), ..*head }
        .put(&mut out);
    out.extend_from_slice(priority);
    out.extend_from_slice(first);
    let mut pieces = rest.chunks(FRAME).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        Head { length: piece.len(), kind: CONTINUATION, flags, ..*head }.put(&mut out);
        out.extend_from_slice(piece);
    }
    out
}

/// What the bytes begin with, where a frame begins.
fn next(bytes: &[u8]) -> Next {
    let mut length = 0;
    loop {
        let Some(head) = bytes[length..].first_chunk().map(Head::read) else { return Next::Incomplete };
        match head.kind {
            _ if head.length > FRAME => return Next::Other(length + HEAD + head.length),
            HEADERS if length == 0 => {}
            CONTINUATION if length > 0 => {}
            // What does not belong in a block ends the connection.
            _ => return Next::Other(length + HEAD + head.length),
        }
        length += HEAD + head.length;
        match (head.has(END_HEADERS), length <= bytes.len()) {
            (_, false) => return Next::Incomplete,
            (true, true) => return Next::Block(length),
            (false, true) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Head { length: payload.len(), kind, flags, stream }.put(&mut out);
        [out, payload.to_vec()].concat()
    }

    /// All that passes of some bytes that come in pieces of this size.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut sections = Sections::new(3, 4096);
        let mut out = Vec::new();
        for piece in [b"PRI", bytes].concat().chunks(size) {
            out.extend(sections.pass(piece).unwrap_or_else(|| piece.to_vec()));
        }
        out.extend(sections.end());
        assert_eq!(&out[..3], b"PRI");
        out.split_off(3)
    }

    const WHOLE: u8 = END_HEADERS | END_STREAM;

    #[test]
    fn bad_blocks_alone_are_replaced_however_they_come() {
        let bad = b"\x40\x01X\x01y";
        let padded = [&[2][..], &[0, 0, 0, 0, 7], bad, &[0, 0]].concat();
        let sent = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, WHOLE, 1, &[0x82]),
            frame(0, 0, 1, &[1; 40]),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 3, &padded),
            frame(HEADERS, END_STREAM, 5, &[0x82, 0x40]),
            frame(CONTINUATION, 0, 5, b"\x01a\x01"),
            frame(CONTINUATION, END_HEADERS, 5, b"b"),
            frame(HEADERS, WHOLE, 7, &[0xbe]),
            frame(6, 0, 0, &[0; 8]),
        ];
        let expected = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, WHOLE, 1, &[0x82]),
            frame(0, 0, 1, &[1; 40]),
            frame(HEADERS, END_HEADERS | PRIORITIZED, 3, &[&[0, 0, 0, 0, 7], MALFORMED].concat()),
            frame(HEADERS, WHOLE, 5, b"\0\x07:method\x03GET\0\x01a\x01b"),
            frame(HEADERS, WHOLE, 7, b"\0\x01a\x01b"),
            frame(6, 0, 0, &[0; 8]),
        ]
        .concat();
        let sent = sent.concat();
        for size in 1..=sent.len() {
            assert_eq!(passed(&sent, size), expected, "{size}");
        }
    }

    #[test]
    fn what_ends_the_connection_passes_or_ends_it_otherwise() {
        let broken = frame(HEADERS, WHOLE, 1, &[0xff, 0xff]);
        assert_eq!(passed(&broken, 100), broken);
        let large = frame(HEADERS, WHOLE, 1, &[0; FRAME + 1]);
        assert_eq!(passed(&large[..HEAD], 100), large[..HEAD], "h2 need not wait for the rest");
        let padded = frame(HEADERS, WHOLE | PADDED, 1, &[9, 0x82]);
        assert_eq!(passed(&padded, 100), padded);
        // Where h2's table is not the client's, it must not read the block.
        let rewriting = frame(HEADERS, WHOLE, 1, b"\0\0\0");
        let ended = [frame(HEADERS, WHOLE, 1, MALFORMED), frame(HEADERS, WHOLE, 3, BROKEN)].concat();
        assert_eq!(passed(&[&rewriting[..], &frame(HEADERS, WHOLE, 3, &[0xfe])].concat(), 100), ended);
        let endless: Vec<u8> = std::iter::once(frame(HEADERS, 0, 3, &[0; FRAME]))
            .chain((0..9).map(|_| frame(CONTINUATION, 0, 3, &[0; FRAME])))
            .flatten()
            .collect();
        let all = passed(&[&rewriting[..], &endless].concat(), 1000);
        let ended = [frame(HEADERS, WHOLE, 1, MALFORMED), frame(HEADERS, END_HEADERS, 3, BROKEN)].concat();
        assert_eq!(all[..ended.len()], ended);
    }

    proptest! {
        #[test]
        fn any_frames_pass_alike_however_they_come(
            frames in vec((0..11_u8, any::<u8>(), 0..6_u8, vec(any::<u8>(), 0..20)), 0..12),
            size in 1..50_usize,
        ) {
            let bytes: Vec<u8> = frames
                .into_iter()
                .flat_map(|(kind, flags, stream, payload)| frame(kind, flags, stream.into(), &payload))
                .collect();
            prop_assert_eq!(passed(&bytes, size), passed(&bytes, bytes.len().max(1)));
        }
    }
}

//! Which rule a client's frames break first, of those for which h2 ends a connection, with the code that is due for it.

use std::collections::BTreeSet;

use h2::Reason;

use super::blocks::Blocks;

/// The head of a frame (RFC 9113 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

pub(super) const HEAD: usize = 9;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITIZED: u8 = 0x20;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// So much of SETTINGS is looked at: those that are known fit in twice.
const SETTINGS_SEEN: usize = 12 * 6;
/// So many streams that the client has not ended are remembered: more than it may have at once, as it need not end those
/// that were reset.
const MOST_OPEN: usize = 1024;

/// What a client has done so far, as far as that decides what it may do next.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The last stream that it began.
    highest: u32,
    /// The one that it had begun before, between which there are streams that never were.
    before: u32,
    /// Streams that it has not ended.
    open: BTreeSet<u32>,
    /// The stream whose field block goes on.
    block: Option<u32>,
    blocks: Blocks,
    /// What is still to come of the block's fields in the frame at hand, behind so many bytes that are none of them.
    fields: usize,
    other: usize,
    /// It has said its settings, and acknowledged ours.
    greeted: bool,
    acknowledged: bool,
    broken: Option<Reason>,
}

impl Head {
    pub fn read(bytes: &[u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, stream @ ..] = *bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    /// How much of the payload it takes to judge the frame.
    pub fn wanted(&self) -> usize {
        let wanted = match self.kind {
            DATA | HEADERS if self.flags & PADDED != 0 => 1,
            WINDOW_UPDATE => 4,
            SETTINGS => SETTINGS_SEEN,
            GOAWAY => 8,
            _ => 0,
        };
        wanted.min(self.length)
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Rules {
    /// What GOAWAY is to say where h2 says PROTOCOL_ERROR.
    pub fn due(&self) -> Reason {
        let is_whole = self.block.is_none() && self.fields == 0;
        match self.broken {
            None if is_whole && self.blocks.fail() => Reason::COMPRESSION_ERROR,
            None => Reason::PROTOCOL_ERROR,
            Some(reason) => reason,
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether the client begins as it has to (section 3.4), as far as can be told.
    pub fn begins_well(&self) -> bool {
        self.greeted || self.broken.is_none()
    }

    /// Takes a frame, with as much of its payload as it wanted.
    pub fn take(&mut self, head: Head, payload: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.judge(head, payload).err();
        }
    }

    /// Takes what follows of a frame's payload.
    pub fn take_more(&mut self, payload: &[u8]) {
        let other = self.other.min(payload.len());
        let fields = self.fields.min(payload.len() - other);
        self.blocks.more(&payload[other..other + fields]);
        (self.other, self.fields) = (self.other - other, self.fields - fields);
    }

    /// h2 has taken all frames so far for good.
    pub fn go_on(&mut self) {
        self.blocks.taken(self.block.is_some() || self.fields > 0);
    }

    fn judge(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        // Nothing comes between the frames of a field block (section 4.3).
        if self.block.is_some_and(|stream| head.kind != CONTINUATION || head.stream != stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.greeted {
            rule(head.kind == SETTINGS && !head.has(ACK))?;
            self.greeted = true;
        }
        match head.kind {
            DATA => self.data(head, payload),
            HEADERS => self.headers(head, payload),
            CONTINUATION => match self.block {
                None => Err(Reason::PROTOCOL_ERROR),
                Some(_) => {
                    self.fields(head, 0, 0);
                    Ok(())
                }
            },
            PRIORITY => size(head.length == 5).and(rule(head.stream != 0)),
            RST_STREAM => {
                size(head.length == 4).and(rule(self.is_begun(head.stream)))?;
                self.open.remove(&head.stream);
                Ok(())
            }
            SETTINGS => self.settings(head, payload),
            PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            PING => size(head.length == 8).and(rule(head.stream == 0)),
            GOAWAY => size(head.length >= 8).and(rule(head.stream == 0)),
            WINDOW_UPDATE => {
                size(head.length == 4)?;
                let is_zero =
                    payload.iter().enumerate().all(|(at, byte)| byte & [0x7f, 255, 255, 255][at] == 0);
                rule(!is_zero).and(rule(head.stream == 0 || self.is_begun(head.stream)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the stream is not idle (section 5.1): the client's, and not past the last.
    fn is_begun(&self, stream: u32) -> bool {
        stream % 2 == 1 && stream <= self.highest
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        rule(self.is_begun(head.stream))?;
        padding(head, payload, 0)?;
        if !self.open.contains(&head.stream) {
            return Err(Reason::STREAM_CLOSED);
        }
        if head.has(END_STREAM) {
            self.open.remove(&head.stream);
        }
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        rule(head.stream % 2 == 1)?;
        let priority = if head.has(PRIORITIZED) { 5 } else { 0 };
        let padding = padding(head, payload, priority)?;
        if head.stream > self.highest {
            (self.before, self.highest) = (self.highest, head.stream);
            if !head.has(END_STREAM) {
                self.open.insert(head.stream);
                if self.open.len() > MOST_OPEN {
                    self.open.pop_first();
                }
            }
        } else if self.open.contains(&head.stream) {
            if head.has(END_STREAM) {
                self.open.remove(&head.stream);
            }
        } else {
            // One that was passed over cannot be begun any more (section 5.1.1).
            rule(head.stream <= self.before || head.stream == self.highest)?;
            return Err(Reason::STREAM_CLOSED);
        }
        self.blocks.begin();
        self.fields(head, priority, padding);
        Ok(())
    }

    /// Some of a block, behind a priority and before padding.
    fn fields(&mut self, head: Head, priority: usize, padding: usize) {
        self.block = (!head.has(END_HEADERS)).then_some(head.stream);
        self.other = priority;
        self.fields = head.length - head.wanted() - priority - padding;
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        rule(head.stream == 0)?;
        if head.has(ACK) {
            // Ours are said once.
            return size(head.length == 0).and(rule(!std::mem::replace(&mut self.acknowledged, true)));
        }
        size(head.length.is_multiple_of(6))?;
        payload.as_chunks::<6>().0.iter().try_for_each(|&[n0, n1, value @ ..]| {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([n0, n1]) {
                ENABLE_PUSH => rule(value <= 1),
                INITIAL_WINDOW_SIZE if value > i32::MAX as u32 => Err(Reason::FLOW_CONTROL_ERROR),
                MAX_FRAME_SIZE => rule((1 << 14..1 << 24).contains(&value)),
                _ => Ok(()),
            }
        })
    }
}

fn rule(holds: bool) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(Reason::PROTOCOL_ERROR) }
}

/// Section 4.2.
fn size(fits: bool) -> Result<(), Reason> {
    if fits { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) }
}

/// How much padding a frame has, where that and other fields fit into it (sections 6.1 and 6.2).
fn padding(head: Head, payload: &[u8], fields: usize) -> Result<usize, Reason> {
    let fields = fields + usize::from(head.has(PADDED));
    size(head.length >= fields)?;
    let padding = if head.has(PADDED) { payload.first().copied().unwrap_or_default() } else { 0 };
    let padding = usize::from(padding);
    rule(padding <= head.length - fields)?;
    Ok(padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, stream: u32, length: usize) -> Head {
        Head { length, kind, flags, stream }
    }

    /// A client that has said its settings, and these frames.
    fn after(frames: &[(Head, &[u8])]) -> Reason {
        let mut rules = Rules::default();
        rules.take(head(SETTINGS, 0, 0, 0), b"");
        for (head, payload) in frames {
            let (first, rest) = payload.split_at(head.wanted().min(payload.len()));
            rules.take(*head, first);
            rules.take_more(rest);
        }
        rules.due()
    }

    const WHOLE: u8 = END_STREAM | END_HEADERS;
    const GOOD: &[u8] = &[0x82];
    const BAD: &[u8] = &[0x80];

    #[test]
    fn a_block_that_cannot_be_unpacked_is_the_last_thing_to_be_told() {
        let get = |stream, block| (head(HEADERS, WHOLE, stream, 1), block);
        let ping = |length| (head(PING, 0, 0, length), &b""[..]);
        assert_eq!(after(&[]), Reason::PROTOCOL_ERROR);
        assert_eq!(after(&[get(1, GOOD)]), Reason::PROTOCOL_ERROR);
        assert_eq!(after(&[get(1, GOOD), get(3, BAD), ping(8)]), Reason::COMPRESSION_ERROR);
        assert_eq!(after(&[get(1, BAD), get(2, GOOD)]), Reason::PROTOCOL_ERROR);
        assert_eq!(after(&[get(1, GOOD), ping(9), get(2, GOOD)]), Reason::FRAME_SIZE_ERROR, "the first");
        let unfinished = (head(HEADERS, END_STREAM, 1, 1), BAD);
        assert_eq!(after(&[unfinished]), Reason::PROTOCOL_ERROR, "there is nothing to unpack yet");
        let rest = (head(CONTINUATION, END_HEADERS, 1, 0), &b""[..]);
        assert_eq!(after(&[unfinished, rest]), Reason::COMPRESSION_ERROR);
    }

    #[test]
    fn only_fields_are_unpacked() {
        for (flags, length, payload) in [
            (PADDED, 4, &[2, 0x82, 0x80, 0x80][..]),
            (PRIORITIZED, 6, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x82]),
            (PADDED | PRIORITIZED, 8, &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x82, 0x80]),
        ] {
            let good = (head(HEADERS, WHOLE | flags, 1, length), payload);
            assert_eq!(after(&[good]), Reason::PROTOCOL_ERROR, "{flags:x}");
            let payload: Vec<u8> =
                payload.iter().map(|byte| if *byte == 0x82 { 0x80 } else { *byte }).collect();
            let bad = (good.0, &payload[..]);
            assert_eq!(after(&[bad]), Reason::COMPRESSION_ERROR, "{flags:x}");
        }
    }

    #[test]
    fn settings_come_first() {
        for first in [head(PING, 0, 0, 8), head(SETTINGS, ACK, 0, 0), head(HEADERS, WHOLE, 1, 0)] {
            let mut rules = Rules::default();
            rules.take(first, b"");
            assert!(!rules.begins_well(), "{first:?}");
        }
        let mut rules = Rules::default();
        rules.take(head(SETTINGS, 0, 0, 1), b"");
        assert!(rules.begins_well() && rules.is_broken());
    }

    #[test]
    fn trailers_are_of_an_open_stream_and_streams_that_were_passed_over_never_are() {
        let post = |stream| (head(HEADERS, END_HEADERS, stream, 1), GOOD);
        let end = |stream| (head(HEADERS, WHOLE, stream, 1), BAD);
        assert_eq!(after(&[post(1), end(1)]), Reason::COMPRESSION_ERROR);
        assert_eq!(after(&[post(1), end(1), end(1)]), Reason::STREAM_CLOSED);
        assert_eq!(after(&[post(1), (head(RST_STREAM, 0, 1, 4), b""), end(1)]), Reason::STREAM_CLOSED);
        assert_eq!(after(&[post(1), end(7), end(3)]), Reason::PROTOCOL_ERROR);
        let ends = (head(DATA, END_STREAM, 1, 0), &b""[..]);
        assert_eq!(after(&[post(1), ends, ends]), Reason::STREAM_CLOSED);
        assert_eq!(after(&[ends]), Reason::PROTOCOL_ERROR);
    }

    #[test]
    fn what_is_remembered_of_streams_is_bounded() {
        let mut rules = Rules::default();
        rules.take(head(SETTINGS, 0, 0, 0), b"");
        for stream in (1..100_000).step_by(2) {
            rules.take(head(HEADERS, END_HEADERS, stream, 1), b"");
            rules.take_more(GOOD);
            rules.go_on();
        }
        assert_eq!((rules.open.len(), rules.is_broken()), (MOST_OPEN, false));
    }

    #[test]
    fn as_much_of_settings_is_looked_at_as_is_there() {
        let settings = |payload: &[u8]| {
            let head = head(SETTINGS, 0, 0, payload.len());
            after(&[(head, &payload[..head.wanted()])])
        };
        let window = [0, 4, 0x80, 0, 0, 0];
        assert_eq!(settings(&window), Reason::FLOW_CONTROL_ERROR);
        assert_eq!(settings(&[[0, 9, 0, 0, 0, 0], window].concat()), Reason::FLOW_CONTROL_ERROR);
        assert_eq!(settings(&[0; 7]), Reason::FRAME_SIZE_ERROR);
        let acknowledged = (head(SETTINGS, ACK, 0, 0), &b""[..]);
        let get = (head(HEADERS, WHOLE, 1, 1), BAD);
        assert_eq!(after(&[acknowledged, get]), Reason::COMPRESSION_ERROR);
        assert_eq!(after(&[acknowledged, acknowledged, get]), Reason::PROTOCOL_ERROR);
    }
}

//! Field blocks as a client sends them (RFC 7541), and what of them h2 takes for the end of a connection though it is wrong with
//! one request alone (RFC 9113 section 8.1.1): a field name or a value that is none. And targets that the `http` crate does not
//! read, which go to h2 in stand-ins.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes};
use http::Method;

use super::super::h3::{huffman, integer};
use crate::http::{target, token::is_tchar};

/// A client's blocks, one after the other.
#[derive(Debug)]
pub(super) struct Decoder {
    table: Table,
    /// h2 gets literals alone, since its table is not the client's any more.
    rewrites: bool,
    /// The size of a list of fields from which h2 answers that it is too large.
    most: usize,
}

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// h2 reads it rightly.
    AsItCame,
    /// h2 reads this rightly.
    Rewritten(Vec<u8>),
    /// Its request is malformed.
    Malformed,
}

/// It cannot be unpacked: the connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

/// A block of one field that h2 takes for malformed, and for nothing worse: `te: x`.
pub(super) const MALFORMED: &[u8] = b"\0\x02te\x01x";

/// A field as it was sent or is remembered.
#[derive(Debug)]
struct Entry {
    name: Bytes,
    value: Bytes,
    fitness: Fitness,
}

/// Whether h2 reads a field rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fitness {
    Sound,
    /// A target with bytes that the `http` crate does not read.
    Target,
    Bad,
}

/// The dynamic table (RFC 7541 section 2.3.2).
#[derive(Debug)]
struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

/// The size of the dynamic table that h2 allows, and what a field takes beside its name and value (section 4.1).
const TABLE: usize = 4096;
const OVERHEAD: usize = 32;

/// The rules of whole lists for which h2 resets a stream, and then takes the rest of the block for a connection error.
#[derive(Debug, Default)]
struct List {
    has_fields: bool,
    pseudo: u8,
    breaks: bool,
}

impl Decoder {
    pub fn new(most: usize) -> Self {
        Self { table: Table { entries: VecDeque::new(), size: 0, most: TABLE }, rewrites: false, most }
    }

    /// Whether h2 may no longer be given a block as it came.
    pub fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// Unpacks a block. `in_pieces`: it came in several frames.
    pub fn pass(&mut self, block: &[u8], in_pieces: bool) -> Result<Passed, Undecodable> {
        let mut passing = Passing::new(self.rewrites.then(Vec::new), self.most, in_pieces);
        let mut rest = block;
        let mut may_resize = true;
        while let Some(first) = rest.first().copied() {
            let before = &block[..block.len() - rest.len()];
            if first >> 5 == 1 {
                let size = take(5, &mut rest)?;
                if !may_resize || size > TABLE {
                    return Err(Undecodable);
                }
                self.table.resize(size);
                continue;
            }
            may_resize = false;
            if first & 0x80 != 0 {
                let Entry { name, value, fitness } = self.table.get(take(7, &mut rest)?)?;
                passing.field(name, value, *fitness, before);
                continue;
            }
            let is_remembered = first & 0x40 != 0;
            let name = match take(if is_remembered { 6 } else { 4 }, &mut rest)? {
                0 => string(&mut rest)?,
                index => Text::Kept(self.table.get(index)?.name.clone()),
            };
            let value = string(&mut rest)?;
            let fitness = Fitness::of(name.as_bytes(), value.as_bytes());
            passing.field(name.as_bytes(), value.as_bytes(), fitness, before);
            if is_remembered {
                self.table.insert(Entry { name: name.keep(), value: value.keep(), fitness });
            }
        }
        let Passing { out, is_malformed, list, .. } = passing;
        Ok(match out {
            _ if is_malformed || list.breaks => {
                // h2 sees nothing of it, and misses what it would have remembered.
                self.rewrites = true;
                Passed::Malformed
            }
            Some(out) => {
                self.rewrites = true;
                Passed::Rewritten(out)
            }
            None => Passed::AsItCame,
        })
    }
}

/// A block on its way.
struct Passing {
    /// What h2 is given in its place, if it is not given the block.
    out: Option<Vec<u8>>,
    size: usize,
    most: usize,
    is_malformed: bool,
    in_pieces: bool,
    list: List,
}

impl Passing {
    fn new(out: Option<Vec<u8>>, most: usize, in_pieces: bool) -> Self {
        Self { out, size: 0, most, is_malformed: false, in_pieces, list: List::default() }
    }

    /// Takes the next field; `before` is what of the block stands before it.
    fn field(&mut self, name: &[u8], value: &[u8], fitness: Fitness, before: &[u8]) {
        self.is_malformed |= fitness == Fitness::Bad;
        if self.in_pieces {
            self.list.see(name, value);
        }
        let so_far = self.size;
        self.size += name.len() + value.len() + OVERHEAD;
        if self.is_malformed {
            return;
        }
        if fitness != Fitness::Sound && self.out.is_none() {
            // Up to here h2 unpacks what the client packed.
            self.out = Some(before.to_vec());
        }
        let Some(out) = &mut self.out else { return };
        if so_far >= self.most {
            // h2 answers that there are too many fields already.
        } else if self.size > self.most {
            put_literal(b"x", &vec![b'a'; self.most - so_far], out);
        } else if fitness == Fitness::Target {
            let mut target = Vec::with_capacity(value.len() + 16);
            target::put_stand_ins(value, &mut target);
            put_literal(name, &target, out);
        } else {
            put_literal(name, value, out);
        }
    }
}

/// Writes a literal that no table remembers (section 6.2.2).
fn put_literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.put_u8(0);
    for text in [name, value] {
        integer::put(0, 7, text.len(), out);
        out.put_slice(text);
    }
}

/// A string of a block, or of the table.
enum Text<'a> {
    Sent(&'a [u8]),
    Kept(Bytes),
}

impl Text<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sent(text) => text,
            Self::Kept(text) => text,
        }
    }

    fn keep(self) -> Bytes {
        match self {
            Self::Sent(text) => Bytes::copy_from_slice(text),
            Self::Kept(text) => text,
        }
    }
}

impl Fitness {
    fn of(name: &[u8], value: &[u8]) -> Self {
        let is_sound = match name {
            b":path" => return Self::of_target(value),
            b":method" => Method::from_bytes(value).is_ok(),
            b":scheme" | b":authority" | b":protocol" => std::str::from_utf8(value).is_ok(),
            b":status" => http::StatusCode::from_bytes(value).is_ok(),
            name => is_name(name) && value.iter().all(is_of_value),
        };
        if is_sound { Self::Sound } else { Self::Bad }
    }

    fn of_target(target: &[u8]) -> Self {
        match target {
            target if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) => Self::Bad,
            target if target.iter().all(target::is_of_uri) => Self::Sound,
            _ => Self::Target,
        }
    }
}

/// RFC 9113 section 8.2.1.
fn is_name(name: &[u8]) -> bool {
    let is_lower = |byte: &u8| is_tchar(*byte) && !byte.is_ascii_uppercase();
    !name.is_empty() && name.len() < MOST_NAME && name.iter().all(is_lower)
}

/// The longest name that the `http` crate takes.
const MOST_NAME: usize = (1 << 16) - 1;

/// The bytes of a value that the `http` crate takes (RFC 9110 section 5.5).
fn is_of_value(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

impl List {
    fn see(&mut self, name: &[u8], value: &[u8]) {
        let bit = match name {
            b":method" => 1,
            b":scheme" => 2,
            b":authority" => 4,
            b":path" => 8,
            b":protocol" => 16,
            b":status" => 32,
            name => {
                self.has_fields = true;
                self.breaks |= match name {
                    b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive"
                    | b"proxy-connection" => true,
                    b"te" => value != b"trailers",
                    _ => false,
                };
                return;
            }
        };
        self.breaks |= self.has_fields || self.pseudo & bit != 0;
        self.pseudo |= bit;
    }
}

impl Table {
    /// An entry of the static or the dynamic table (section 2.3.3).
    fn get(&self, index: usize) -> Result<&Entry, Undecodable> {
        let index = index.checked_sub(1).ok_or(Undecodable)?;
        let entry = match index.checked_sub(STATIC.len()) {
            None => FIXED.get(index),
            Some(index) => self.entries.get(index),
        };
        entry.ok_or(Undecodable)
    }

    fn insert(&mut self, entry: Entry) {
        let length = entry.name.len() + entry.value.len() + OVERHEAD;
        self.shrink(self.most.saturating_sub(length));
        // One that is larger than the table empties it (section 4.4).
        if length <= self.most {
            self.size += length;
            self.entries.push_front(entry);
        }
    }

    fn resize(&mut self, most: usize) {
        self.most = most;
        self.shrink(most);
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.name.len() + entry.value.len() + OVERHEAD;
        }
    }
}

fn take(bits: u32, rest: &mut &[u8]) -> Result<usize, Undecodable> {
    integer::take(bits, rest).and_then(|value| usize::try_from(value).ok()).ok_or(Undecodable)
}

/// Section 5.2.
fn string<'a>(rest: &mut &'a [u8]) -> Result<Text<'a>, Undecodable> {
    let is_coded = rest.first().ok_or(Undecodable)? & 0x80 != 0;
    let length = take(7, rest)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(Undecodable)?;
    *rest = behind;
    match is_coded {
        true => huffman::decode(text).map(Text::Kept).ok_or(Undecodable),
        false => Ok(Text::Sent(text)),
    }
}

static FIXED: std::sync::LazyLock<Vec<Entry>> = std::sync::LazyLock::new(|| {
    let entry = |(name, value): &(&'static str, &'static str)| Entry {
        name: Bytes::from_static(name.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        // A name without a value is there for its name; a pseudo-field without one is malformed to h2 as well.
        fitness: if name.starts_with(':') && value.is_empty() {
            Fitness::Sound
        } else {
            Fitness::of(name.as_bytes(), value.as_bytes())
        },
    };
    STATIC.iter().map(entry).collect()
});

/// The static table (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4096;

    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_literal(name, value, &mut out);
        out[0] = first;
        out
    }

    fn plain(fields: &[(&str, &str)]) -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
    }

    #[test]
    fn sound_blocks_pass_as_they_came() {
        let mut decoder = Decoder::new(MOST);
        for block in [
            &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'][..],
            &[0xbe, 0x20, 0x82],
            &[0x3f, 0xe1, 0x1f, 0xbe][..3],
            &literal(0x40, b"x-a", b"b\t\xff"),
            &[0x82, 0xbe],
            &[0x7e, 1, b'c', 0xbe, 0xbf],
            &literal(0x10, b":path", b"/a?b={}|\\^"),
            &[0x00, 0x82, 0x9d, 0x7f, 0x00],
        ] {
            let passed = decoder.pass(block, false);
            if block == [0xbe, 0x20, 0x82] {
                assert_eq!(passed, Err(Undecodable), "a size stands first");
            } else {
                assert!(matches!(passed, Ok(Passed::AsItCame) | Err(Undecodable)), "{block:x?}: {passed:?}");
            }
        }
        assert!(!decoder.rewrites());
    }

    #[test]
    fn a_bad_field_makes_its_request_malformed_and_the_next_ones_are_what_they_are() {
        let bad: [(&[u8], &[u8]); 14] = [
            (b"X-A", b"b"),
            (b"", b"b"),
            (b"", b""),
            (b"x a", b""),
            (b"x\xe4", b"b"),
            (b"x", b"a\0b"),
            (b"x", b"a\r\nb"),
            (b"x", b"\x7f"),
            (b":x", b"y"),
            (b":method", b"G T"),
            (b":method", b""),
            (b":path", b"/a b"),
            (b":authority", b"\xff"),
            (b":status", b"9"),
        ];
        for (name, value) in bad {
            let mut decoder = Decoder::new(MOST);
            assert_eq!(decoder.pass(&literal(0x40, b"kept", b"1"), false), Ok(Passed::AsItCame));
            let block = [&[0x82][..], &literal(0x40, name, value), &literal(0x40, b"kept", b"2")].concat();
            assert_eq!(decoder.pass(&block, false), Ok(Passed::Malformed), "{name:?}: {value:?}");
            // The newest is first: what came behind the bad one is remembered too.
            let next = decoder.pass(&[0x82, 0xbe, 0xc0], false);
            let expected = plain(&[(":method", "GET"), ("kept", "2"), ("kept", "1")]);
            assert_eq!(next, Ok(Passed::Rewritten(expected)), "{name:?}: {value:?}");
            assert_eq!(decoder.pass(&[0xbf], false), Ok(Passed::Malformed), "the bad one is remembered");
            assert_eq!(decoder.pass(&[0xc1], false), Err(Undecodable));
        }
    }

    #[test]
    fn a_target_goes_on_in_stand_ins_and_what_stands_before_it_as_it_came() {
        let mut decoder = Decoder::new(MOST);
        let block = [&[0x82][..], &literal(0x40, b":path", b"/?\"#\xe9"), &[0x86]].concat();
        let Ok(Passed::Rewritten(out)) = decoder.pass(&block, false) else { panic!("it is rewritten") };
        assert_eq!(out[0], 0x82);
        assert_eq!(out[1..], plain(&[(":path", "/?\u{122}\u{123}\u{1e9}"), (":scheme", "http")]));
    }

    #[test]
    fn what_h2_would_end_the_connection_for_in_pieces_is_malformed() {
        for fields in [
            &[("connection", "close")][..],
            &[("te", "gzip")],
            &[("a", "b"), (":path", "/")],
            &[(":path", "/"), (":path", "/")],
        ] {
            let block = plain(fields);
            assert_eq!(Decoder::new(MOST).pass(&block, true), Ok(Passed::Malformed), "{fields:?}");
            assert_eq!(Decoder::new(MOST).pass(&block, false), Ok(Passed::AsItCame), "h2 resets: {fields:?}");
        }
        let sound = plain(&[(":path", "/"), ("te", "trailers"), ("a", "b")]);
        assert_eq!(Decoder::new(MOST).pass(&sound, true), Ok(Passed::AsItCame));
    }

    #[test]
    fn a_list_that_is_too_large_stays_so_and_is_not_written_out() {
        let mut decoder = Decoder::new(MOST);
        assert_eq!(decoder.pass(&literal(0, b"", b""), false), Ok(Passed::Malformed));
        assert!(matches!(decoder.pass(&literal(0x40, b"x", &[b'a'; 3000]), false), Ok(Passed::Rewritten(_))));
        let Ok(Passed::Rewritten(out)) = decoder.pass(&[0xbe; 1000], false) else {
            panic!("it is rewritten")
        };
        assert!((MOST..MOST + 100).contains(&(out.len() + 2 * OVERHEAD)), "{}", out.len());
    }

    #[test]
    fn the_table_is_that_of_rfc_7541() {
        let mut table = Table { entries: VecDeque::new(), size: 0, most: 100 };
        let entry = |name: &'static str| Entry {
            name: Bytes::from_static(name.as_bytes()),
            value: Bytes::new(),
            fitness: Fitness::Sound,
        };
        for name in ["a", "b", "c", "d"] {
            table.insert(entry(name));
        }
        assert_eq!((table.size, table.entries.len()), (99, 3));
        assert_eq!(&table.get(62).unwrap().name[..], b"d");
        assert!(table.get(65).is_err() && table.get(0).is_err());
        assert_eq!(&table.get(61).unwrap().name[..], b"www-authenticate");
        table.resize(40);
        assert_eq!((table.size, table.entries.len()), (33, 1));
        table.resize(10);
        table.insert(entry("e"));
        assert!(table.entries.is_empty());
    }
}

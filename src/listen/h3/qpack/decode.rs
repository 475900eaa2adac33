//! Reading field sections (RFC 9204 section 4.5).

use bytes::{Buf, Bytes};

use super::{huffman, integer, table::FIELDS};

/// A field line, its name as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Bytes,
    pub value: Bytes,
}

/// Why a section is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is no field section (QPACK_DECOMPRESSION_FAILED).
    Malformed,
    /// It is larger than allowed.
    TooLarge,
}

/// The field lines of a section, one after the other.
#[derive(Debug)]
pub struct Fields {
    section: Bytes,
    prefixed: bool,
    /// Bytes that the fields may still have, as RFC 9114 section 4.2.2 counts them.
    left: usize,
}

/// What each field counts beside its name and value.
const OVERHEAD: usize = 32;

impl Fields {
    /// `most`: the size that the section may have.
    pub fn new(section: Bytes, most: usize) -> Self {
        Self { section, prefixed: false, left: most }
    }

    /// Nothing of a dynamic table may be asked for, since none is allowed: a Required Insert Count of zero, and a Base
    /// that is not negative (RFC 9204 section 4.5.1).
    fn prefix(&mut self) -> Option<()> {
        let count = integer::take(8, &mut self.section)?;
        let negative = *self.section.first()? & 0x80 != 0;
        integer::take(7, &mut self.section)?;
        self.prefixed = true;
        (count == 0 && !negative).then_some(())
    }

    fn line(&mut self) -> Option<Field> {
        let first = *self.section.first()?;
        if first & 0x80 != 0 {
            // Indexed Field Line; one of the dynamic table has no 0x40.
            let (name, value) = self.indexed(first & 0x40 != 0, 6)?;
            return Some(Field {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            });
        }
        let name = if first & 0x40 != 0 {
            // Literal Field Line with Name Reference.
            Bytes::from_static(self.indexed(first & 0x10 != 0, 4)?.0.as_bytes())
        } else if first & 0x20 != 0 {
            // Literal Field Line with Literal Name.
            self.string(3)?
        } else {
            // Both forms with a Post-Base Index are of the dynamic table.
            return None;
        };
        Some(Field { name, value: self.string(7)? })
    }

    fn indexed(&mut self, is_static: bool, bits: u32) -> Option<(&'static str, &'static str)> {
        let index = integer::take(bits, &mut self.section).filter(|_| is_static)?;
        FIELDS.get(usize::try_from(index).ok()?).copied()
    }

    /// A string whose length has these bits in the first byte, beside the one that says whether it is coded.
    fn string(&mut self, bits: u32) -> Option<Bytes> {
        let is_coded = *self.section.first()? & (1 << bits) != 0;
        let length = usize::try_from(integer::take(bits, &mut self.section)?).ok()?;
        if length > self.section.remaining() {
            return None;
        }
        let text = self.section.split_to(length);
        match is_coded {
            true => huffman::decode(&text),
            false => Some(text),
        }
    }

    fn counted(&mut self, field: Field) -> Result<Field, Broken> {
        let size = field.name.len() + field.value.len() + OVERHEAD;
        self.left = self.left.checked_sub(size).ok_or(Broken::TooLarge)?;
        Ok(field)
    }
}

impl Iterator for Fields {
    type Item = Result<Field, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.prefixed && self.prefix().is_none() {
            return Some(Err(Broken::Malformed));
        }
        if self.section.is_empty() {
            return None;
        }
        Some(self.line().ok_or(Broken::Malformed).and_then(|field| self.counted(field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(section: &[u8], most: usize) -> Result<Vec<(String, String)>, Broken> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = Fields::new(Bytes::copy_from_slice(section), most);
        fields.map(|field| field.map(|field| (text(field.name), text(field.value)))).collect()
    }

    #[test]
    fn the_example_of_rfc_9204_is_read() {
        let section = b"\x00\x00\x51\x0b/index.html";
        assert_eq!(read(section, 100).unwrap(), [(":path".to_owned(), "/index.html".to_owned())]);
    }

    #[test]
    fn every_form_of_the_static_table_is_read() {
        let section = b"\x00\x00\xd1\x50\x01a\x23xyz\x03abc\x27\x01abcdefgh\x86\xa8\xeb\x10\x64\x9c\xbf";
        let read = read(section, 1000);
        assert_eq!(read.as_ref().map(Vec::len).ok(), Some(4), "{read:?}");
        let read = read.unwrap();
        assert_eq!(read[0], (":method".to_owned(), "GET".to_owned()));
        assert_eq!(read[1], (":authority".to_owned(), "a".to_owned()));
        assert_eq!(read[2], ("xyz".to_owned(), "abc".to_owned()));
        assert_eq!(read[3], ("abcdefgh".to_owned(), "no-cache".to_owned()));
    }

    #[test]
    fn what_asks_for_a_dynamic_table_or_ends_early_is_refused() {
        let cases: [&[u8]; 12] = [
            b"",
            b"\x00",
            b"\x01\x00\xd1",
            b"\x00\x80\xd1",
            b"\x00\x00\x80",
            b"\x00\x00\x40\x01a",
            b"\x00\x00\x10",
            b"\x00\x00\x00\x01a",
            b"\x00\x00\xff\x24",
            b"\x00\x00\x51\x0b/short",
            b"\x00\x00\x23xy",
            b"\x00\x00\x51\x81\x00",
        ];
        for section in cases {
            assert_eq!(read(section, 1000), Err(Broken::Malformed), "{section:x?}");
        }
    }

    #[test]
    fn a_section_is_as_large_as_its_fields_with_32_bytes_each() {
        let section = b"\x00\x00\xd1\xd1";
        assert!(read(section, 2 * (7 + 3 + 32)).is_ok());
        assert_eq!(read(section, 2 * (7 + 3 + 32) - 1), Err(Broken::TooLarge));
    }
}

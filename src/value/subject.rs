//! Whom a certificate is of: a distinguished name, written as RFC 4514 does.

use std::{borrow::Cow, fmt, fmt::Write, str::FromStr};

/// A distinguished name in the one form in which equal ones are equal texts: the innermost part first, without spaces
/// between parts, types by the names of the table, everything that could be taken for another part escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Box<str>);

super::text_value!(
    Subject,
    "subject",
    "A distinguished name (RFC 4514).",
    "CN=ann,O=Acme\\\\, Inc.,C=DE",
    "CN=builder,OU=ci,DC=example,DC=com"
);

/// One attribute of a name.
pub struct Attribute {
    /// The object identifier of its type, as 2.5.4.3.
    pub oid: String,
    /// Its value, where that is a text.
    pub text: Option<String>,
    /// The value as the certificate holds it.
    pub der: Vec<u8>,
}

/// Types that have names: those of RFC 4514 section 3, and the others that openssl writes by name.
const TYPES: [(&str, &str); 16] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

impl Subject {
    /// The name of these sets of attributes, in a certificate's order.
    pub fn of(sets: &[Vec<Attribute>]) -> Self {
        // RFC 4514 section 2.1: the last comes first.
        Self::join(sets.iter().rev().map(|set| set.iter().map(Attribute::write).collect()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn join(sets: impl Iterator<Item = Vec<String>>) -> Self {
        let sets: Vec<String> = sets
            .map(|mut set| {
                // The attributes of a set have no order.
                set.sort_unstable();
                set.join("+")
            })
            .collect();
        Self(sets.join(",").into())
    }
}

impl Attribute {
    fn write(&self) -> String {
        let known = TYPES.iter().find(|(oid, _)| *oid == self.oid);
        match (known, &self.text) {
            (Some((_, name)), Some(text)) => format!("{name}={}", escape(text)),
            (Some((_, name)), None) => format!("{name}=#{}", hex(&self.der)),
            // RFC 4514 section 2.4: whatever it is.
            (None, _) => format!("{}=#{}", self.oid, hex(&self.der)),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sets: Result<Vec<Vec<String>>, String> =
            split(text, ',').map(|set| split(set, '+').map(attribute).collect()).collect();
        let sets = sets.map_err(|reason| format!("{reason}: a name is written as \"CN=ann,O=Acme,C=DE\""))?;
        Ok(Self::join(sets.into_iter()))
    }
}

/// An attribute as it is written, in our form.
fn attribute(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{:?} is no TYPE=VALUE", text.trim()))?;
    let (name, value) = (name.trim(), trim(value));
    let known = TYPES.iter().find(|(oid, known)| known.eq_ignore_ascii_case(name) || *oid == name);
    let is_oid = name.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    match (known, value.strip_prefix('#')) {
        (Some((_, name)), Some(digits)) => Ok(format!("{name}=#{}", hexadecimal(digits)?)),
        (None, Some(digits)) if is_oid => Ok(format!("{name}=#{}", hexadecimal(digits)?)),
        (Some((_, name)), None) => Ok(format!("{name}={}", escape(&unescape(value)?))),
        (None, None) if is_oid => Err(format!("the value of {name} stands in hexadecimal, after #")),
        (None, _) => Err(format!("{name:?} is no type of attribute that is known")),
    }
}

/// The parts between separators that are not escaped.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

/// Without the spaces around it that are not escaped.
fn trim(value: &str) -> &str {
    let value = value.trim_start_matches(' ');
    let trimmed = value.trim_end_matches(' ');
    let backslashes = trimmed.bytes().rev().take_while(|byte| *byte == b'\\').count();
    match backslashes % 2 == 1 && trimmed.len() < value.len() {
        true => &value[..=trimmed.len()],
        false => trimmed,
    }
}

/// RFC 4514 section 3: a backslash stands before a character, or before two digits that are a byte of UTF-8.
fn unescape(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (*first, after) {
            (b'\\', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = &after[2..];
            }
            (b'\\', [special, ..]) if b" \"#+,;<=>\\".contains(special) => {
                bytes.push(*special);
                rest = &after[1..];
            }
            (b'\\', _) => return Err("a backslash escapes nothing here".into()),
            (b'"' | b';' | b'<' | b'>', _) => {
                return Err(format!("{:?} has to be escaped by a backslash", char::from(*first)));
            }
            (plain, _) => bytes.push(plain),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the escaped bytes are not UTF-8".into())
}

/// RFC 4514 section 2.4; control characters as bytes, so that a name can stand in a field and a line.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', c]),
            ' ' if at == 0 || at == last => escaped.push_str("\\ "),
            '#' if at == 0 => escaped.push_str("\\#"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(escaped, "\\{byte:02X}").expect("a String takes all that is written");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn hexadecimal(digits: &str) -> Result<Cow<'_, str>, String> {
    match !digits.is_empty()
        && digits.len().is_multiple_of(2)
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        true => Ok(digits.to_ascii_lowercase().into()),
        false => Err(format!("{digits:?} is not hexadecimal")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

fn digit(hexadecimal: u8) -> u8 {
    match hexadecimal {
        b'0'..=b'9' => hexadecimal - b'0',
        other => (other | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sets: &[&[(&str, &str)]]) -> String {
        let attribute = |(oid, text): &(&str, &str)| Attribute {
            oid: (*oid).to_owned(),
            text: Some((*text).to_owned()),
            der: b"\x0c\x01a".to_vec(),
        };
        let sets: Vec<Vec<_>> = sets.iter().map(|set| set.iter().map(attribute).collect()).collect();
        Subject::of(&sets).0.into()
    }

    const CN: &str = "2.5.4.3";
    const O: &str = "2.5.4.10";

    #[test]
    fn no_value_can_look_like_another_part() {
        assert_eq!(of(&[&[("2.5.4.6", "DE")], &[(O, "Acme")], &[(CN, "ann")]]), "CN=ann,O=Acme,C=DE");
        assert_eq!(of(&[&[(CN, "ann,O=Acme")]]), "CN=ann\\,O=Acme");
        assert_eq!(of(&[&[(CN, "a+O=b")]]), "CN=a\\+O=b");
        assert_eq!(of(&[&[(O, "b"), (CN, "a")]]), "CN=a+O=b");
        assert_eq!(of(&[&[(CN, " #a \\\"<;> ")]]), "CN=\\ #a \\\\\\\"\\<\\;\\>\\ ");
        assert_eq!(of(&[&[(CN, "#a")]]), "CN=\\#a");
        assert_eq!(of(&[&[(CN, "a\r\nb\0\u{85}")]]), "CN=a\\0D\\0Ab\\00\\C2\\85");
        assert_eq!(of(&[&[(CN, "Jürgen")]]), "CN=Jürgen");
        assert_eq!(of(&[&[("1.2.3", "a")]]), "1.2.3=#0c0161");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn what_is_written_comes_to_the_same_form() {
        for (written, form) in [
            ("CN=ann,O=Acme,C=DE", "CN=ann,O=Acme,C=DE"),
            ("cn = ann, o = Acme Inc , 2.5.4.6=DE", "CN=ann,O=Acme Inc,C=DE"),
            ("CN=ann\\2cO\\=Acme", "CN=ann\\,O=Acme"),
            ("O=b+CN=a", "CN=a+O=b"),
            ("CN=J\\C3\\BCrgen\\ ", "CN=Jürgen\\ "),
            ("CN=a\\\\ ,O=b", "CN=a\\\\,O=b"),
            ("1.2.3=#0C0161", "1.2.3=#0c0161"),
            ("CN=,O=b", "CN=,O=b"),
        ] {
            assert_eq!(written.parse::<Subject>().unwrap().as_str(), form, "{written}");
            assert_eq!(form.parse::<Subject>().unwrap().as_str(), form, "{form}");
        }
        for wrong in
            ["", "ann", "/C=DE/CN=ann", "CN=a,", "X=a", "CN=a\\", "CN=a\\x", "CN=\"a\"", "CN=#0", "1.2.3=a"]
        {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong:?}");
        }
    }
}

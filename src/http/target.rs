//! Request targets (RFC 9112 section 3.2), and what a URI that was read of one does not say.
//!
//! Every graphic ASCII character but `#` may stand in a path and in a query, by every protocol. The `http` crate's URI holds
//! all of them but `"`, `<`, `>` and the backtick. Where one of these came, the URI has it percent-encoded, and [`Raw`] beside it
//! keeps the target as it came.

use bytes::Bytes;
use http::{
    Uri, request,
    uri::{InvalidUri, PathAndQuery},
};

/// Stands among the extensions of an OPTIONS whose target is a URI without a path: it asks of the whole server, which a
/// URI that was read does not say any more (RFC 9112 section 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeServer;

/// Stands among the extensions of a head whose URI has not the path and query that came: these are they.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(Bytes);

impl Raw {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only graphic ASCII is kept as a raw target")
    }
}

/// Whether every byte may stand in a target. A fragment is no part of one.
pub fn is_sound(target: &[u8]) -> bool {
    target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}

/// Reads a path with its query. `None` where it is none.
pub fn read(text: Bytes) -> Option<(PathAndQuery, Option<Raw>)> {
    if !is_sound(&text) {
        return None;
    }
    if let Ok(target) = PathAndQuery::from_maybe_shared(text.clone()) {
        return Some((target, None));
    }
    let target = PathAndQuery::from_maybe_shared(encoded(&text)?).ok()?;
    Some((target, Some(Raw(text))))
}

/// Reads a target in any form. `None` where it is none.
pub fn read_any(text: Bytes) -> Option<(Uri, Option<Raw>)> {
    if !is_sound(&text) {
        return None;
    }
    if let Ok(uri) = Uri::from_maybe_shared(text.clone()) {
        return Some((uri, None));
    }
    let (place, path) = text.split_at(path_start(&text));
    let encoded = [place, &encoded(path)?].concat();
    let uri = Uri::try_from(encoded).ok()?;
    Some((uri, Some(Raw(text.slice(place.len()..)))))
}

/// Makes this path and query the head's target, in origin form.
pub fn set(head: &mut request::Parts, target: String) -> Result<(), InvalidUri> {
    head.extensions.remove::<Raw>();
    let Err(error) = PathAndQuery::try_from(target.as_str()).map(|target| head.uri = target.into()) else {
        return Ok(());
    };
    let encoded = encoded(target.as_bytes()).filter(|_| is_sound(target.as_bytes())).ok_or(error)?;
    head.uri = PathAndQuery::from_maybe_shared(encoded)?.into();
    head.extensions.insert(Raw(target.into()));
    Ok(())
}

/// The head's path and query as they came. Empty where there are none.
pub fn of(head: &request::Parts) -> &str {
    match head.extensions.get::<Raw>() {
        Some(raw) => raw.as_str(),
        None => head.uri.path_and_query().map_or("", PathAndQuery::as_str),
    }
}

/// The head's query as it came.
pub fn query(head: &request::Parts) -> Option<&str> {
    match head.extensions.get::<Raw>() {
        Some(raw) => raw.as_str().split_once('?').map(|(_, query)| query),
        None => head.uri.query(),
    }
}

/// Percent-encodes what a URI does not hold. `None` where there is nothing to encode.
pub fn encoded(text: &[u8]) -> Option<Bytes> {
    text.iter().any(is_encoded).then_some(())?;
    let mut out = Vec::with_capacity(text.len() + 16);
    for byte in text {
        match is_encoded(byte) {
            true => out.extend_from_slice(escape(*byte)),
            false => out.push(*byte),
        }
    }
    Some(out.into())
}

fn is_encoded(byte: &u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

fn escape(byte: u8) -> &'static [u8] {
    match byte {
        b'"' => b"%22",
        b'<' => b"%3C",
        b'>' => b"%3E",
        _ => b"%60",
    }
}

/// Whether the `http` crate's URI holds the byte.
pub fn is_of_uri(byte: &u8) -> bool {
    byte.is_ascii_graphic() && *byte != b'#' && !is_encoded(byte)
}

/// Where stand-ins begin: characters that the `http` crate takes in a target, for bytes that it does not.
const STAND_INS: u32 = 0x100;

/// Writes a target so that the `http` crate reads it, whatever graphic bytes it has: h2 hands over no other.
/// [`restored`] undoes it.
pub fn put_stand_ins(target: &[u8], out: &mut Vec<u8>) {
    for byte in target {
        match is_of_uri(byte) {
            true => out.push(*byte),
            false => {
                let stand_in =
                    char::from_u32(STAND_INS + u32::from(*byte)).expect("it is below the surrogates");
                out.extend_from_slice(stand_in.encode_utf8(&mut [0; 2]).as_bytes());
            }
        }
    }
}

/// The bytes of a target that was written with stand-ins.
pub fn restored(target: &str) -> Bytes {
    // No other character beyond ASCII is in it: where one came, each of its bytes got a stand-in.
    let byte = |character: char| u8::try_from(u32::from(character) & 0xff).unwrap_or_default();
    target.chars().map(byte).collect()
}

/// Where path and query of a target begin, in absolute form behind its authority.
fn path_start(text: &[u8]) -> usize {
    if text.starts_with(b"/") {
        return 0;
    }
    let authority = memchr::memmem::find(text, b"://").map_or(0, |at| at + 3);
    let path = text[authority..].iter().position(|byte| matches!(byte, b'/' | b'?'));
    path.map_or(text.len(), |at| authority + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPHIC: &str = "!\"$%&'()*+,-./0123456789:;<=>?@ABC[\\]^_`abc{|}~";

    #[test]
    fn every_graphic_character_but_the_fragments_stands_in_path_and_query() {
        for text in [format!("/{GRAPHIC}"), format!("/a?{GRAPHIC}")] {
            for character in text[1..].chars() {
                let target = format!("/a?{character}");
                let (read, raw) = read(target.clone().into()).unwrap_or_else(|| panic!("{target}"));
                assert_eq!(raw.map_or(read.as_str().to_owned(), |raw| raw.as_str().to_owned()), target);
            }
            let (target, raw) = read(text.clone().into()).unwrap();
            assert_eq!(raw.unwrap().as_str(), text);
            assert!(target.as_str().contains("%3C") && !target.as_str().contains('<'), "{target}");
            let (uri, raw) = read_any(format!("http://a.test:80{text}").into()).unwrap();
            assert_eq!((uri.authority().unwrap().as_str(), raw.unwrap().as_str()), ("a.test:80", &*text));
        }
        for wrong in ["/#", "/a?b#", "/ ", "/\t", "/\u{7f}", "/\u{e4}", "a", ""] {
            assert!(read(wrong.into()).is_none(), "{wrong:?}");
        }
        assert!(read_any("http://a\"b/".into()).is_none(), "an authority holds none of them");
    }

    #[test]
    fn stand_ins_are_read_and_restored_whatever_they_stand_for() {
        let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
        let target = [b"/", &all[..], b"?", &all[..]].concat();
        let mut written = Vec::new();
        put_stand_ins(&target, &mut written);
        let read = PathAndQuery::from_maybe_shared(Bytes::from(written)).unwrap();
        assert_eq!(restored(read.as_str()), target);
    }

    #[test]
    fn what_is_set_is_what_is_there() {
        let mut head = http::Request::new(()).into_parts().0;
        set(&mut head, "/a?b=\"<c>\"".into()).unwrap();
        assert_eq!((of(&head), query(&head)), ("/a?b=\"<c>\"", Some("b=\"<c>\"")));
        assert_eq!(head.uri, "/a?b=%22%3Cc%3E%22");
        set(&mut head, "/a?b".into()).unwrap();
        assert_eq!((of(&head), query(&head)), ("/a?b", Some("b")));
        assert!(set(&mut head, "a".into()).is_err());
    }
}

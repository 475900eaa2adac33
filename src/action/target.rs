//! Where requests are sent, upstream or by redirects.

use std::{borrow::Cow, fmt::Write as _};

use crate::http::path::{self, EncodedSlash};

/// Percent-encodes what may not stand in a URI unencoded (RFC 3986 section 2): what variables hold is
/// not always a piece of one.
pub(super) fn escape(target: &mut String) {
    if target.bytes().all(may_stand) {
        return;
    }
    let mut escaped = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match may_stand(byte) {
            true => escaped.push(char::from(byte)),
            false => write!(escaped, "%{byte:02X}").expect("a String takes all that is written"),
        }
    }
    *target = escaped;
}

/// Makes a path as it is sent of one that pieces of requests were put together to, before its query: escaped, and in the
/// spelling that paths have behind routing. Each piece was harmless where it stood; together they may be dot segments,
/// which upstreams would resolve, or an escape cut in half: then there is none.
pub(super) fn settle(target: &mut String) -> Option<()> {
    escape(target);
    let end = target.find('?').unwrap_or(target.len());
    if has_dots(&target[..end]) {
        return None;
    }
    if let Cow::Owned(path) = path::normalise(&target[..end], EncodedSlash::Keep).ok()? {
        target.replace_range(..end, &path);
    }
    Some(())
}

/// Whether a dot segment is in a path (RFC 3986 section 5.2.4).
pub(super) fn has_dots(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn may_stand(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
pub(super) mod testing {
    //! A request for tests of actions.

    use crate::value::{Span, Spanned, Variable, Variables};

    pub(crate) struct Fixed<'a> {
        pub path: &'a str,
        pub query: Option<&'a str>,
        pub captures: &'a [&'a str],
    }

    impl Variables for Fixed<'_> {
        fn capture(&self, index: usize) -> &str {
            self.captures[index]
        }

        fn variable(&self, variable: Variable, out: &mut String) {
            out.push_str(match variable {
                Variable::RequestHost => "example.com",
                Variable::RequestPath => self.path,
                Variable::RequestQuery => self.query.unwrap_or_default(),
                _ => "",
            });
        }
    }

    pub(crate) fn spanned<T>(value: T) -> Spanned<T> {
        Spanned::new(value, Span::default())
    }
}

//! What a response depends on beside its target (RFC 9110 section 12.5.5).

use http::{HeaderMap, HeaderValue, header};

use super::list;

/// Says that a response depends on a field of the request, unless that is said already.
pub fn add(headers: &mut HeaderMap, field: &'static str) {
    let is_said = list::texts(headers.get_all(header::VARY))
        .any(|name| name == "*" || name.eq_ignore_ascii_case(field));
    if !is_said {
        headers.append(header::VARY, HeaderValue::from_static(field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_once() {
        for (given, wanted) in [
            (&[][..], &["Origin"][..]),
            (&["accept, origin"], &["accept, origin"]),
            (&["*"], &["*"]),
            (&["Accept", "X-Origin"], &["Accept", "X-Origin", "Origin"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in given {
                headers.append(header::VARY, HeaderValue::from_static(line));
            }
            add(&mut headers, "Origin");
            assert!(headers.get_all(header::VARY).iter().eq(wanted), "{headers:?}");
        }
    }
}

//! Conditions on header fields. Several lines of one field count as one value, joined by ", " (RFC 9110
//! section 5.3), so that no request has two values at once.

use std::fmt;

use http::HeaderName;

use super::{Facts, text::Test};

/// A header field passes a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub name: HeaderName,
    pub test: Test,
}

impl Header {
    pub fn holds(&self, facts: &impl Facts) -> bool {
        let mut lines = facts.header(&self.name);
        let first = lines.next();
        match lines.next() {
            None => self.test.holds(first),
            Some(second) => {
                let all: Vec<&[u8]> = first.into_iter().chain([second]).chain(lines).collect();
                self.test.holds(Some(&all.join(&b", "[..])))
            }
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header {} {}", self.name, self.test)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::matcher::Head;

    fn holds(test: Test, lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-beta", HeaderValue::from_static(line));
        }
        let head = Head {
            method: &Method::GET,
            headers: &headers,
            query: None,
            client_ip: [127, 0, 0, 1].into(),
            to_proxy: false,
        };
        Header { name: HeaderName::from_static("x-beta"), test }.holds(&head)
    }

    #[test]
    fn a_field_of_one_line_is_compared_as_it_is() {
        assert!(holds(Test::Equals("1".into()), &["1"]));
        assert!(!holds(Test::Equals("1".into()), &["10"]));
        assert!(!holds(Test::Equals("1".into()), &[]));
        assert!(!holds(Test::Equals("a".into()), &["A"]));
        assert!(holds(Test::Present, &[""]));
        assert!(holds(Test::Absent, &[]));
    }

    #[test]
    fn several_lines_are_one_value() {
        assert!(!holds(Test::Equals("1".into()), &["1", "2"]));
        assert!(holds(Test::Equals("1, 2, 3".into()), &["1", "2", "3"]));
    }
}

//! Which media type a client wants (RFC 9110 section 12.5.1).

use http::{HeaderMap, HeaderValue, header};

/// What Accept says, kept for an answer that may have to be made once the request is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept(Vec<HeaderValue>);

impl Accept {
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::ACCEPT).iter().cloned().collect())
    }

    /// The place of the type that is wanted most; the first of those that are wanted alike, and the first of all
    /// where none is.
    pub fn choose(&self, offered: &[&str]) -> usize {
        let mut best = (0, 0);
        for (place, kind) in offered.iter().enumerate() {
            let weight = self.weight(kind);
            if weight > best.0 {
                best = (weight, place);
            }
        }
        best.1
    }

    /// In thousandths, by the range that fits most closely. Nothing said is everything wanted.
    fn weight(&self, kind: &str) -> u16 {
        let ranges = super::list::texts(&self.0).filter_map(Range::read);
        let fitting = ranges.filter_map(|range| Some((range.closeness(kind)?, range.weight)));
        match fitting.max_by_key(|(closeness, _)| *closeness) {
            Some((_, weight)) => weight,
            None if self.0.is_empty() => 1000,
            None => 0,
        }
    }
}

/// `text/html`, `text/*;q=0.5`, `*/*`. Parameters other than the weight are no matter of error pages.
struct Range<'a> {
    kind: &'a str,
    weight: u16,
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| kind.contains('/'))?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(Self { kind, weight: weight.map_or(Some(1000), super::weight::thousandths)? })
    }

    fn closeness(&self, kind: &str) -> Option<u8> {
        let of_type = || {
            let all = self.kind.strip_suffix("/*")?;
            let major = kind.split('/').next()?;
            all.eq_ignore_ascii_case(major).then_some(1)
        };
        match self.kind {
            "*/*" => Some(0),
            exact if exact.eq_ignore_ascii_case(kind) => Some(2),
            _ => of_type(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [&str; 3] = ["application/json", "text/html", "text/plain"];

    fn chosen(lines: &[&str]) -> &'static str {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        OFFERED[Accept::of(&headers).choose(&OFFERED)]
    }

    #[test]
    fn the_closest_range_says_how_much_a_type_is_wanted() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(chosen(&[browser]), "text/html");
        assert_eq!(chosen(&["text/*, text/html;q=0.1"]), "text/plain");
        assert_eq!(chosen(&["*/*;q=0.1", "TEXT/Plain; charset=utf-8; q=0.2"]), "text/plain");
        for json in [&[][..], &["*/*"], &["image/png"], &["text/html;q=0"], &["text/html;q=x"], &["nonsense"]]
        {
            assert_eq!(chosen(json), "application/json", "{json:?}");
        }
    }
}

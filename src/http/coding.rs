//! Content codings (RFC 9110 section 8.4.1): which one a client wants.

use http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::Deserialize;

/// A coding that responses may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ContentCoding")]
pub enum Coding {
    /// RFC 8878
    Zstd,
    /// Brotli (RFC 7932)
    Br,
    /// RFC 1952
    Gzip,
}

// === impl Coding ===

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of this name (RFC 9110 section 8.4.1), in any case.
    pub fn named(name: &str) -> Option<Self> {
        const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];
        let is = |coding: &Self| coding.name().eq_ignore_ascii_case(name);
        CODINGS.into_iter().find(is).or(name.eq_ignore_ascii_case("x-gzip").then_some(Self::Gzip))
    }

    /// The coding that a client wants most of those on offer, whose order decides where it wants several
    /// alike (RFC 9110 section 12.5.3). `None`: it shall have the body as it is.
    pub fn wanted(headers: &HeaderMap, offered: &[Self]) -> Option<Self> {
        let accepted = Accepted::of(headers);
        let mut best = (accepted.weight("identity").unwrap_or(0), None);
        for coding in offered {
            let weight = accepted.weight(coding.name()).unwrap_or(0);
            if weight > 0 && (weight > best.0 || (weight == best.0 && best.1.is_none())) {
                best = (weight, Some(*coding));
            }
        }
        best.1
    }
}

/// What Accept-Encoding says, with weights in thousandths.
struct Accepted<'a>(Vec<(&'a str, u16)>);

impl<'a> Accepted<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let elements = super::list::texts(headers.get_all(header::ACCEPT_ENCODING));
        Self(elements.filter_map(element).collect())
    }

    /// `None` where nothing is said of it: a coding is not wanted then, and "identity" is as good as none.
    fn weight(&self, name: &str) -> Option<u16> {
        let find = |wanted: &str| {
            self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, weight)| *weight)
        };
        let any = || if name == "identity" { find("*").filter(|weight| *weight == 0) } else { find("*") };
        find(name).or_else(|| if name == "gzip" { find("x-gzip") } else { None }).or_else(any)
    }
}

/// `gzip`, `br;q=0.5`; what is malformed is as if it were not there.
fn element(text: &str) -> Option<(&str, u16)> {
    let Some((name, parameter)) = text.split_once(';') else { return Some((text, 1000)) };
    let (key, value) = parameter.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    Some((name.trim(), super::weight::thousandths(value.trim())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn wanted(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        Coding::wanted(&headers, &ALL)
    }

    #[test]
    fn the_client_chooses_and_then_the_operator() {
        assert_eq!(wanted("gzip, br, zstd"), Some(Coding::Zstd));
        assert_eq!(wanted("gzip, br;q=0.9, zstd;q=0.5"), Some(Coding::Gzip));
        assert_eq!(wanted("GZIP;q=0.001"), Some(Coding::Gzip));
        assert_eq!(wanted("identity;q=0, gzip;q=0.001"), Some(Coding::Gzip));
        assert_eq!(wanted("*"), Some(Coding::Zstd));
        assert_eq!(wanted("*, zstd;q=0, br; q=0"), Some(Coding::Gzip));
        assert_eq!(wanted("x-gzip"), Some(Coding::Gzip));
        for none in [
            "",
            "identity",
            "identity, gzip;q=0.5",
            "deflate",
            "gzip;q=0",
            "gzip;q=2",
            "gzip;level=3",
            "*;q=0",
        ] {
            assert_eq!(wanted(none), None, "{none:?}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new(), &ALL), None);
    }
}

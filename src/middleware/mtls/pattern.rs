//! Which certificates are meant: patterns of their names, and fingerprints.

use std::str::FromStr;

use crate::value::text_value;

/// A name, or `*.` and a suffix: every name below it, as names of hosts have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPattern {
    /// In lower case, without the dot at the end.
    name: Box<str>,
    below: bool,
}

/// A URI, or one that ends in `/*`: every one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriPattern {
    /// With the slash at the end, where it is all below.
    uri: Box<str>,
    below: bool,
}

/// An address, or `*@` and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailPattern {
    local: Option<Box<str>>,
    domain: Box<str>,
}

/// A certificate's SHA-256, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(Box<str>);

text_value!(
    DnsPattern,
    "dns-pattern",
    "A DNS name, or every name below one.",
    "shop.svc.example",
    "*.svc.example"
);
text_value!(
    UriPattern,
    "uri-pattern",
    "A URI, or every one below it.",
    "spiffe://example.org/ns/shop/sa/web",
    "spiffe://example.org/ns/shop/*"
);
text_value!(
    EmailPattern,
    "email-pattern",
    "An e-mail address, or every one of a domain.",
    "ann@example.com",
    "*@example.com"
);
text_value!(
    Fingerprint,
    "certificate-fingerprint",
    "A certificate's SHA-256 in hexadecimal, with colons or without.",
    "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
);

impl DnsPattern {
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !self.below {
            return name.eq_ignore_ascii_case(&self.name);
        }
        let Some((rest, suffix)) =
            name.len().checked_sub(self.name.len()).and_then(|at| name.split_at_checked(at))
        else {
            return false;
        };
        suffix.eq_ignore_ascii_case(&self.name) && rest.len() > 1 && rest.ends_with('.')
    }
}

impl UriPattern {
    pub fn matches(&self, uri: &str) -> bool {
        match uri.strip_prefix(&*self.uri) {
            Some(rest) if self.below => !rest.is_empty() && stays_below(rest),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

/// Whether nobody who resolves the path comes out of it.
fn stays_below(path: &str) -> bool {
    !path.split('/').any(|segment| matches!(segment, "." | "..")) && !path.contains('%')
}

impl EmailPattern {
    /// The local part is the domain's own business (RFC 5321 section 2.4): its case counts.
    pub fn matches(&self, address: &str) -> bool {
        let Some((local, domain)) = address.rsplit_once('@') else { return false };
        domain.eq_ignore_ascii_case(&self.domain) && self.local.as_deref().is_none_or(|own| own == local)
    }
}

impl Fingerprint {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |suffix| (suffix, true));
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        match name.split('.').all(is_label) {
            true => Ok(Self { name: name.to_ascii_lowercase().into(), below }),
            false => Err(format!(
                "{text:?} is no DNS name; \"*\" stands as the whole first label, as in \"*.svc.example\""
            )),
        }
    }
}

impl FromStr for UriPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uri, below) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        let has_scheme = uri.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                && !rest.is_empty()
        });
        if !has_scheme || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{text:?} is no URI, as spiffe://example.org/ns/shop/sa/web"));
        }
        // What is below has to lie in something: a trust domain at least.
        let lies_in_something = uri.ends_with('/') && !uri.ends_with("//") && !uri.ends_with(":/");
        match uri.contains('*') || (below && !lies_in_something) {
            true => Err(format!("{text:?}: \"*\" stands as the last segment, for all that is below")),
            false => Ok(Self { uri: uri.into(), below }),
        }
    }
}

impl FromStr for EmailPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('@').filter(|(local, domain)| {
            let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
            fits(local) && fits(domain) && !domain.contains('*') && (*local == "*" || !local.contains('*'))
        });
        let (local, domain) = parts.ok_or_else(|| {
            format!("{text:?} is no e-mail address; \"*\" stands for the whole of what is before the @")
        })?;
        Ok(Self { local: (local != "*").then(|| local.into()), domain: domain.to_ascii_lowercase().into() })
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(Self(digits.to_ascii_lowercase().into())),
            false => Err(format!(
                "{text:?} is no SHA-256 in 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T: FromStr<Err = String>>(
        pattern: &str,
        matches: impl Fn(&T, &str) -> bool,
        yes: &[&str],
        no: &[&str],
    ) {
        let compiled = pattern.parse::<T>().unwrap();
        for name in yes {
            assert!(matches(&compiled, name), "{pattern} {name}");
        }
        for name in no {
            assert!(!matches(&compiled, name), "{pattern} {name}");
        }
    }

    #[test]
    fn dns_names_match_whole_labels_in_any_case() {
        let matches = DnsPattern::matches;
        all(
            "Shop.example",
            matches,
            &["shop.EXAMPLE", "shop.example."],
            &["a.shop.example", "*.example", ""],
        );
        all(
            "*.svc.example",
            matches,
            &["a.svc.example", "a.b.SVC.example", "*.svc.example"],
            &["svc.example", ".svc.example", "asvc.example", "svc.example.com", "", "é.example"],
        );
        for wrong in ["*", "*.", "a.*.b", "a*.b", "a b", "a..b", "http://a"] {
            assert!(wrong.parse::<DnsPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn uris_match_whole_segments() {
        let matches = UriPattern::matches;
        all("spiffe://a/ns/x", matches, &["spiffe://a/ns/x"], &["spiffe://a/ns/x/y", "spiffe://a/ns/X", ""]);
        all(
            "spiffe://a/ns/*",
            matches,
            &["spiffe://a/ns/x", "spiffe://a/ns/x/y"],
            &[
                "spiffe://a/ns/",
                "spiffe://a/ns",
                "spiffe://a/nsx/y",
                "spiffe://a/ns/../b",
                "spiffe://a/ns/%2e./b",
            ],
        );
        all("spiffe://a/*", matches, &["spiffe://a/x"], &["spiffe://ab/x", "spiffe://b/a/x"]);
        for wrong in
            ["a", "/a/*", "*", "spiffe://*", "spiffe:/*", "spiffe://a*", "spiffe://a/*/b", "spiffe://a/**"]
        {
            assert!(wrong.parse::<UriPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_match_whole_domains() {
        let matches = EmailPattern::matches;
        all(
            "ann@Example.com",
            matches,
            &["ann@example.COM"],
            &["Ann@example.com", "ann@a.example.com", "ann"],
        );
        all(
            "*@example.com",
            matches,
            &["ann@example.com"],
            &["ann@a.example.com", "example.com", "ann@example.com@b"],
        );
        for wrong in ["ann", "@a", "a@", "a*@b", "a@*.b", "a b@c"] {
            assert!(wrong.parse::<EmailPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints_are_read_in_each_form() {
        let plain = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let pairs: Vec<&str> = plain.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
        for written in [plain.to_owned(), plain.to_uppercase(), pairs.join(":").to_uppercase()] {
            assert_eq!(written.parse::<Fingerprint>().unwrap().as_str(), plain);
        }
        for wrong in ["", "2b:b8", &plain[1..], &plain.replace('2', "g")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}

//! The names that definitions are referred to by.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// A definition's name: `[a-z0-9][a-z0-9_.-]*`, at most 128 bytes. Cheap to clone.
///
/// What a tenant defines by itself has the tenant's name and a slash before its own, `acme/api`: nobody can write
/// such a name, so that it is never another's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

super::text_value!(
    Name,
    "name",
    "Lower-case letters, digits, '_', '.' and '-', starting with a letter or digit.",
    "web"
);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// A name of a tenant's own.
    pub fn of_tenant(tenant: &Self, name: &Self) -> Self {
        Self(format!("{tenant}/{name}").into())
    }

    /// The tenant whose own name it is, and how the tenant writes it.
    pub fn owned(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = text.bytes().next().is_some_and(allowed);
        let rest = text.bytes().all(|b| allowed(b) || matches!(b, b'_' | b'.' | b'-'));
        match first && rest && text.len() <= 128 {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "{text:?} is no name: lower-case letters, digits, '_', '.', '-', first a letter or digit, at most 128"
            )),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_language_says() {
        for right in ["web", "a", "0", "auth-grpc", "a.b_c-d"] {
            assert!(right.parse::<Name>().is_ok(), "{right:?} was refused");
        }
        let (acme, api): (Name, Name) = ("acme".parse().unwrap(), "api".parse().unwrap());
        let owned = Name::of_tenant(&acme, &api);
        assert_eq!((owned.as_str(), owned.owned(), api.owned()), ("acme/api", Some(("acme", "api")), None));
        for wrong in ["", "acme/api", "Web", "-a", ".a", "a b", "ä", &"x".repeat(129)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?} was taken");
        }
    }
}

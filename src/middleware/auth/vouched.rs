//! Fields by which upstreams are told who a client is: what the client says in them is taken away first.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    middleware::{Context, header_edits},
    value::{FieldName, Spanned},
};

/// A field that only we write.
#[derive(Clone, Debug)]
pub struct Vouched(HeaderName);

impl Vouched {
    pub fn compile(field: &Spanned<FieldName>, cx: &mut Context<'_>) -> Self {
        header_edits::refuse_ours(&field.value, field.span, cx);
        Self(field.value.0.clone())
    }

    /// Takes away what the client sent, in the spellings that CGI and its like take for the same: those
    /// read `X_User` and `X-User` alike.
    pub fn take_away(&self, headers: &mut HeaderMap) {
        take_away(&self.0, headers);
    }

    pub fn set(&self, headers: &mut HeaderMap, value: HeaderValue) {
        headers.insert(self.0.clone(), value);
    }

    /// A further line of it.
    pub fn add(&self, headers: &mut HeaderMap, value: HeaderValue) {
        headers.append(self.0.clone(), value);
    }

    /// Sets it to what is said there, which may be nothing or several lines.
    pub fn copy(&self, from: &HeaderMap, headers: &mut HeaderMap) {
        for value in from.get_all(&self.0) {
            headers.append(self.0.clone(), value.clone());
        }
    }
}

/// Takes a field away in all the spellings that are read for it.
pub fn take_away(field: &HeaderName, headers: &mut HeaderMap) {
    headers.remove(field);
    let alike = |name: &&HeaderName| {
        let hyphen = |byte| if byte == b'_' { b'-' } else { byte };
        let (name, own) = (name.as_str(), field.as_str());
        name.len() == own.len() && name.bytes().map(hyphen).eq(own.bytes().map(hyphen))
    };
    while let Some(name) = headers.keys().find(alike).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
impl Vouched {
    pub(crate) fn of(name: HeaderName) -> Self {
        Self(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_say_it_in_any_spelling() {
        let mut headers = HeaderMap::new();
        for name in ["x-auth-user", "x_auth_user", "x-auth_user", "x-auth-users"] {
            headers.append(name, "fake".parse().unwrap());
            headers.append(name, "again".parse().unwrap());
        }
        Vouched(HeaderName::from_static("x-auth-user")).take_away(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-auth-users"]);
    }
}

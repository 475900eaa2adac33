//! Names of fields as the servers behind a proxy read them.
//!
//! CGI, FastCGI, PHP, WSGI, Rack and others turn a name into a variable: letters in one case, every other character an
//! underscore. `X-User`, `X_User` and `X.User` are one name to them. So a field that Portolan sets, removes or believes is
//! one in all its spellings: characters outside letters and digits are alike.

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

/// Whether some server may read two names as one.
pub fn alike(one: &str, other: &str) -> bool {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().map(byte).eq(other.bytes().map(byte))
}

/// Whether a name has other characters than letters, digits and hyphens: only such a name can be read as one that has not.
pub fn is_unusual(name: &HeaderName) -> bool {
    // Without a branch for each byte: it is asked of every name of every request.
    let plain = |byte: u8| byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'-');
    name.as_str().bytes().fold(false, |unusual, byte| unusual | !plain(byte))
}

/// What becomes of a request's fields whose names have an underscore, or any other character than letters, digits and
/// hyphens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UnusualHeaderNames")]
pub enum UnusualNames {
    /// Those that servers may read as a field which frames the message or describes the client are dropped, as
    /// Content_Length and X_Forwarded_For. Others pass
    #[default]
    DropLookalikes,
    /// All of them are dropped
    Drop,
    /// A request with one is answered 400
    Reject,
    /// All of them pass but those that may be read as a field which describes the client
    Allow,
}

/// What one look at the names of a request's fields tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub is_unusual: bool,
    pub describes_client: bool,
}

impl Names {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut names = Self::default();
        for name in headers.keys() {
            names.is_unusual |= is_unusual(name);
            names.describes_client |= describes_client(name.as_str());
        }
        names
    }
}

impl UnusualNames {
    /// Removes the fields that do not pass; `Err` where the request does not.
    pub fn apply(self, headers: &mut HeaderMap) -> Result<Lookalikes, Unusual> {
        match self {
            Self::DropLookalikes => remove_matching(headers, imitates_guarded),
            Self::Drop => remove_matching(headers, is_unusual),
            Self::Reject => return Err(Unusual),
            Self::Allow => remove_matching(headers, imitates_client),
        }
        Ok(Lookalikes(headers.keys().any(is_unusual)))
    }
}

/// A request has a field whose name is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusual;

/// Whether a request may have fields that servers read as others. Found out once for each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookalikes(bool);

impl Lookalikes {
    pub fn any(self) -> bool {
        self.0
    }

    /// A field of this name was added.
    pub fn added(&mut self, name: &Field) {
        self.0 |= name.is_unusual;
    }

    #[cfg(test)]
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().any(is_unusual))
    }
}

/// The name of a field that Portolan sets, removes or believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: HeaderName,
    /// Whether a name without unusual characters may be read as this one.
    is_unusual: bool,
}

impl Field {
    pub fn new(name: HeaderName) -> Self {
        let is_unusual = is_unusual(&name);
        Self { name, is_unusual }
    }

    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Removes the field in all its spellings.
    pub fn remove(&self, headers: &mut HeaderMap, lookalikes: Lookalikes) {
        headers.remove(&self.name);
        self.remove_lookalikes(headers, lookalikes);
    }

    /// Removes the field in all spellings but its own.
    pub fn remove_lookalikes(&self, headers: &mut HeaderMap, lookalikes: Lookalikes) {
        if self.is_unusual || lookalikes.0 {
            remove_matching(headers, |name| *name != self.name && alike(name.as_str(), self.name.as_str()));
        }
    }

    /// Sets the field to this value alone, in whatever spelling it was there.
    pub fn set(&self, headers: &mut HeaderMap, value: HeaderValue, lookalikes: Lookalikes) {
        self.remove_lookalikes(headers, lookalikes);
        headers.insert(self.name.clone(), value);
    }
}

/// Removes the fields whose names match.
pub fn remove_matching(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| matches(name)).cloned() {
        headers.remove(name);
    }
}

/// Fields that frame a message or its connection, or that Portolan tells upstreams. A name in one word has no other
/// spelling.
const GUARDED: [&str; 10] = [
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "early-data",
    "max-forwards",
    "x-request-id",
];

/// Whether a name is read as a field that frames a message, or that says who or what a request is, and is not its own
/// spelling.
pub fn imitates_guarded(name: &HeaderName) -> bool {
    imitates(name, |spelling| GUARDED.contains(&spelling) || describes_client(spelling))
}

/// The same of fields that describe the client: whatever a listener allows, upstreams are told that by Portolan alone.
fn imitates_client(name: &HeaderName) -> bool {
    imitates(name, describes_client)
}

fn imitates(name: &HeaderName, is_one: impl Fn(&str) -> bool) -> bool {
    let mut spelling = [0; LONGEST];
    let Some(spelling) = spelling.get_mut(..name.as_str().len()).filter(|_| is_unusual(name)) else {
        return name.as_str().len() > LONGEST && is_unusual(name) && begins_as_forwarded(name.as_str());
    };
    for (to, from) in spelling.iter_mut().zip(name.as_str().bytes()) {
        *to = if from.is_ascii_alphanumeric() { from } else { b'-' };
    }
    is_one(str::from_utf8(spelling).unwrap_or_default())
}

/// Longer names are those of `X-Forwarded-` alone.
fn begins_as_forwarded(name: &str) -> bool {
    name.get(..FORWARDED.len()).is_some_and(|start| alike(start, FORWARDED))
}

const FORWARDED: &str = "x-forwarded-";

/// No name in the lists is longer.
const LONGEST: usize = 64;

/// Whether a field describes the client, or the request as the client sent it, in the words of a proxy before this one.
/// Servers believe these before what they see themselves.
pub fn describes_client(name: &str) -> bool {
    const OTHERS: [&str; 18] = [
        "forwarded",
        "x-forwarded",
        "forwarded-for",
        "x-real-ip",
        "client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "true-client-ip",
        "x-scheme",
        "x-url-scheme",
        "x-original-proto",
        "x-original-host",
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
        "x-script-name",
        "front-end-https",
    ];
    match name.as_bytes().first() {
        Some(b'x') => name.starts_with(FORWARDED) || OTHERS.contains(&name),
        Some(b'f' | b'c' | b't') => OTHERS.contains(&name),
        _ => false,
    }
}

/// Whether a field seems to tell a server who the user is, or what the user may do.
pub fn seems_to_identify(name: &HeaderName) -> bool {
    const WORDS: [&str; 24] = [
        "account",
        "claim",
        "claims",
        "email",
        "entitlements",
        "group",
        "groups",
        "identity",
        "org",
        "organization",
        "permission",
        "permissions",
        "principal",
        "role",
        "roles",
        "scope",
        "scopes",
        "sub",
        "subject",
        "team",
        "teams",
        "tenant",
        "uid",
        "upn",
    ];
    let name = name.as_str();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let is_agent = name.ends_with("user-agent");
    name.starts_with("x-auth-request-")
        || words.any(|word| WORDS.contains(&word) || (word.starts_with("user") && !is_agent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        let value = HeaderValue::from_static("forged");
        names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_field_is_removed_in_every_spelling() {
        let mut headers = map(&["x-user", "x_user", "x.user", "x~user", "x-users", "xuser", "x--user"]);
        let lookalikes = Lookalikes::of(&headers);
        Field::new(HeaderName::from_static("x-user")).remove(&mut headers, lookalikes);
        assert_eq!(names(&headers), ["x--user", "x-users", "xuser"]);
    }

    #[test]
    fn an_unusual_name_of_ours_has_usual_lookalikes() {
        let mut headers = map(&["x-user"]);
        let lookalikes = Lookalikes::of(&headers);
        assert!(!lookalikes.any());
        let field = Field::new(HeaderName::from_static("x_user"));
        field.set(&mut headers, HeaderValue::from_static("ours"), lookalikes);
        assert_eq!(
            (names(&headers), &headers["x_user"]),
            (vec!["x_user"], &HeaderValue::from_static("ours"))
        );
    }

    #[test]
    fn every_line_of_a_lookalike_is_removed() {
        let mut headers = map(&["x_user"]);
        headers.append("x_user", HeaderValue::from_static("again"));
        let lookalikes = Lookalikes::of(&headers);
        Field::new(HeaderName::from_static("x-user")).remove_lookalikes(&mut headers, lookalikes);
        assert!(headers.is_empty());
    }

    #[test]
    fn imitations_of_guarded_fields_are_told_from_other_names() {
        let imitates = |name| imitates_guarded(&HeaderName::from_static(name));
        for name in [
            "content_length",
            "transfer.encoding",
            "x_forwarded_for",
            "x-forwarded_anything",
            "x_real-ip",
            "x_request_id",
        ] {
            assert!(imitates(name), "{name}");
        }
        let long = format!("x-forwarded_{}", "a".repeat(100));
        assert!(imitates_guarded(&long.parse().unwrap()));
        assert!(!imitates_guarded(&format!("x_other_{}", "a".repeat(100)).parse().unwrap()));
        for name in ["content-length", "x-forwarded-for", "x_other", "contentlength", "x_forwarded"] {
            assert_eq!(imitates(name), name == "x_forwarded", "{name}");
        }
    }

    #[test]
    fn names_that_identify_a_user_are_told_from_others() {
        let identifies = |name| seems_to_identify(&HeaderName::from_static(name));
        for name in
            ["x-user", "x-auth-request-user", "remote-groups", "x-webauth-user", "x_username", "x-tenant"]
        {
            assert!(identifies(name), "{name}");
        }
        for name in ["set-cookie", "x-level", "x-user-agent", "x-request-id", "cache-control", "x-suborder"] {
            assert!(!identifies(name), "{name}");
        }
    }
}

//! The conditions of one route, compiled: whether they hold, which one does not, and how two routes'
//! conditions relate.

use std::fmt;

use http::Method;

use super::{
    Facts, Fields, Texts, client_ip::ClientIp, cookie::Cookie, header::Header, method::Methods, query::Query,
    text::Test,
};
use crate::value::{self, Cidr, Spanned};

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    methods: Methods,
    /// Only requests that are made to a proxy.
    to_proxy: bool,
    others: Box<[Condition]>,
}

/// Conditions as they were written.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub methods: &'a [Spanned<value::Method>],
    pub headers: &'a Fields,
    pub query: &'a Texts,
    pub cookies: &'a Texts,
    pub client_ip: &'a [Spanned<Cidr>],
    pub to_proxy: bool,
}

/// What became of a route's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// All but the method hold, or but that it is made to a proxy.
    WrongMethod,
    Fails,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Header(Header),
    Query(Query),
    Cookie(Cookie),
    ClientIp(ClientIp),
}

const TO_PROXY: &str = "made to a proxy";

// === impl Conditions ===

impl Conditions {
    /// Each regular expression that is none comes back as its place and what is wrong with it.
    pub fn compile(source: Source<'_>) -> Result<Self, Vec<Spanned<String>>> {
        let headers = source.headers.iter().map(|entry| {
            let name = entry.name.value.0.clone();
            Test::compile(&entry.value).map(|test| Condition::Header(Header { name, test }))
        });
        let query = source.query.iter().map(|entry| {
            let name = entry.name.value.as_str().into();
            Test::compile(&entry.value).map(|test| Condition::Query(Query { name, test }))
        });
        let cookies = source.cookies.iter().map(|entry| {
            let name = entry.name.value.as_str().into();
            Test::compile(&entry.value).map(|test| Condition::Cookie(Cookie { name, test }))
        });
        let networks: Box<[Cidr]> = source.client_ip.iter().map(|network| network.value).collect();
        let client_ip = (!networks.is_empty()).then_some(Ok(Condition::ClientIp(ClientIp(networks))));

        // Cheapest first.
        let (mut others, mut problems) = (Vec::new(), Vec::new());
        for compiled in client_ip.into_iter().chain(headers).chain(query).chain(cookies) {
            match compiled {
                Ok(condition) => others.push(condition),
                Err(problem) => problems.push(problem),
            }
        }
        let methods = Methods::new(source.methods.iter().map(|method| method.value.0.clone()));
        if problems.is_empty() {
            Ok(Self { methods, to_proxy: source.to_proxy, others: others.into() })
        } else {
            Err(problems)
        }
    }

    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Whether only requests that are made to a proxy meet them.
    pub fn are_to_proxy(&self) -> bool {
        self.to_proxy
    }

    /// The methods that a request could have which meets all else.
    pub fn allowed(&self, facts: &impl Facts) -> Vec<Method> {
        match self.to_proxy && !facts.is_to_proxy() {
            // It is to a proxy by its method alone.
            true => {
                Some(Method::CONNECT).filter(|method| self.methods.contains(method)).into_iter().collect()
            }
            false => self.methods.iter().cloned().collect(),
        }
    }

    /// How many conditions there are; the methods are one, each field, parameter and cookie is one.
    pub fn count(&self) -> usize {
        self.others.len() + usize::from(!self.methods.is_any()) + usize::from(self.to_proxy)
    }

    pub fn check(&self, facts: &impl Facts) -> Verdict {
        if !self.others.iter().all(|condition| condition.holds(facts)) {
            Verdict::Fails
        } else if self.methods.contains(facts.method()) && (!self.to_proxy || facts.is_to_proxy()) {
            Verdict::Holds
        } else {
            Verdict::WrongMethod
        }
    }

    /// The conditions that do not hold, in words.
    pub fn failed(&self, facts: &impl Facts) -> Vec<String> {
        let method = (!self.methods.contains(facts.method())).then(|| self.methods.to_string());
        let to_proxy = (self.to_proxy && !facts.is_to_proxy()).then(|| TO_PROXY.to_owned());
        let others = self.others.iter().filter(|condition| !condition.holds(facts));
        method.into_iter().chain(to_proxy).chain(others.map(Condition::to_string)).collect()
    }

    /// Whether no request can meet both.
    pub fn excludes(&self, other: &Self) -> bool {
        let conditions = || self.others.iter().flat_map(|a| other.others.iter().map(move |b| (a, b)));
        self.methods.excludes(&other.methods) || conditions().any(|(a, b)| a.excludes(b))
    }

    /// Whether it is seen from the conditions that each request that meets the other's meets these.
    pub fn covers(&self, other: &Self) -> bool {
        self.methods.covers(&other.methods)
            && (!self.to_proxy || other.to_proxy)
            && self.others.iter().all(|a| other.others.iter().any(|b| a.covers(b)))
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = (!self.methods.is_any()).then(|| self.methods.to_string());
        let to_proxy = self.to_proxy.then(|| TO_PROXY.to_owned());
        let others = self.others.iter().map(Condition::to_string);
        let all: Vec<String> = methods.into_iter().chain(to_proxy).chain(others).collect();
        f.write_str(&all.join(", "))
    }
}

// === impl Condition ===

impl Condition {
    fn holds(&self, facts: &impl Facts) -> bool {
        match self {
            Self::Header(header) => header.holds(facts),
            Self::Query(query) => query.holds(facts),
            Self::Cookie(cookie) => cookie.holds(facts),
            Self::ClientIp(client_ip) => client_ip.holds(facts),
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(a), Self::Header(b)) => a.name == b.name && a.test.excludes(&b.test),
            (Self::Query(a), Self::Query(b)) => a.name == b.name && a.test.excludes(&b.test),
            (Self::Cookie(a), Self::Cookie(b)) => a.name == b.name && a.test.excludes(&b.test),
            (Self::ClientIp(a), Self::ClientIp(b)) => a.excludes(b),
            _ => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ClientIp(a), Self::ClientIp(b)) => a.covers(b),
            _ => self == other,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(header) => header.fmt(f),
            Self::Query(query) => query.fmt(f),
            Self::Cookie(cookie) => cookie.fmt(f),
            Self::ClientIp(client_ip) => client_ip.fmt(f),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::{
        matcher::{Condition as Written, ConditionMap, Head},
        value::{Entry, Span, TextOr},
    };

    /// Conditions in short: "GET|POST", "header x=1", "query q", "cookie !c", "header x~^a", "ip 10.0.0.0/8", "proxy".
    pub(crate) fn conditions(words: &[&str]) -> Conditions {
        compile(words).unwrap()
    }

    fn compile(words: &[&str]) -> Result<Conditions, Vec<Spanned<String>>> {
        let (mut methods, mut networks) = (Vec::new(), Vec::new());
        let (mut headers, mut query, mut cookies) = (Fields::default(), Texts::default(), Texts::default());
        let mut to_proxy = false;
        for word in words {
            match word.split_once(' ') {
                Some(("header", test)) => headers.0.push(entry(test)),
                Some(("query", test)) => query.0.push(entry(test)),
                Some(("cookie", test)) => cookies.0.push(entry(test)),
                Some(("ip", network)) => networks.push(spanned(network.parse().unwrap())),
                _ if *word == "proxy" => to_proxy = true,
                _ => methods.extend(word.split('|').map(|method| spanned(method.parse().unwrap()))),
            }
        }
        let (headers, query, cookies) = (&headers, &query, &cookies);
        let methods = &methods;
        Conditions::compile(Source { methods, headers, query, cookies, client_ip: &networks, to_proxy })
    }

    fn entry<K: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Entry<K, Spanned<Written>> {
        let other = |name, map| (name, TextOr::Map(map));
        let (name, written) = if let Some((name, value)) = text.split_once('=') {
            (name, TextOr::Text(value.to_owned()))
        } else if let Some((name, regex)) = text.split_once('~') {
            other(name, ConditionMap::Regex(spanned(regex.to_owned())))
        } else if let Some(name) = text.strip_prefix('!') {
            other(name, ConditionMap::Present(false))
        } else {
            other(text, ConditionMap::Present(true))
        };
        Entry { name: spanned(name.parse().unwrap()), value: spanned(written) }
    }

    fn spanned<T>(value: T) -> Spanned<T> {
        Spanned::new(value, Span::default())
    }

    fn check(words: &[&str], method: &str, headers: &[(&'static str, &'static str)], query: &str) -> Verdict {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let head = Head {
            method: &method.parse().unwrap(),
            headers: &headers,
            query: Some(query),
            client_ip: [10, 1, 2, 3].into(),
            to_proxy: false,
        };
        let conditions = conditions(words);
        let verdict = conditions.check(&head);
        assert_eq!(conditions.failed(&head).is_empty(), verdict == Verdict::Holds);
        verdict
    }

    #[test]
    fn all_conditions_must_hold() {
        use Verdict::*;
        let words = &["GET|DELETE", "header x-beta=1", "query q~^a", "cookie !c", "ip 10.0.0.0/8"];
        let beta = ("x-beta", "1");
        assert_eq!(check(words, "GET", &[beta], "q=ab"), Holds);
        assert_eq!(check(words, "HEAD", &[beta], "q=ab"), Holds);
        assert_eq!(check(words, "POST", &[beta], "q=ab"), WrongMethod);
        assert_eq!(check(words, "POST", &[], "q=ab"), Fails);
        assert_eq!(check(words, "GET", &[beta], "q=b"), Fails);
        assert_eq!(check(words, "GET", &[beta, ("cookie", "c=1")], "q=a"), Fails);
        assert_eq!(check(&["ip 11.0.0.0/8", "GET"], "GET", &[], ""), Fails);
        assert_eq!(check(&[], "BREW", &[], ""), Holds);
    }

    #[test]
    fn failures_are_told_in_words() {
        let conditions =
            conditions(&["GET|DELETE", "header x-beta=1", "query q", "cookie c~^a", "ip 10.0.0.0/8"]);
        let head = Head {
            method: &http::Method::POST,
            headers: &HeaderMap::new(),
            query: None,
            client_ip: [127, 0, 0, 1].into(),
            to_proxy: false,
        };
        let wanted = [
            "method is GET or HEAD or DELETE",
            "client_ip is in 10.0.0.0/8",
            "header x-beta is \"1\"",
            "query q is present",
            "cookie c matches /^a/",
        ];
        assert_eq!(conditions.failed(&head), wanted);
        assert_eq!(conditions.to_string(), wanted.join(", "));
        assert_eq!(conditions.count(), 5);
    }

    #[test]
    fn a_bad_regex_is_told_with_its_place() {
        assert_eq!(compile(&["header x~(", "query q~[", "cookie c~a"]).unwrap_err().len(), 2);
    }

    #[test]
    fn conditions_that_cannot_both_hold_exclude_each_other() {
        let excludes = |a: &[&str], b: &[&str]| {
            let (a, b) = (conditions(a), conditions(b));
            assert_eq!(a.excludes(&b), b.excludes(&a));
            a.excludes(&b)
        };
        for (a, b) in [
            (["GET"], ["POST"]),
            (["header x=1"], ["header x=2"]),
            (["header x=1"], ["header !x"]),
            (["header x"], ["header !x"]),
            (["header x~^a"], ["header x=b"]),
            (["query q=1"], ["query q=2"]),
            (["cookie c=1"], ["cookie c=2"]),
            (["ip 10.0.0.0/8"], ["ip 11.0.0.0/8"]),
            (["ip 10.0.0.0/8"], ["ip ::/0"]),
        ] {
            assert!(excludes(&a, &b), "{a:?} {b:?}");
        }
        for (a, b) in [
            (["GET"], ["HEAD"]),
            (["header x=1"], ["header y=2"]),
            (["header x=1"], ["query x=2"]),
            (["header x=1"], ["header x"]),
            (["header x~a"], ["header x~b"]),
            (["header !x"], ["header !x"]),
            (["ip 10.0.0.0/8"], ["ip 10.1.0.0/16"]),
        ] {
            assert!(!excludes(&a, &b), "{a:?} {b:?}");
        }
        assert!(!excludes(&[], &["GET"]));
    }

    #[test]
    fn conditions_cover_what_is_stricter() {
        let cover = |a: &[&str], b: &[&str]| conditions(a).covers(&conditions(b));
        assert!(cover(&[], &["GET"]));
        assert!(cover(&["GET|POST"], &["POST", "header x=1"]));
        assert!(cover(&["ip 10.0.0.0/8"], &["ip 10.1.0.0/16"]));
        assert!(!cover(&["GET"], &[]));
        assert!(!cover(&["header x=1"], &["header x=2"]));
        assert!(!cover(&["header x=1"], &[]));
    }

    #[test]
    fn the_names_of_fields_have_no_case() {
        assert_eq!(conditions(&["header X-Beta=1"]), conditions(&["header x-beta=1"]));
    }
}

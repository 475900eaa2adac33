//! Lets in by the certificate that a client has shown in the TLS handshake.

mod pattern;

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, Refusal,
    auth::{Public, identity_field},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::{
        connection::{AlternativeNames, ClientCertificate},
        field_name::{Field, alike},
    },
    value::{FieldName, OneOrMany, Spanned, Subject},
};

pub use pattern::{DnsPattern, EmailPattern, Fingerprint, UriPattern};

pub const ADDS_UP: bool = false;

/// Lets in by the client's certificate, which the listener's `client_auth` asks for and verifies. Who shows none is
/// answered 403 (certificate_required), and so is who shows one that is in none of the lists (forbidden). Without any
/// list, every verified certificate will do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mtls")]
pub struct Config {
    /// Subjects that are let in, as RFC 4514 writes them: "CN=ann,O=Acme,C=DE" (openssl x509 -noout -subject -nameopt
    /// RFC2253). All of it has to be the same, in the same case.
    #[serde(default)]
    pub subjects: Option<Spanned<OneOrMany<Spanned<Subject>>>>,
    /// Alternative names of which a certificate that is let in has one.
    #[serde(default)]
    pub sans: Option<Spanned<Sans>>,
    /// Certificates that are let in, by their SHA-256 in hexadecimal, with colons or without.
    #[serde(default)]
    pub fingerprints: Option<Spanned<OneOrMany<Spanned<Fingerprint>>>>,
    /// The fields that tell the upstream of the certificate. What the client sent in them is taken away. Default: none.
    #[serde(default)]
    pub headers: Headers,
    /// Path patterns that everybody may ask for, as "/health" or "/static/**".
    #[serde(default)]
    pub public: OneOrMany<Spanned<String>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

/// Alternative names, by their kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MtlsSans")]
pub struct Sans {
    /// DNS names: shop.svc.example, or "*.svc.example" for every name below svc.example.
    pub dns: OneOrMany<Spanned<DnsPattern>>,
    /// URIs, in the same case: spiffe://example.org/ns/shop/sa/web, or "spiffe://example.org/ns/shop/*" for every one
    /// below.
    pub uri: OneOrMany<Spanned<UriPattern>>,
    /// E-mail addresses: ann@example.com, or "*@example.com" for every one of the domain.
    pub email: OneOrMany<Spanned<EmailPattern>>,
}

/// Fields, by what they tell.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MtlsHeaders")]
pub struct Headers {
    /// Whom the certificate is of, as RFC 4514 writes it.
    pub subject: Option<Spanned<FieldName>>,
    /// Who has signed it, written in the same way.
    pub issuer: Option<Spanned<FieldName>>,
    /// Its serial number, in hexadecimal.
    pub serial: Option<Spanned<FieldName>>,
    /// Its SHA-256, in lower-case hexadecimal.
    pub fingerprint: Option<Spanned<FieldName>>,
    /// Its DNS names, each in a line of its own.
    pub dns: Option<Spanned<FieldName>>,
    /// Its URIs, each in a line of its own. One with a comma is left out: it could be taken for two.
    pub uri: Option<Spanned<FieldName>>,
    /// Its e-mail addresses, in the same way.
    pub email: Option<Spanned<FieldName>>,
}

struct Mtls {
    /// `None`: every verified certificate.
    allowed: Option<Allowed>,
    told: Vec<(Fact, Field)>,
    public: Public,
}

/// Any of these lets in.
#[derive(Default)]
struct Allowed {
    subjects: HashSet<Subject>,
    fingerprints: HashSet<Box<str>>,
    dns: Vec<DnsPattern>,
    uri: Vec<UriPattern>,
    email: Vec<EmailPattern>,
}

/// What a field tells of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Subject,
    Issuer,
    Serial,
    Fingerprint,
    Dns,
    Uri,
    Email,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    chain.ask_for_certificates(cx.span);
    if let Some(part) = cx.once(config, |cx| Some(Mtls::compile(config, cx))) {
        chain.guard(config.mode, part);
    }
}

impl Mtls {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Self {
        Self {
            allowed: Allowed::compile(config, cx),
            told: fields(&config.headers, cx),
            public: Public::compile(&config.public, cx),
        }
    }

    /// What the client sent in these fields was removed.
    fn tell(&self, certificate: &ClientCertificate, headers: &mut HeaderMap) {
        for (fact, field) in &self.told {
            fact.tell(certificate, field.name(), headers);
        }
    }
}

impl OnRequest for Mtls {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        for (_, field) in &self.told {
            field.remove(&mut exchange.head.headers, exchange.lookalikes);
        }
        if self.public.covers(exchange) {
            return Next::Continue;
        }
        let connection = exchange.connection.clone();
        let Some(certificate) = connection.tls.as_ref().and_then(|tls| tls.client.as_deref()) else {
            // Not 401: there is no scheme by which WWW-Authenticate could ask for it (RFC 9110 section 15.5.2).
            return Refusal::new(Reason::CertificateRequired).into();
        };
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.holds(certificate)) {
            return Refusal::new(Reason::Forbidden).because("certificate_not_allowed").into();
        }
        exchange.has_accepted_certificate = true;
        self.tell(certificate, &mut exchange.head.headers);
        Next::Continue
    }
}

impl Allowed {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Option<Self> {
        let Config { subjects, sans, fingerprints, .. } = config;
        let of_sans = sans.as_ref().map(|sans| {
            let count = sans.dns.0.len() + sans.uri.0.len() + sans.email.0.len();
            (count, sans.span)
        });
        let lists = [
            subjects.as_ref().map(|list| (list.0.len(), list.span)),
            of_sans,
            fingerprints.as_ref().map(|list| (list.0.len(), list.span)),
        ];
        // An emptied list must not let everybody in.
        for (_, span) in lists.iter().flatten().filter(|(count, _)| *count == 0) {
            let problem = Diagnostic::error(Code::BadValue, *span, "nobody is let in by this");
            cx.diagnostics.push(problem.help("without any list, every verified certificate will do"));
        }
        lists.iter().any(Option::is_some).then(|| {
            let sans = sans.as_ref().map(|sans| sans.value.clone()).unwrap_or_default();
            Self {
                subjects: values(subjects).cloned().collect(),
                fingerprints: values(fingerprints).map(|one| one.as_str().into()).collect(),
                dns: sans.dns.0.into_iter().map(|name| name.value).collect(),
                uri: sans.uri.0.into_iter().map(|name| name.value).collect(),
                email: sans.email.0.into_iter().map(|name| name.value).collect(),
            }
        })
    }

    fn holds(&self, certificate: &ClientCertificate) -> bool {
        let AlternativeNames { dns, uri, email } = &certificate.sans;
        self.subjects.contains(&certificate.subject)
            || self.fingerprints.contains(&*certificate.fingerprint)
            || dns.iter().any(|name| self.dns.iter().any(|pattern| pattern.matches(name)))
            || uri.iter().any(|name| self.uri.iter().any(|pattern| pattern.matches(name)))
            || email.iter().any(|name| self.email.iter().any(|pattern| pattern.matches(name)))
    }
}

fn values<T>(list: &Option<Spanned<OneOrMany<Spanned<T>>>>) -> impl Iterator<Item = &T> {
    list.iter().flat_map(|list| list.iter()).map(|one| &one.value)
}

impl Fact {
    fn tell(self, certificate: &ClientCertificate, field: &HeaderName, headers: &mut HeaderMap) {
        let ClientCertificate { subject, issuer, serial, fingerprint, sans } = certificate;
        let one = match self {
            Self::Subject => subject.as_str(),
            Self::Issuer => issuer.as_str(),
            Self::Serial => serial,
            Self::Fingerprint => fingerprint,
            Self::Dns => return several(&sans.dns, field, headers),
            Self::Uri => return several(&sans.uri, field, headers),
            Self::Email => return several(&sans.email, field, headers),
        };
        if let Ok(value) = HeaderValue::from_bytes(one.as_bytes()) {
            headers.insert(field.clone(), value);
        }
    }
}

/// A line for each name. Who puts lines together does so with commas (RFC 9110 section 5.3).
fn several(names: &[String], field: &HeaderName, headers: &mut HeaderMap) {
    for name in names.iter().filter(|name| !name.contains(',')) {
        if let Ok(value) = HeaderValue::from_str(name) {
            headers.append(field.clone(), value);
        }
    }
}

fn fields(written: &Headers, cx: &mut Context<'_>) -> Vec<(Fact, Field)> {
    let Headers { subject, issuer, serial, fingerprint, dns, uri, email } = written;
    let all = [
        (Fact::Subject, subject),
        (Fact::Issuer, issuer),
        (Fact::Serial, serial),
        (Fact::Fingerprint, fingerprint),
        (Fact::Dns, dns),
        (Fact::Uri, uri),
        (Fact::Email, email),
    ];
    let mut taken: Vec<&HeaderName> = Vec::new();
    let mut fields = Vec::new();
    for (fact, field) in all.into_iter().filter_map(|(fact, field)| Some((fact, field.as_ref()?))) {
        if taken.iter().any(|taken| alike(taken.as_str(), field.value.0.as_str())) {
            let message = format!("{} tells of something else already", field.value.0);
            cx.diagnostics.push(Diagnostic::error(Code::NoEffect, field.span, message));
        }
        taken.push(&field.value.0);
        fields.push((fact, identity_field(field, cx)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            subject: "CN=ann,O=Acme".parse().unwrap(),
            issuer: "CN=ca".parse().unwrap(),
            serial: "01".into(),
            fingerprint: "ab".repeat(32),
            sans: AlternativeNames {
                dns: vec!["ann.svc.example".into(), "b".into()],
                uri: vec!["spiffe://example.org/ns/shop/sa/ann".into(), "x:a,b".into(), "x:a\r\nb".into()],
                email: vec!["ann@example.com".into()],
            },
        }
    }

    #[test]
    fn any_of_the_lists_lets_in() {
        let certificate = certificate();
        let none = Allowed::default();
        assert!(!none.holds(&certificate));
        for (yes, no) in [
            (
                Allowed {
                    subjects: HashSet::from(["o=Acme".parse().unwrap(), "cn=ann, o=Acme".parse().unwrap()]),
                    ..Allowed::default()
                },
                Allowed { subjects: HashSet::from(["CN=ann".parse().unwrap()]), ..Allowed::default() },
            ),
            (
                Allowed { fingerprints: HashSet::from(["ab".repeat(32).into()]), ..Allowed::default() },
                Allowed { fingerprints: HashSet::from(["ac".repeat(32).into()]), ..Allowed::default() },
            ),
            (
                Allowed { dns: vec!["*.svc.example".parse().unwrap()], ..Allowed::default() },
                // A name of another kind is another name.
                Allowed { dns: vec!["example.com".parse().unwrap()], ..Allowed::default() },
            ),
            (
                Allowed {
                    uri: vec!["spiffe://example.org/ns/shop/*".parse().unwrap()],
                    ..Allowed::default()
                },
                Allowed { uri: vec!["spiffe://example.org/ns/sh".parse().unwrap()], ..Allowed::default() },
            ),
            (
                Allowed { email: vec!["*@example.com".parse().unwrap()], ..Allowed::default() },
                Allowed { email: vec!["ben@example.com".parse().unwrap()], ..Allowed::default() },
            ),
        ] {
            assert!(yes.holds(&certificate) && !no.holds(&certificate));
        }
    }

    #[test]
    fn names_that_would_look_like_two_are_not_told() {
        let mut headers = HeaderMap::new();
        let field = HeaderName::from_static;
        Fact::Uri.tell(&certificate(), &field("x-uri"), &mut headers);
        Fact::Dns.tell(&certificate(), &field("x-dns"), &mut headers);
        assert_eq!(
            headers.get_all("x-uri").iter().collect::<Vec<_>>(),
            ["spiffe://example.org/ns/shop/sa/ann"]
        );
        assert_eq!(headers.get_all("x-dns").iter().collect::<Vec<_>>(), ["ann.svc.example", "b"]);
    }
}

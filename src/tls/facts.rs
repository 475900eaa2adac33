//! What a finished handshake settled, in words for routes, fields and logs.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls::{ProtocolVersion, ServerConnection, pki_types::CertificateDer};
use sha2::{Digest, Sha256};
use x509_parser::{
    asn1_rs::ToDer,
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::{
    http::connection::{AlternativeNames, ClientCertificate, ClientRules, Early, Tls},
    value::{Attribute, Subject},
};

/// A certificate that was verified and yet cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClientCertificateError(String);

/// The facts of a handshake that is done by these rules.
pub fn facts(
    session: &ServerConnection,
    rules: ClientRules,
    early: Early,
) -> Result<Tls, ClientCertificateError> {
    Ok(Tls {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: session
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        sni: session.server_name().map(str::to_owned),
        rules,
        early,
        client: client(session.peer_certificates())?,
    })
}

/// The facts of a QUIC handshake, which is always one of TLS 1.3 (RFC 9001 section 4.2); nobody is told its cipher.
pub fn quic_facts(
    sni: Option<String>,
    chain: Option<&[CertificateDer<'static>]>,
    rules: ClientRules,
    early: Early,
) -> Result<Tls, ClientCertificateError> {
    Ok(Tls { version: "TLSv1.3", cipher: String::new(), sni, rules, early, client: client(chain)? })
}

fn client(
    chain: Option<&[CertificateDer<'static>]>,
) -> Result<Option<Arc<ClientCertificate>>, ClientCertificateError> {
    let first = chain.and_then(|chain| chain.first());
    Ok(first.map(|der| client_certificate(der)).transpose()?.map(Arc::new))
}

fn client_certificate(der: &[u8]) -> Result<ClientCertificate, ClientCertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| ClientCertificateError(error.to_string()))?;
    let mut sans = AlternativeNames::default();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        extension.value.general_names.iter().for_each(|name| sort(name, &mut sans));
    }
    Ok(ClientCertificate {
        subject: subject(certificate.subject())?,
        issuer: subject(certificate.issuer())?,
        serial: hex(certificate.raw_serial()),
        fingerprint: hex(&Sha256::digest(der)),
        sans,
    })
}

fn sort(name: &GeneralName<'_>, sans: &mut AlternativeNames) {
    let (kind, text) = match name {
        GeneralName::DNSName(text) => (&mut sans.dns, text),
        GeneralName::URI(text) => (&mut sans.uri, text),
        GeneralName::RFC822Name(text) => (&mut sans.email, text),
        _ => return,
    };
    kind.push((*text).to_owned());
}

fn subject(name: &X509Name<'_>) -> Result<Subject, ClientCertificateError> {
    let sets: Result<_, _> = name.iter().map(|set| set.iter().map(attribute).collect()).collect();
    sets.map(|sets: Vec<_>| Subject::of(&sets))
}

fn attribute(written: &AttributeTypeAndValue<'_>) -> Result<Attribute, ClientCertificateError> {
    let der = written.attr_value().to_der_vec();
    Ok(Attribute {
        oid: written.attr_type().to_id_string(),
        text: written.as_str().ok().map(str::to_owned),
        der: der.map_err(|error| ClientCertificateError(error.to_string()))?,
    })
}

/// An address as a certificate holds it (RFC 5280 section 4.2.1.6).
pub(super) fn address(octets: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(octets).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

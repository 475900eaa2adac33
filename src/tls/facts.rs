//! What a finished handshake settled, in words for routes, fields and logs.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls::{ProtocolVersion, ServerConnection};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::http::connection::{ClientCertificate, Tls};

/// A certificate that was verified and yet cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClientCertificateError(String);

/// The facts of a handshake that is done.
pub fn facts(session: &ServerConnection) -> Result<Tls, ClientCertificateError> {
    let client = session.peer_certificates().and_then(|chain| chain.first());
    Ok(Tls {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: session
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        sni: session.server_name().map(str::to_owned),
        client: client.map(|der| client_certificate(der)).transpose()?.map(Arc::new),
    })
}

fn client_certificate(der: &[u8]) -> Result<ClientCertificate, ClientCertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| ClientCertificateError(error.to_string()))?;
    let sans = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(alternative).collect(),
        _ => Vec::new(),
    };
    Ok(ClientCertificate {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex(certificate.raw_serial()),
        fingerprint: hex(&Sha256::digest(der)),
        sans,
    })
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    }
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

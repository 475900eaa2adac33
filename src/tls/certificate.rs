//! A certificate with its key, read from PEM and known to fit each other.

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{
    InconsistentKeys,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::{
    asn1_rs::{Enumerated, Sequence},
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer,
    time::ASN1Time,
    x509::X509Version,
};

use super::{
    pem::{self, Fault},
    provider::provider,
};

/// A certificate, those between it and its authority, and its key.
#[derive(Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Certificate(Fault),
    #[error("the certificate cannot be read: {0}")]
    CertificateUnreadable(String),
    #[error("the certificate is X.509 version {0}, and TLS needs version 3")]
    Version(u32),
    #[error(transparent)]
    Key(Fault),
    #[error("the private key cannot be used: {0}")]
    KeyUnusable(String),
    #[error("the private key is not the certificate's")]
    Mismatch,
    #[error("the private key is that of certificate {0} in the file, and the server's own stands first")]
    Order(usize),
    #[error("this is no OCSP response of success in DER")]
    Ocsp,
    #[error("{0:?} is no name that a certificate can have")]
    Name(String),
}

// === impl Certificate ===

impl Certificate {
    /// Reads both files and checks that they belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = pem::certificates(chain).map_err(CertificateError::Certificate)?;
        Self::from_der(chain, pem::private_key(key).map_err(CertificateError::Key)?)
    }

    pub(super) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let facts = Facts::of(
            chain.first().ok_or_else(|| CertificateError::CertificateUnreadable("there is none".into()))?,
        )?;
        let mismatch = |key: PrivateKeyDer<'static>| match of_another(&chain, &key) {
            Some(nth) => CertificateError::Order(nth),
            None => CertificateError::Mismatch,
        };
        let key =
            CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(
                |error| match error {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => mismatch(key),
                    rustls::Error::InvalidCertificate(_) => {
                        CertificateError::CertificateUnreadable(error.to_string())
                    }
                    error => CertificateError::KeyUnusable(error.to_string()),
                },
            )?;
        let Facts { names, not_before, not_after } = facts;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// The same with what is stapled to it in the handshake (RFC 6066 section 8).
    pub fn with_ocsp(&self, response: &[u8]) -> Result<Self, CertificateError> {
        if !is_ocsp_success(response) {
            return Err(CertificateError::Ocsp);
        }
        let key = CertifiedKey { ocsp: Some(response.to_vec()), ..CertifiedKey::clone(&self.key) };
        Ok(Self {
            key: Arc::new(key),
            names: self.names.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
        })
    }

    /// The names that it stands for, lower-case; addresses as text.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The certificate itself and those between it and its authority.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it stands for this name, exactly or by a wildcard of one label (RFC 9525 section 6.3).
    pub fn covers(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|own| *own == name || Some(own) == wildcard.as_ref())
    }
}

impl CertificateError {
    /// Whether the key's file is to blame, not the certificate's.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::Key(_) | Self::KeyUnusable(_) | Self::Mismatch)
    }

    /// What to do about it.
    pub fn help(&self, file: &Path) -> Option<String> {
        match self {
            Self::Certificate(fault) | Self::Key(fault) => fault.help(file),
            Self::Version(_) => Some(
                "have it issued again with extensions; openssl x509 -req makes version 3 with -extfile, and \
                 subjectAltName has to list its names"
                    .into(),
            ),
            Self::Order(nth) => {
                Some(format!("put certificate {nth} first, then the one that issued it, and so on"))
            }
            _ => None,
        }
    }
}

struct Facts {
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let unreadable = |error: &dyn ToString| CertificateError::CertificateUnreadable(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if certificate.version() != X509Version::V3 {
            return Err(CertificateError::Version(certificate.version().0 + 1));
        }
        let validity = certificate.validity();
        Ok(Self {
            names: names(&certificate),
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
        })
    }
}

/// The place of another certificate in the chain that the key belongs to, counted from 1.
fn of_another(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Option<usize> {
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &provider()).is_ok()
    };
    chain.iter().skip(1).position(fits).map(|at| at + 2)
}

/// The subject's alternative names; the common name where there are none, as old certificates have it.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    if !alternative.is_empty() {
        return alternative;
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(str::to_ascii_lowercase).collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => super::facts::address(octets),
        _ => None,
    }
}

/// A sequence of the status "successful" and the response's bytes, and nothing behind it (RFC 6960 section 4.2.1). What
/// the response says is the clients' to judge.
fn is_ocsp_success(der: &[u8]) -> bool {
    let Ok((rest, response)) = Sequence::from_der(der) else { return false };
    let status = Enumerated::from_der(&response.content);
    rest.is_empty() && status.is_ok_and(|(bytes, status)| status.0 == 0 && !bytes.is_empty())
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = std::time::Duration::from_secs(seconds.unsigned_abs());
    let moved = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_read() {
        let (chain, key) = pem(&["WWW.example.com", "*.example.com", "192.0.2.1"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["www.example.com", "*.example.com", "192.0.2.1"]);
        assert!(certificate.not_before() < certificate.not_after());
        assert!(certificate.covers("api.Example.com"));
        assert!(!certificate.covers("a.b.example.com") && !certificate.covers("example.com"));
    }

    #[test]
    fn what_is_stapled_is_a_response_of_success() {
        assert!(is_ocsp_success(&[0x30, 0x07, 0x0a, 0x01, 0x00, 0xa0, 0x02, 0x30, 0x00]));
        let wrong: [&[u8]; 5] = [
            &[],
            b"-----BEGIN",
            &[0x30, 0x03, 0x0a, 0x01, 0x06],
            &[0x30, 0x03, 0x0a, 0x01, 0x00],
            &[0x30, 0x07, 0x0a, 0x01, 0x00, 0xa0, 0x02, 0x30, 0x00, 0x00],
        ];
        for wrong in wrong {
            assert!(!is_ocsp_success(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_the_right_file() {
        let (chain, key) = pem(&["a.test"]);
        let (_, other) = pem(&["a.test"]);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cases: [(&str, &str, &str, bool); 7] = [
            (&chain, &other, "the private key is not the certificate's", true),
            (&chain, &chain, "there is a certificate in it, but no private key", true),
            (&chain, "", "the file is empty", true),
            (&key, &key, "there is a private key in it, but no certificate", false),
            ("nothing", &key, "there is no certificate in it", false),
            (garbage, &key, "the certificate cannot be read", false),
            ("-----BEGIN CERTIFICATE-----\n!", &key, "the file is cut off", false),
        ];
        for (chain, key, message, is_of_key) in cases {
            let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(message), "{error} is not {message}");
            assert_eq!(error.is_of_key(), is_of_key, "{error}");
        }
    }
}

//! Encryption towards endpoints: whom to trust, what to show, which name to ask for. All of it makes an
//! [`Identity`] that connections are pooled by: what was verified for one pool never serves another.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::{Protocol, ProxyProtocol, Verify};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    tls::pem::{self, Fault},
    value::{Address, FilePath, Spanned, Url},
};

/// Encryption towards the endpoints of an upstream.
#[derive(Clone, Debug)]
pub struct Tls {
    pub server_name: ServerName,
    /// Who is trusted; without it the system's authorities.
    pub authorities: Option<Authorities>,
    /// What is shown to endpoints that ask for a certificate.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    pub verify: Verify,
}

/// The name sent as SNI and looked for in the endpoint's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerName {
    Fixed(String),
    /// The host that the request was made to.
    Request,
}

/// Certificates of authorities, at least one, each proved to be readable by what verifies with them.
#[derive(Clone)]
pub struct Authorities {
    certificates: Arc<[WrappedX509]>,
    fingerprint: [u8; 32],
}

/// Why a file's certificates cannot be trusted.
#[derive(Debug)]
pub struct Unusable {
    reason: String,
    /// What is wrong with the file itself, where that is it.
    fault: Option<Fault>,
}

/// A certificate with its key, for endpoints that ask who connects.
pub struct ClientCertificate {
    pub(super) pair: Arc<CertKey>,
    fingerprint: [u8; 32],
}

/// What tells connections apart that must not be shared, beside the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub u64);

// === impl Unusable ===

impl From<Fault> for Unusable {
    fn from(fault: Fault) -> Self {
        Self { reason: fault.to_string(), fault: Some(fault) }
    }
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self { reason, fault: None }
    }
}

// === impl Authorities ===

impl Authorities {
    /// Reads PEM. The engine would only fail at the first connection, so everything is tried here.
    pub fn from_pem(file: &[u8]) -> Result<Self, Unusable> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        let mut digest = Sha256::new();
        for certificate in pem::certificates(file)? {
            let nth = certificates.len() + 1;
            roots
                .add(certificate.clone())
                .map_err(|error| Unusable::from(format!("certificate {nth} cannot be trusted: {error}")))?;
            field(&mut digest, &certificate);
            certificates
                .push(wrapped(&certificate).map_err(|e| Unusable::from(format!("certificate {nth} {e}")))?);
        }
        Ok(Self { certificates: certificates.into(), fingerprint: digest.finalize().into() })
    }
}

impl Authorities {
    /// Those of a file, or what is wrong with it.
    pub fn of_file(file: &Spanned<FilePath>, pem: &[u8]) -> Result<Self, Diagnostic> {
        Self::from_pem(pem).map_err(|Unusable { reason, fault }| {
            let message = format!("{} holds no authorities to trust", file.0.display());
            let help = fault.and_then(|fault| fault.help(&file.0));
            Diagnostic::error(Code::BadCertificate, file.span, message).reason(reason).maybe_help(help)
        })
    }

    /// Whom to trust at a URL, where that is written as its `ca`.
    pub fn for_url(
        ca: Option<&Spanned<FilePath>>,
        url: &Url,
        read: impl FnOnce(&Spanned<FilePath>) -> Option<Arc<[u8]>>,
        out: &mut Diagnostics,
    ) -> Option<Self> {
        let ca = ca?;
        if !url.is_https {
            let message = "ca has no effect: over http nobody shows a certificate";
            out.push(Diagnostic::error(Code::NoEffect, ca.span, message));
            return None;
        }
        Self::of_file(ca, &read(ca)?).map_err(|problem| out.push(problem)).ok()
    }

    /// As TLS takes them.
    pub(super) fn certificates(&self) -> Arc<[WrappedX509]> {
        self.certificates.clone()
    }
}

/// Two are the same that trust the same.
impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Authorities {}

impl Hash for Authorities {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authorities", self.certificates.len())
    }
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// The chain, the client's own certificate first, and its key.
    pub fn new(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Result<Self, String> {
        if chain.is_empty() {
            return Err("the chain is empty".into());
        }
        let mut digest = Sha256::new();
        for certificate in chain {
            wrapped(certificate).map_err(|error| format!("a certificate of the chain {error}"))?;
            field(&mut digest, certificate);
        }
        // The engine takes a key's bytes and tells its kind by them.
        PrivateKeyDer::try_from(key.secret_der()).map_err(|error| format!("the key: {error}"))?;
        field(&mut digest, key.secret_der());
        let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
        let pair = Arc::new(CertKey::new(chain, key.secret_der().to_vec()));
        Ok(Self { pair, fingerprint: digest.finalize().into() })
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pair.fmt(f)
    }
}

// === impl Identity ===

impl Identity {
    pub fn of(protocol: Protocol, tls: Option<&Tls>, announces: Option<ProxyProtocol>) -> Self {
        let mut digest = Sha256::new();
        let announces = announces.map_or(0, |version| version as u8 + 1);
        digest.update([protocol as u8, u8::from(tls.is_some()), announces]);
        if let Some(tls) = tls {
            digest.update([u8::from(tls.verify == Verify::Full)]);
            match &tls.server_name {
                ServerName::Fixed(name) => field(&mut digest, name.as_bytes()),
                ServerName::Request => field(&mut digest, b""),
            }
            field(&mut digest, tls.authorities.as_ref().map_or(&[], |a| &a.fingerprint[..]));
            field(&mut digest, tls.client_certificate.as_ref().map_or(&[], |c| &c.fingerprint[..]));
        }
        let digest: [u8; 32] = digest.finalize().into();
        Self(digest.first_chunk().copied().map_or(0, u64::from_le_bytes))
    }
}

/// The server name for a request to `host`. It is never empty: without a name Pingora's rustls connector would
/// skip verification altogether, so a request without a usable host is verified against the endpoint's address.
pub fn name_for(host: &str, address: &Address) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    match address {
        _ if !host.is_empty() => host.to_owned(),
        Address::Tcp(address) => address.ip().to_string(),
        Address::Unix(_) => "localhost".into(),
    }
}

/// Parses as Pingora does, which panics on what is no certificate.
fn wrapped(der: &CertificateDer<'_>) -> Result<WrappedX509, &'static str> {
    match X509Certificate::from_der(der) {
        Ok(([], _)) => Ok(WrappedX509::new(der.to_vec(), parse_x509)),
        _ => Err("is no X.509 certificate"),
    }
}

/// Adds a field with its length, so that two fields never read as two others.
fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
    }

    fn tls() -> Tls {
        Tls {
            server_name: ServerName::Request,
            authorities: None,
            client_certificate: None,
            verify: Verify::Full,
        }
    }

    #[test]
    fn authorities_are_read_and_rubbish_is_not() {
        let pem = authority("a").cert.pem() + &authority("b").cert.pem();
        assert_eq!(Authorities::from_pem(pem.as_bytes()).unwrap().certificates.len(), 2);
        for wrong in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Authorities::from_pem(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn client_certificates_keep_their_chain() {
        let leaf = authority("client");
        let key = PrivateKeyDer::try_from(leaf.signing_key.serialize_der()).unwrap();
        let certificate = ClientCertificate::new(&[leaf.cert.der().clone()], &key).unwrap();
        assert_eq!(certificate.pair.leaf().borrow_raw_cert(), leaf.cert.der().as_ref());
        assert!(ClientCertificate::new(&[], &key).is_err());
        assert!(ClientCertificate::new(&[CertificateDer::from(vec![1, 2])], &key).is_err());
    }

    #[test]
    fn every_setting_that_was_verified_tells_identities_apart() {
        let leaf = authority("client");
        let key = PrivateKeyDer::try_from(leaf.signing_key.serialize_der()).unwrap();
        let client = Arc::new(ClientCertificate::new(&[leaf.cert.der().clone()], &key).unwrap());
        let ca = |name| Some(Authorities::from_pem(authority(name).cert.pem().as_bytes()).unwrap());
        let all = [
            Identity::of(Protocol::H1, None, None),
            Identity::of(Protocol::H1, None, Some(ProxyProtocol::V1)),
            Identity::of(Protocol::H1, None, Some(ProxyProtocol::V2)),
            Identity::of(Protocol::H2c, None, None),
            Identity::of(Protocol::H1, Some(&tls()), None),
            Identity::of(Protocol::H2, Some(&tls()), None),
            Identity::of(Protocol::H1, Some(&Tls { verify: Verify::None, ..tls() }), None),
            Identity::of(
                Protocol::H1,
                Some(&Tls { server_name: ServerName::Fixed("a".into()), ..tls() }),
                None,
            ),
            Identity::of(Protocol::H1, Some(&Tls { authorities: ca("a"), ..tls() }), None),
            Identity::of(Protocol::H1, Some(&Tls { authorities: ca("b"), ..tls() }), None),
            Identity::of(Protocol::H1, Some(&Tls { client_certificate: Some(client), ..tls() }), None),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(Identity::of(Protocol::H1, Some(&tls()), None), all[4]);
    }

    #[test]
    fn a_server_name_is_never_empty() {
        let tcp: Address = "[fd00::1]:443".parse().unwrap();
        let unix: Address = "unix:/run/x".parse().unwrap();
        assert_eq!(name_for("www.example.com.", &tcp), "www.example.com");
        assert_eq!(name_for("[::1]", &tcp), "::1");
        assert_eq!(name_for("", &tcp), "fd00::1");
        assert_eq!(name_for(".", &unix), "localhost");
    }
}

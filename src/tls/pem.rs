//! Certificates and keys in PEM (RFC 7468), and what is wrong with a file that does not hold what it is named for.

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
    pem::{self, PemObject},
};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use crate::value::encoding;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    message: String,
    /// What to do; "FILE" stands for the file's path.
    remedy: Option<&'static str>,
}

/// What a file is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Certificate,
    PrivateKey,
    PublicKey,
}

/// What a file holds instead.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Certificate,
    TrustedCertificate,
    PrivateKey,
    EncryptedKey,
    DsaKey,
    OpenSshKey,
    PublicKey,
    RsaPublicKey,
    Request,
    Pkcs7,
    Pkcs12,
    JavaKeyStore,
    Crl,
    /// A section that is none of these, by its label.
    Other(String),
}

/// A part of a PEM file between its lines of BEGIN and END.
struct Section {
    found: Found,
    is_indented: bool,
}

/// The certificates of a file, at least one.
pub fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain = items::<CertificateDer<'static>>(file, Wanted::Certificate)?;
    if chain.is_empty() { Err(diagnose(file, Wanted::Certificate)) } else { Ok(chain) }
}

/// The private key of a file. Of several it is not known which is meant.
pub fn private_key(file: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    // A key that is encrypted cannot be decoded: that is said first.
    if sections(file).iter().any(|section| section.found == Found::EncryptedKey) {
        return Err(diagnose(file, Wanted::PrivateKey));
    }
    let mut keys = items::<PrivateKeyDer<'static>>(file, Wanted::PrivateKey)?;
    match (keys.pop(), keys.len()) {
        (None, _) => Err(diagnose(file, Wanted::PrivateKey)),
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(Fault {
            message: format!("there are {} private keys in it, and one is meant", others + 1),
            remedy: Some("keep the key that belongs to the certificate, and remove the others"),
        }),
    }
}

/// The public key of a file.
pub fn public_key(file: &[u8]) -> Result<SubjectPublicKeyInfoDer<'static>, Fault> {
    let keys = items::<SubjectPublicKeyInfoDer<'static>>(file, Wanted::PublicKey)?;
    keys.into_iter().next().ok_or_else(|| diagnose(file, Wanted::PublicKey))
}

/// Whether a file holds a private key, encrypted or not.
pub fn has_private_key(file: &[u8]) -> bool {
    let is_key = |found: &Found| matches!(found, Found::PrivateKey | Found::EncryptedKey | Found::DsaKey);
    sections(file).iter().any(|section| is_key(&section.found))
}

fn items<T: PemObject>(file: &[u8], wanted: Wanted) -> Result<Vec<T>, Fault> {
    let file =
        encoding::unmarked(file).map_err(|reason| Fault { message: reason.to_string(), remedy: None })?;
    // The decoder would pass over the second one without a word.
    if memchr::memmem::find(file, b"----------BEGIN ").is_some() {
        return Err(Fault {
            message: "two PEM sections share a line".into(),
            remedy: Some("put a line break before the second \"-----BEGIN\" of FILE"),
        });
    }
    T::pem_slice_iter(file).collect::<Result<_, _>>().map_err(|error| malformed(&error, wanted))
}

fn malformed(error: &pem::Error, wanted: Wanted) -> Fault {
    let what = wanted.word();
    let message = match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a PEM section has no line \"-----END …\": the file is cut off".into()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line \"-----BEGIN …\" does not end with five hyphens".into()
        }
        pem::Error::Base64Decode(_) => format!("a PEM section is not valid base64: the {what} is damaged"),
        other => format!("the PEM cannot be read: {other}"),
    };
    Fault { message, remedy: None }
}

/// What is wrong with a file that holds nothing of what is wanted.
fn diagnose(file: &[u8], wanted: Wanted) -> Fault {
    let sections = sections(file);
    if let Some(section) = sections.iter().find(|section| section.is_indented) {
        let message =
            format!("its lines are indented: {} of PEM begins in the first column", section.found.phrase());
        return Fault { message, remedy: Some("remove the spaces before the lines of FILE") };
    }
    let (found, is_der) = match sections.into_iter().map(|section| section.found).max_by_key(Found::weight) {
        Some(found) => (found, false),
        None => (binary(file), true),
    };
    let phrase = found.phrase();
    let message = match (&found, wanted) {
        (Found::Nothing, _) if file.is_empty() => "the file is empty".to_owned(),
        (Found::Nothing, _) => format!("there is no {} in it", wanted.word()),
        (Found::EncryptedKey, Wanted::PrivateKey) => {
            "the private key is encrypted, and there is no way to give its passphrase".to_owned()
        }
        (found, _) if is_der && found.is(wanted) => format!("it is {phrase} in DER, and PEM is needed"),
        (_, _) if is_der => format!("it is {phrase}, not a {} in PEM", wanted.word()),
        _ => format!("there is {phrase} in it, but no {}", wanted.word()),
    };
    Fault { message, remedy: found.remedy(wanted, is_der) }
}

/// The sections of a file, by their lines of BEGIN.
fn sections(file: &[u8]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let file = encoding::unmarked(file).unwrap_or_default();
    for line in file.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Ok(written) = str::from_utf8(line) else { continue };
        let text = written.trim();
        if let Some(label) = text.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            sections.push(Section {
                found: Found::by_label(label),
                is_indented: written.starts_with([' ', '\t']),
            });
        } else if text.starts_with("Proc-Type:")
            && text.contains("ENCRYPTED")
            && let Some(section) = sections.last_mut()
        {
            // The old form of encryption (RFC 1421 section 4.6.1.1), which openssl writes of PKCS#1.
            section.found = Found::EncryptedKey;
        }
    }
    sections
}

/// What a file without a PEM section is.
fn binary(file: &[u8]) -> Found {
    const PKCS7: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    const PBES2: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    const PBE_PKCS12: &[u8] = &[0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
    const JAVA: [&[u8]; 2] = [&[0xfe, 0xed, 0xfe, 0xed], &[0xce, 0xce, 0xce, 0xce]];
    if JAVA.iter().any(|magic| file.starts_with(magic)) {
        return Found::JavaKeyStore;
    }
    let Some(content) = sequence(file) else { return Found::Nothing };
    match content {
        // A PFX begins with its version, 3, and the SEQUENCE of its safe (RFC 7292 section 4).
        [0x02, 0x01, 0x03, 0x30, ..] => Found::Pkcs12,
        content if content.starts_with(PKCS7) => Found::Pkcs7,
        // An encrypted key begins with its algorithm (RFC 5958 section 3).
        content if sequence(content).is_some_and(|a| a.starts_with(PBES2) || a.starts_with(PBE_PKCS12)) => {
            Found::EncryptedKey
        }
        _ if X509Certificate::from_der(file).is_ok() => Found::Certificate,
        _ if X509CertificationRequest::from_der(file).is_ok() => Found::Request,
        _ if SubjectPublicKeyInfo::from_der(file).is_ok() => Found::PublicKey,
        _ if PrivateKeyDer::try_from(file).is_ok() => Found::PrivateKey,
        _ => Found::Nothing,
    }
}

/// The content of a SEQUENCE in DER that the bytes begin with.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x30, length @ ..] => match length {
            [short @ 0..=0x7f, content @ ..] => content.get(..usize::from(*short)),
            [0x81, _, content @ ..] | [0x82, _, _, content @ ..] | [0x83, _, _, _, content @ ..] => {
                Some(content)
            }
            _ => None,
        },
        _ => None,
    }
}

// === impl Fault ===

impl Fault {
    /// What to do about it.
    pub fn help(&self, file: &std::path::Path) -> Option<String> {
        self.remedy.map(|remedy| remedy.replace("FILE", &file.display().to_string()))
    }
}

// === impl Wanted ===

impl Wanted {
    fn word(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
            Self::PublicKey => "public key",
        }
    }
}

// === impl Found ===

impl Found {
    fn by_label(label: &str) -> Self {
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
            "TRUSTED CERTIFICATE" => Self::TrustedCertificate,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Self::PrivateKey,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "DSA PRIVATE KEY" => Self::DsaKey,
            "OPENSSH PRIVATE KEY" => Self::OpenSshKey,
            "PUBLIC KEY" => Self::PublicKey,
            "RSA PUBLIC KEY" => Self::RsaPublicKey,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" => Self::Pkcs7,
            "X509 CRL" => Self::Crl,
            other => Self::Other(other.chars().take(40).collect()),
        }
    }

    /// The most telling of several: parameters stand before many a key.
    fn weight(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Other(_) => 1,
            Self::Certificate | Self::PublicKey | Self::Crl => 2,
            Self::PrivateKey => 3,
            _ => 4,
        }
    }

    fn is(&self, wanted: Wanted) -> bool {
        matches!(
            (self, wanted),
            (Self::Certificate, Wanted::Certificate)
                | (Self::PrivateKey, Wanted::PrivateKey)
                | (Self::PublicKey, Wanted::PublicKey)
        )
    }

    /// What it is called, with its article.
    fn phrase(&self) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::Certificate => "a certificate".into(),
            Self::TrustedCertificate => "an OpenSSL trusted certificate".into(),
            Self::PrivateKey => "a private key".into(),
            Self::EncryptedKey => "an encrypted private key".into(),
            Self::DsaKey => "a DSA private key".into(),
            Self::OpenSshKey => "a private key in OpenSSH's own format".into(),
            Self::PublicKey | Self::RsaPublicKey => "a public key".into(),
            Self::Request => "a certificate signing request (CSR)".into(),
            Self::Pkcs7 => "a PKCS#7 bundle".into(),
            Self::Pkcs12 => "a PKCS#12 archive (.p12, .pfx)".into(),
            Self::JavaKeyStore => "a Java key store".into(),
            Self::Crl => "a certificate revocation list".into(),
            Self::Other(label) => format!("a section {label:?}"),
        }
    }

    fn remedy(&self, wanted: Wanted, is_der: bool) -> Option<&'static str> {
        Some(match (self, wanted) {
            (Self::EncryptedKey, Wanted::PrivateKey) if is_der => {
                "decrypt it: (umask 077; openssl pkey -inform der -in FILE -out FILE.pem), and name FILE.pem"
            }
            (Self::EncryptedKey, Wanted::PrivateKey) => {
                "decrypt it: (umask 077; openssl pkey -in FILE -out FILE.pem), and name FILE.pem"
            }
            (Self::Certificate, Wanted::Certificate) => {
                "convert it: openssl x509 -inform der -in FILE -out FILE.pem, and name FILE.pem"
            }
            (Self::PrivateKey, Wanted::PrivateKey) => {
                "convert it: (umask 077; openssl pkey -inform der -in FILE -out FILE.pem), and name FILE.pem"
            }
            (Self::PublicKey, Wanted::PublicKey) => {
                "convert it: openssl pkey -pubin -inform der -in FILE -out FILE.pem, and name FILE.pem"
            }
            (Self::TrustedCertificate, Wanted::Certificate) => {
                "convert it: openssl x509 -in FILE -out FILE.pem, and name FILE.pem"
            }
            (Self::Pkcs12, Wanted::Certificate) => {
                "extract it: openssl pkcs12 -in FILE -nokeys -out FILE.pem, and name FILE.pem"
            }
            (Self::Pkcs12, Wanted::PrivateKey) => {
                "extract it: (umask 077; openssl pkcs12 -in FILE -nocerts -nodes -out FILE.key), and name FILE.key"
            }
            (Self::Pkcs7, Wanted::Certificate) if is_der => {
                "extract it: openssl pkcs7 -inform der -print_certs -in FILE -out FILE.pem, and name FILE.pem"
            }
            (Self::Pkcs7, Wanted::Certificate) => {
                "extract it: openssl pkcs7 -print_certs -in FILE -out FILE.pem, and name FILE.pem"
            }
            (Self::JavaKeyStore, _) => {
                "convert it to PKCS#12: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype \
                 PKCS12; then extract certificate and key with openssl pkcs12"
            }
            (Self::OpenSshKey, Wanted::PrivateKey) => {
                "convert a copy of it: ssh-keygen -p -N '' -m PEM -f COPY"
            }
            (Self::DsaKey, _) => {
                "TLS has no use for DSA: make an RSA, ECDSA or Ed25519 key and a certificate for it"
            }
            (Self::Request, Wanted::Certificate) => {
                "a request is what the authority is sent: name the certificate that the authority issued for it"
            }
            (Self::PrivateKey | Self::EncryptedKey | Self::OpenSshKey, Wanted::Certificate) => {
                "name the file of the certificate: cert and key may be swapped"
            }
            (Self::Certificate | Self::TrustedCertificate, Wanted::PrivateKey) => {
                "name the file of the private key: cert and key may be swapped"
            }
            (
                Self::PublicKey | Self::RsaPublicKey | Self::Request | Self::Pkcs7 | Self::Crl,
                Wanted::PrivateKey,
            ) => "name the file of the private key that belongs to the certificate",
            (Self::RsaPublicKey, Wanted::PublicKey) => {
                "convert it: openssl rsa -RSAPublicKey_in -in FILE -pubout -out FILE.pem, and name FILE.pem"
            }
            (Self::Certificate, Wanted::PublicKey) => {
                "extract it: openssl x509 -in FILE -noout -pubkey > FILE.pub, and name FILE.pub"
            }
            (Self::PrivateKey | Self::EncryptedKey, Wanted::PublicKey) => {
                "extract it: openssl pkey -in FILE -pubout -out FILE.pub, and name FILE.pub; the private key stays with the issuer"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn message(result: Result<impl Sized, Fault>) -> String {
        result.err().expect("it is wrong").to_string()
    }

    #[test]
    fn sections_are_told_by_their_labels() {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let private = key.serialize_pem();
        assert_eq!(certificates(format!("\u{feff}{pem}{private}").as_bytes()).unwrap().len(), 1);
        assert!(private_key(format!("{pem}{private}").replace('\n', "\r\n").as_bytes()).is_ok());
        assert!(has_private_key(private.as_bytes()) && !has_private_key(pem.as_bytes()));
        for (file, said) in [
            (String::new(), "the file is empty"),
            ("nothing\n".into(), "there is no private key in it"),
            (pem.clone(), "there is a certificate in it, but no private key"),
            (format!("{private}{private}"), "there are 2 private keys in it"),
            (private.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "is encrypted"),
            (
                private.replace(
                    "BEGIN PRIVATE KEY-----",
                    "BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
                ),
                "is encrypted",
            ),
            (format!("  {}", private.replace('\n', "\n  ")), "its lines are indented"),
            (private.replace("-----END PRIVATE KEY-----\n", ""), "the file is cut off"),
            (private.replacen("\nM", "\n!", 1), "not valid base64"),
            (format!("{}{private}", private.trim_end()), "two PEM sections share a line"),
            (
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".into(),
                "a section \"EC PARAMETERS\"",
            ),
        ] {
            let error = message(private_key(file.as_bytes()));
            assert!(error.contains(said), "{error} is not {said}");
        }
        let utf16: Vec<u8> = private.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(message(private_key(&utf16)).contains("UTF-16"));
    }

    #[test]
    fn binary_files_are_told_by_what_they_are() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(binary(certificate.der()), Found::Certificate);
        assert_eq!(binary(params.serialize_request(&key).unwrap().der()), Found::Request);
        assert_eq!(binary(&key.serialize_der()), Found::PrivateKey);
        let public = BASE64_STANDARD
            .decode(key.public_key_pem().lines().filter(|line| !line.starts_with('-')).collect::<String>());
        assert_eq!(binary(&public.unwrap()), Found::PublicKey);
        for nothing in [&b""[..], b"0", &[0x30], &[0x30, 0x82, 1], &[0x30, 0x05, 1], &[0xff; 9]] {
            assert_eq!(binary(nothing), Found::Nothing, "{nothing:?}");
        }
    }
}

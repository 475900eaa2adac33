//! An authority of a test's own, and what it signs.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
};

use super::Tree;

/// An authority with its files: `ca.pem`, and a `NAME.pem` and `NAME.key` for each certificate signed.
pub struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Certificates {
    /// Makes an authority whose files lie in a tree.
    pub fn new(tree: &Tree) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        tree.write("ca.pem", authority.pem());
        Self { authority, directory: tree.path("") }
    }

    /// Signs a certificate for these names; the files are named after `name`, and so is its subject.
    pub fn sign(&self, name: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// A client that trusts this authority, offers these protocols and shows no certificate.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_by(ring::default_provider(), alpn)
    }

    /// The same with other cryptography.
    pub fn client_by(&self, provider: CryptoProvider, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

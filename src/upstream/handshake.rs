//! TLS handshakes with endpoints that have authorities of their own, get a client certificate or are not verified.
//!
//! For each such connection Pingora builds a new configuration, which knows of no session. Here connections of the same
//! settings share a configuration, and with it the sessions: a second connection resumes the first one's.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use pingora::{
    Error, ErrorType, OrErr,
    connectors::{ConnectorOptions, TransportConnector},
    protocols::{ALPN, Stream, l4, tls::client},
    upstreams::peer::{HttpPeer, Scheme},
};
use pingora_rustls::{TlsConnector, load_ca_file_into_store, load_platform_certs_incl_env_into_store};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

/// The configurations of handshakes, with their sessions.
#[derive(Default)]
pub struct Handshakes {
    /// The one that was used last is the last.
    kept: Mutex<Vec<(Fingerprint, Arc<ClientConfig>)>>,
    /// The system's authorities, once they are needed.
    system: OnceLock<Arc<RootCertStore>>,
}

/// What a configuration was made of. What was verified by one never serves another.
type Fingerprint = [u8; 32];

/// Configurations that are kept at most.
const MOST_KEPT: usize = 256;

// === impl Handshakes ===

impl Handshakes {
    /// Whether Pingora would build a configuration for this peer alone.
    pub fn are_for(peer: &HttpPeer) -> bool {
        let options = &peer.options;
        let is_own = options.ca.is_some() || peer.client_cert_key.is_some() || !options.verify_cert;
        is_own && matches!(peer.scheme, Scheme::HTTPS)
    }

    /// Connects and shakes hands within the peer's time.
    pub async fn connect(
        &self,
        transport: &TransportConnector,
        options: Option<&ConnectorOptions>,
        peer: &HttpPeer,
    ) -> Result<Stream, Box<Error>> {
        let began = Instant::now();
        let plain = HttpPeer { scheme: Scheme::HTTP, ..peer.clone() };
        let stream = transport.new_stream(&plain).await?;
        let stream = stream.into_any().downcast::<l4::stream::Stream>();
        let stream =
            stream.map_err(|_| Error::explain(ErrorType::InternalError, "the connection is no socket"))?;
        let connector = TlsConnector::from(self.config(options, peer)?);
        let handshake = client::handshake(&connector, &peer.sni, *stream);
        let Some(limit) = peer.options.total_connection_timeout else {
            return Ok(Box::new(handshake.await?));
        };
        match tokio::time::timeout(limit.saturating_sub(began.elapsed()), handshake).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(_) => Err(late(limit)),
        }
    }

    fn config(
        &self,
        options: Option<&ConnectorOptions>,
        peer: &HttpPeer,
    ) -> Result<Arc<ClientConfig>, Box<Error>> {
        let fingerprint = fingerprint(peer);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(known, _)| *known == fingerprint);
        let entry = match known {
            Some(at) => kept.remove(at),
            None => (fingerprint, Arc::new(self.build(options, peer)?)),
        };
        if kept.len() >= MOST_KEPT {
            kept.remove(0);
        }
        let config = entry.1.clone();
        kept.push(entry);
        Ok(config)
    }

    fn build(&self, options: Option<&ConnectorOptions>, peer: &HttpPeer) -> Result<ClientConfig, Box<Error>> {
        let builder = ClientConfig::builder_with_protocol_versions(&[&TLS12, &TLS13])
            .with_root_certificates(self.roots(options, peer)?);
        let mut config = match &peer.client_cert_key {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = std::iter::once(pair.leaf()).chain(pair.intermediates());
                let chain = chain.map(|certificate| certificate.borrow_raw_cert().clone().into()).collect();
                let key = PrivateKeyDer::try_from(pair.key().clone());
                let key = key.map_err(|error| Error::explain(ErrorType::InvalidCert, error))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.or_err(ErrorType::InvalidCert, "the client certificate")?
            }
        };
        if !peer.options.verify_cert {
            let verifier = Arc::new(Unverified(config.crypto_provider().clone()));
            config.dangerous().set_certificate_verifier(verifier);
        }
        config.alpn_protocols = protocols(&peer.options.alpn);
        Ok(config)
    }

    fn roots(
        &self,
        options: Option<&ConnectorOptions>,
        peer: &HttpPeer,
    ) -> Result<Arc<RootCertStore>, Box<Error>> {
        let mut roots = RootCertStore::empty();
        if !peer.options.verify_cert {
            return Ok(Arc::new(roots));
        }
        if let Some(certificates) = &peer.options.ca {
            for certificate in certificates.iter() {
                let certificate = CertificateDer::from(certificate.borrow_raw_cert().clone());
                roots.add(certificate).or_err(ErrorType::InvalidCert, "an authority")?;
            }
            return Ok(Arc::new(roots));
        }
        if let Some(system) = self.system.get() {
            return Ok(system.clone());
        }
        match options.and_then(|options| options.ca_file.as_ref()) {
            Some(file) => load_ca_file_into_store(file, &mut roots)?,
            None => load_platform_certs_incl_env_into_store(&mut roots)?,
        }
        Ok(self.system.get_or_init(|| Arc::new(roots)).clone())
    }
}

fn late(limit: Duration) -> Box<Error> {
    Error::explain(ErrorType::TLSHandshakeTimedout, format!("no TLS handshake in {limit:?}"))
}

fn protocols(alpn: &ALPN) -> Vec<Vec<u8>> {
    match alpn {
        ALPN::H1 => vec![b"http/1.1".to_vec()],
        ALPN::H2 => vec![b"h2".to_vec()],
        ALPN::H2H1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ALPN::Custom(custom) => vec![custom.protocol().to_vec()],
    }
}

fn fingerprint(peer: &HttpPeer) -> Fingerprint {
    let mut digest = Sha256::new();
    // With their lengths, so that two fields never read as two others.
    let mut field = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    let (ca, pair) = (&peer.options.ca, &peer.client_cert_key);
    field(&[u8::from(peer.options.verify_cert), u8::from(ca.is_some()), u8::from(pair.is_some())]);
    protocols(&peer.options.alpn).iter().for_each(|protocol| field(protocol));
    field(b"");
    ca.iter().flat_map(|ca| ca.iter()).for_each(|certificate| field(certificate.borrow_raw_cert()));
    field(b"");
    if let Some(pair) = pair {
        field(pair.leaf().borrow_raw_cert());
        pair.intermediates().iter().for_each(|certificate| field(certificate.borrow_raw_cert()));
        field(b"");
        field(pair.key());
    }
    digest.finalize().into()
}

/// Accepts any certificate (`verify: none`). That the endpoint has its key is verified all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
    use rcgen::{CertifiedKey, KeyPair};

    use super::*;

    fn peer(change: impl FnOnce(&mut HttpPeer)) -> HttpPeer {
        let mut peer = HttpPeer::new(("127.0.0.1", 1), true, "a.example".into());
        change(&mut peer);
        peer
    }

    fn authority(name: &str) -> CertifiedKey<KeyPair> {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
    }

    #[test]
    fn what_verifies_otherwise_has_sessions_of_its_own() {
        let certificates = [authority("a"), authority("b")];
        let ca = |nth: usize| {
            let der = certificates[nth].cert.der().to_vec();
            Some(Arc::from([WrappedX509::new(der, parse_x509)]))
        };
        let pair = |nth: usize| {
            let CertifiedKey { cert, signing_key } = &certificates[nth];
            Some(Arc::new(CertKey::new(vec![cert.der().to_vec()], signing_key.serialize_der())))
        };
        let peers = [
            peer(|_| {}),
            peer(|peer| peer.options.verify_cert = false),
            peer(|peer| peer.options.ca = ca(0)),
            peer(|peer| peer.options.ca = ca(1)),
            peer(|peer| peer.client_cert_key = pair(0)),
            peer(|peer| peer.client_cert_key = pair(1)),
            peer(|peer| (peer.options.ca, peer.client_cert_key) = (ca(0), pair(0))),
            peer(|peer| (peer.options.ca, peer.options.alpn) = (ca(0), ALPN::H2)),
            peer(|peer| (peer.options.ca, peer.options.alpn) = (ca(0), ALPN::H2H1)),
        ];
        let distinct: std::collections::HashSet<_> = peers.iter().map(fingerprint).collect();
        assert_eq!(distinct.len(), peers.len());
        assert_eq!(fingerprint(&peer(|peer| peer.options.ca = ca(0))), fingerprint(&peers[2]), "by content");
        assert!(!Handshakes::are_for(&peers[0]) && peers[1..].iter().all(Handshakes::are_for));
        let plain = HttpPeer { scheme: Scheme::HTTP, ..peers[1].clone() };
        assert!(!Handshakes::are_for(&plain));
    }
}

//! A listener's side of the handshake.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion, crypto,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::resolver::Resolver;

/// The versions from TLS 1.2 on.
pub const SINCE_TLS12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// The versions from TLS 1.3 on.
pub const SINCE_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// What a listener's handshake is made of.
#[derive(Debug)]
pub struct Handshake {
    pub resolver: Resolver,
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Names of protocols, the preferred first.
    pub alpn: Vec<Vec<u8>>,
    pub client_auth: Option<ClientAuth>,
}

/// Certificates asked of clients.
#[derive(Debug)]
pub struct ClientAuth {
    /// Of those who may sign them.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Whether a client without one is refused; one with a wrong one always is.
    pub required: bool,
}

/// Why a handshake cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error("an authority's certificate cannot be used: {0}")]
    Authority(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The settings as rustls takes them. Sessions are resumed by tickets whose keys change every few hours
/// and are this configuration's own: a ticket carries the client's verified certificate, so one made
/// under other rules must not be taken.
pub fn server_config(handshake: Handshake) -> Result<Arc<ServerConfig>, ServerError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let setup = |error: rustls::Error| ServerError::Setup(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(handshake.versions)
        .map_err(setup)?;
    let builder = match handshake.client_auth {
        Some(client_auth) => builder.with_client_cert_verifier(verifier(client_auth, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(handshake.resolver));
    config.alpn_protocols = handshake.alpn;
    config.ticketer = crypto::ring::Ticketer::new().map_err(setup)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn verifier(
    client_auth: ClientAuth,
    provider: Arc<crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ServerError> {
    let mut roots = RootCertStore::empty();
    for authority in client_auth.authorities {
        roots.add(authority).map_err(|error| ServerError::Authority(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match client_auth.required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| ServerError::Authority(error.to_string()))
}

//! The cryptography of TLS and QUIC: AWS-LC's, which is the fastest there is for rustls and has the key exchange that a quantum
//! computer does not break (X25519MLKEM768).

use std::sync::{Arc, LazyLock};

use rustls::{
    SupportedCipherSuite,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, cipher_suite as suites, kx_group as groups},
    },
};

/// What servers choose from, the first that the client has. With 128 bits they do less work and are no weaker in practice.
static SUITES: [SupportedCipherSuite; 9] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// What keys are exchanged by, the first that the client has sent its part of.
static GROUPS: [&dyn SupportedKxGroup; 4] =
    [groups::X25519MLKEM768, groups::X25519, groups::SECP256R1, groups::SECP384R1];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: GROUPS.to_vec(),
        ..aws_lc_rs::default_provider()
    })
});

/// A server's.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Makes it that of every library which does not ask, as those that connect to others: once, before any does.
pub fn install() {
    // A second time changes nothing.
    let _ = aws_lc_rs::default_provider().install_default();
}

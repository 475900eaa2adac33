//! The one place where Pingora's errors become reasons.

use pingora::{Error, ErrorType};

use crate::error::Reason;

/// How rustls says that it does not trust a certificate.
const UNTRUSTED: &str = "invalid peer certificate";

/// Why a connection could not be made.
pub fn reason_for(error: &Error) -> Reason {
    use ErrorType::*;
    match error.root_etype() {
        ConnectTimedout | TLSHandshakeTimedout => Reason::ConnectTimeout,
        ConnectRefused => Reason::ConnectRefused,
        InvalidCert => Reason::TlsCertificate,
        // Pingora keeps no more of rustls's errors than their text.
        TLSHandshakeFailure | HandshakeError if error.to_string().contains(UNTRUSTED) => {
            Reason::TlsCertificate
        }
        TLSHandshakeFailure | HandshakeError => Reason::TlsFailed,
        _ => Reason::ConnectFailed,
    }
}

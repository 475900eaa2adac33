//! The one place where Pingora's errors become reasons.

use pingora::{Error, ErrorSource, ErrorType};

use crate::error::Reason;

/// How rustls says that it does not trust a certificate.
const UNTRUSTED: &str = "invalid peer certificate";

/// Why a connection could not be made, or an exchange over one broke.
pub fn reason_for(error: &Error, connecting: bool) -> Reason {
    use ErrorType::*;
    match (error.root_etype(), error.esource()) {
        (ConnectTimedout | TLSHandshakeTimedout, _) => Reason::ConnectTimeout,
        (ConnectRefused, _) => Reason::ConnectRefused,
        (InvalidCert, _) => Reason::TlsCertificate,
        // Pingora keeps no more of rustls's errors than their text.
        (TLSHandshakeFailure | HandshakeError, _) if error.to_string().contains(UNTRUSTED) => {
            Reason::TlsCertificate
        }
        (TLSHandshakeFailure | HandshakeError, _) => Reason::TlsFailed,
        (HTTPStatus(503), _) => Reason::NoEndpoint,
        _ if connecting => Reason::ConnectFailed,
        (_, ErrorSource::Downstream) => Reason::MalformedRequest,
        (ReadTimedout, _) => Reason::UpstreamBodyTimeout,
        (WriteTimedout, _) => Reason::UpstreamWriteTimeout,
        (ConnectionClosed | ReadError | WriteError, _) => Reason::UpstreamClosed,
        (InvalidHTTPHeader | H1Error | H2Error | InvalidH2 | H2Downgrade, _) => Reason::UpstreamProtocol,
        (_, ErrorSource::Upstream) => Reason::UpstreamClosed,
        _ => Reason::Internal,
    }
}

//! Why Portolan answered by itself: one table from reason to status, blame and `Proxy-Status` (RFC 9209).

use http::StatusCode;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    Client,
    Gateway,
    Upstream,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $blame:ident, $error:literal, $message:literal;)*) => {
        /// The stable reason of an answer that Portolan made itself, or of an exchange that it cut short.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The word in the access log and in metrics.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Reason::$variant => $status,)* };
                StatusCode::from_u16(code).expect("the table holds status codes only")
            }

            pub fn blame(self) -> Blame {
                match self { $(Reason::$variant => Blame::$blame,)* }
            }

            /// The error type of RFC 9209 section 2.3.
            pub fn proxy_error(self) -> &'static str {
                match self { $(Reason::$variant => $error,)* }
            }

            /// What the client is told. Causes within go to the log alone.
            pub fn message(self) -> &'static str {
                match self { $(Reason::$variant => $message,)* }
            }
        }
    };
}

reasons! {
    // the client's
    MalformedRequest = "malformed_request", 400, Client, "http_request_error", "The request is malformed.";
    AmbiguousFraming = "ambiguous_framing", 400, Client, "http_request_error", "The length of the request's body is ambiguous.";
    BadChunk = "bad_chunk", 400, Client, "http_request_error", "The request's chunked body is malformed.";
    BadHost = "bad_host", 400, Client, "http_request_error", "The request's host is missing or malformed.";
    BadPath = "bad_path", 400, Client, "http_request_error", "The request's path is malformed.";
    UnsupportedTransferCoding = "unsupported_transfer_coding", 501, Client, "http_request_error", "The request's transfer coding is not supported.";
    UnsupportedVersion = "unsupported_version", 505, Client, "http_request_error", "The request's HTTP version is not supported.";
    UnsupportedProtocol = "unsupported_protocol", 501, Client, "http_request_error", "The requested protocol is not supported.";
    ExpectationFailed = "expectation_failed", 417, Client, "http_request_error", "The request's expectation is not supported.";
    MethodTooLong = "method_too_long", 501, Client, "http_request_error", "The request's method is too long.";
    UriTooLong = "uri_too_long", 414, Client, "http_request_error", "The request's target is too long.";
    HeaderTooLarge = "header_too_large", 431, Client, "http_request_error", "The request's header section is too large.";
    HeaderTimeout = "header_timeout", 408, Client, "http_request_error", "The request took too long to arrive.";
    BodyTooLarge = "body_too_large", 413, Client, "http_request_error", "The request's body is too large.";
    UnsupportedMediaType = "unsupported_media_type", 415, Client, "http_request_error", "This media type is not supported.";
    UnsupportedCoding = "unsupported_coding", 415, Client, "http_request_error", "This content coding is not supported.";
    BadCoding = "bad_coding", 400, Client, "http_request_error", "The request's body does not match its Content-Encoding.";
    DecodedTooLarge = "decoded_too_large", 413, Client, "http_request_error", "The decoded request body is too large.";
    InvalidRequest = "invalid_request", 400, Client, "http_request_error", "The request is invalid.";
    BodyTimeout = "body_timeout", 408, Client, "http_request_error", "The request's body took too long to arrive.";
    RateLimited = "rate_limited", 429, Client, "http_request_denied", "Too many requests: try again later.";
    NoConnect = "connect_not_allowed", 405, Client, "http_request_denied", "CONNECT is not allowed here.";
    NoHost = "no_host", 404, Client, "destination_not_found", "No host has this name.";
    NoRoute = "no_route", 404, Client, "destination_not_found", "No route matches this path.";
    MethodNotAllowed = "method_not_allowed", 405, Client, "http_request_denied", "The method is not allowed here.";
    IpRefused = "ip_refused", 403, Client, "http_request_denied", "Access from this address is not allowed.";
    Unauthorized = "unauthorized", 401, Client, "http_request_denied", "Authentication is required.";
    ProxyUnauthorized = "proxy_unauthorized", 407, Client, "http_request_denied", "Proxy authentication is required.";
    CertificateRequired = "certificate_required", 403, Client, "http_request_denied", "A client certificate is required.";
    Forbidden = "forbidden", 403, Client, "http_request_denied", "Access is not allowed.";
    TargetRefused = "target_refused", 403, Client, "destination_ip_prohibited", "The proxy does not allow this target.";
    Misdirected = "misdirected", 421, Client, "http_request_error", "This connection does not serve the requested host.";
    TooEarly = "too_early", 425, Client, "http_request_denied", "The request must not be sent as early data: try again.";
    ClientGone = "client_gone", 499, Client, "http_request_error", "The client disconnected.";
    ClientTooSlow = "client_too_slow", 499, Client, "http_request_error", "The client took the response too slowly.";
    // our own
    Panic = "panic", 500, Gateway, "proxy_internal_error", "An internal error occurred.";
    Internal = "internal", 500, Gateway, "proxy_internal_error", "An internal error occurred.";
    Maintenance = "maintenance", 503, Gateway, "destination_unavailable", "The service is under maintenance: try again later.";
    TooManyInFlight = "too_many_in_flight", 503, Gateway, "http_request_denied", "Too many requests at once: try again soon.";
    Overloaded = "overloaded", 503, Gateway, "http_request_denied", "The server is overloaded: try again soon.";
    ListenerGone = "listener_gone", 503, Gateway, "destination_unavailable", "The server is shutting down.";
    TunnelDrained = "tunnel_drained", 503, Gateway, "destination_unavailable", "The server is shutting down.";
    TunnelIdle = "tunnel_idle", 504, Gateway, "connection_read_timeout", "The tunnel was idle for too long.";
    // the upstream's
    AuthUnavailable = "auth_unavailable", 503, Upstream, "destination_unavailable", "The authorization service is unavailable.";
    AuthFailed = "auth_failed", 502, Upstream, "destination_unavailable", "The authorization service failed.";
    AuthTimeout = "auth_timeout", 504, Upstream, "http_response_timeout", "The authorization service did not answer in time.";
    KeysUnavailable = "keys_unavailable", 503, Upstream, "destination_unavailable", "The keys that verify credentials are unavailable.";
    LimitUnavailable = "limit_unavailable", 503, Upstream, "destination_unavailable", "The shared rate limiter is unavailable.";
    NoEndpoint = "no_endpoint", 503, Upstream, "destination_unavailable", "The service is unavailable.";
    CircuitOpen = "circuit_open", 503, Upstream, "destination_unavailable", "The service is unavailable.";
    Unresolved = "upstream_unresolved", 503, Upstream, "dns_error", "The service is unavailable.";
    UpstreamOverloaded = "upstream_overloaded", 503, Upstream, "connection_limit_reached", "The service is overloaded: try again soon.";
    ConnectRefused = "connect_refused", 502, Upstream, "connection_refused", "The service could not be reached.";
    ConnectFailed = "connect_failed", 502, Upstream, "destination_unavailable", "The service could not be reached.";
    ConnectTimeout = "connect_timeout", 504, Upstream, "connection_timeout", "The service could not be reached in time.";
    TlsFailed = "upstream_tls_failed", 502, Upstream, "tls_protocol_error", "The service could not be reached securely.";
    TlsCertificate = "upstream_certificate_invalid", 502, Upstream, "tls_certificate_error", "The service could not be reached securely.";
    FirstByteTimeout = "first_byte_timeout", 504, Upstream, "http_response_timeout", "The service did not answer in time.";
    TotalTimeout = "total_timeout", 504, Upstream, "http_response_timeout", "The service did not answer in time.";
    UpstreamBodyTimeout = "upstream_body_timeout", 504, Upstream, "connection_read_timeout", "The service stopped answering.";
    UpstreamWriteTimeout = "upstream_write_timeout", 504, Upstream, "connection_write_timeout", "The service stopped reading.";
    UpstreamClosed = "upstream_closed", 502, Upstream, "connection_terminated", "The service closed the connection.";
    UpstreamProtocol = "upstream_protocol", 502, Upstream, "http_protocol_error", "The service's answer could not be understood.";
    UpgradeFailed = "upgrade_failed", 502, Upstream, "http_upgrade_failed", "The service does not support the requested protocol.";
}

/// The Retry-After of a 503, in seconds, where nothing says more: about as long as health checks take to find an endpoint.
pub const RETRY_AFTER: u64 = 5;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_fit_the_blame() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let by_client =
                reason.status().is_client_error() || matches!(reason.status().as_u16(), 501 | 505);
            assert_eq!(reason.blame() == Blame::Client, by_client, "{reason:?}");
        }
    }
}

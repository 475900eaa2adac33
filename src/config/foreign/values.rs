//! The table of words for values.

use super::{
    Meant::{self, Elsewhere, Key},
    Word,
};

const CLIENT_IP: Meant = Elsewhere("write { consistent_hash: client_ip }");
const NO_OLD_TLS: Meant = Elsewhere("TLS 1.0 and 1.1 are not supported (RFC 8996): write 1.2 or 1.3");

/// The schema's definition of some words, and the foreign ones for them.
pub(super) const VALUES: &[(&str, &[Word])] = &[
    (
        "ListenerProtocol",
        &[
            ("http", Key("h1")),
            ("http1", Key("h1")),
            ("http1_1", Key("h1")),
            ("http/1_1", Key("h1")),
            ("http2", Key("h2")),
            ("http/2", Key("h2")),
            ("http3", Key("h3")),
            ("http/3", Key("h3")),
            ("quic", Key("h3")),
            ("https", Elsewhere("tls of the listener turns TLS on; the protocols are h1, h2, h2c and h3")),
            ("grpc", Elsewhere("gRPC is HTTP/2: write h2, or h2c in cleartext")),
        ],
    ),
    (
        "UpstreamProtocol",
        &[
            ("http", Key("h1")),
            ("http1", Key("h1")),
            ("http1_1", Key("h1")),
            ("http/1_1", Key("h1")),
            ("http2", Key("h2")),
            ("http/2", Key("h2")),
            ("grpc", Elsewhere("gRPC is HTTP/2: write h2c, or h2 with tls")),
            ("https", Elsewhere("write tls: {} for TLS to the endpoints")),
        ],
    ),
    (
        "TlsVersion",
        &[
            ("tls1_2", Key("1.2")),
            ("tls1_3", Key("1.3")),
            ("tlsv1_2", Key("1.2")),
            ("tlsv1_3", Key("1.3")),
            ("tls12", Key("1.2")),
            ("tls13", Key("1.3")),
            ("version_tls12", Key("1.2")),
            ("version_tls13", Key("1.3")),
            ("1_0", NO_OLD_TLS),
            ("1_1", NO_OLD_TLS),
            ("tlsv1", NO_OLD_TLS),
            ("tlsv1_0", NO_OLD_TLS),
            ("tlsv1_1", NO_OLD_TLS),
        ],
    ),
    (
        "ClientAuthMode",
        &[
            ("on", Key("require")),
            ("true", Key("require")),
            ("required", Key("require")),
            ("require_and_verify", Key("require")),
            ("require_and_verify_client_cert", Key("require")),
            ("verify_if_given", Key("optional")),
            ("verify_client_cert_if_given", Key("optional")),
            ("request", Key("optional")),
        ],
    ),
    (
        "UpstreamVerify",
        &[
            ("false", Key("none")),
            ("off", Key("none")),
            ("no", Key("none")),
            ("true", Key("full")),
            ("on", Key("full")),
            ("required", Key("full")),
        ],
    ),
    (
        "BalanceBy",
        &[
            ("roundrobin", Key("round_robin")),
            ("rr", Key("round_robin")),
            ("wrr", Key("round_robin")),
            ("weighted", Key("round_robin")),
            ("static_rr", Key("round_robin")),
            ("least_conn", Key("least_requests")),
            ("leastconn", Key("least_requests")),
            ("least_connections", Key("least_requests")),
            ("least_request", Key("least_requests")),
            ("random", Key("random_two")),
            ("random_choose", Key("random_two")),
            ("p2c", Key("random_two")),
            ("peak_ewma", Key("ewma")),
            ("leasttime", Key("ewma")),
            ("least_time", Key("ewma")),
            ("ip_hash", CLIENT_IP),
            ("source", CLIENT_IP),
            ("ring_hash", CLIENT_IP),
            ("maglev", CLIENT_IP),
            ("uri", Elsewhere("write { consistent_hash: path }")),
            ("uri_hash", Elsewhere("write { consistent_hash: path }")),
            ("hdr", Elsewhere("write { consistent_hash: \"header:X-User\" }")),
            ("cookie", Elsewhere("write { consistent_hash: \"cookie:NAME\" }")),
        ],
    ),
    (
        "LogLevel",
        &[
            ("warning", Key("warn")),
            ("notice", Key("info")),
            ("verbose", Key("debug")),
            ("err", Key("error")),
            ("crit", Key("error")),
            ("critical", Key("error")),
            ("alert", Key("error")),
            ("fatal", Key("error")),
        ],
    ),
    ("LogFormat", &[("console", Key("text")), ("common", Key("text")), ("plain", Key("text"))]),
    (
        "Mode",
        &[
            ("dry_run", Key("observe")),
            ("log", Key("observe")),
            ("monitor", Key("observe")),
            ("report", Key("observe")),
            ("block", Key("enforce")),
        ],
    ),
    ("ForwardedHeader", &[("xff", Key("X-Forwarded-For"))]),
    ("UpstreamProxyProtocol", &[("1", Key("v1")), ("2", Key("v2")), ("true", Key("v2")), ("on", Key("v2"))]),
    ("ProxyProtocolMode", &[("required", Key("require")), ("true", Key("require")), ("on", Key("require"))]),
];

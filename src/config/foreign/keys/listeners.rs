//! Words for keys of listeners and TLS.

use super::super::{
    Meant::{Elsewhere, Key},
    Word,
};

const CERTIFICATES: &str = "write certificates: { NAME: { cert: FILE, key: FILE } } at the top level, and tls: { certificates: [NAME] } here";

pub(super) const WORDS: &[(&str, &[Word])] = &[
    (
        "Listener",
        &[
            ("listen", Key("bind")),
            ("port", Key("bind")),
            ("address", Key("bind")),
            ("addr", Key("bind")),
            ("http", Key("protocols")),
            ("http_version", Key("protocols")),
            ("ssl", Key("tls")),
            ("http3", Elsewhere("write protocols: [h1, h2, h3]")),
            (
                "server_name",
                Elsewhere("names of servers stand in hosts: hosts: { NAME: { names: [www.example.com] } }"),
            ),
            (
                "routes",
                Elsewhere("routes stand in a host: hosts: { NAME: { names: [...], routes: { ... } } }"),
            ),
            ("max_connections", Elsewhere("write limits: { connections: 20000 }")),
            ("maxconn", Elsewhere("write limits: { connections: 20000 }")),
            ("timeout", Key("timeouts")),
            ("forwarded_headers", Key("trusted_proxies")),
            ("real_ip", Key("trusted_proxies")),
            ("set_real_ip_from", Key("trusted_proxies")),
            ("real_ip_header", Key("trusted_proxies")),
            ("client_ip_headers", Key("trusted_proxies")),
            ("trust_proxy", Key("trusted_proxies")),
            ("use_remote_address", Key("trusted_proxies")),
            ("xff_num_trusted_hops", Key("trusted_proxies")),
            ("underscores_in_headers", Key("unusual_header_names")),
            ("headers_with_underscores_action", Key("unusual_header_names")),
            ("accept_proxy", Key("proxy_protocol")),
            (
                "send_proxy",
                Elsewhere("proxy_protocol of an upstream sends the header, proxy_protocol here reads it"),
            ),
            ("client_auth", Elsewhere("write it in the listener's tls: tls: { client_auth: { ca: FILE } }")),
        ],
    ),
    (
        "TrustedProxies",
        &[
            ("trusted_ips", Key("from")),
            ("trusted_proxies", Key("from")),
            ("ranges", Key("from")),
            ("source", Key("from")),
            ("set_real_ip_from", Key("from")),
            ("real_ip_header", Key("header")),
            ("client_ip_headers", Key("header")),
            ("insecure", Elsewhere("every proxy to believe is listed in from")),
            (
                "recursive",
                Elsewhere("the first address from the right that is not in from is always the client"),
            ),
            (
                "real_ip_recursive",
                Elsewhere("the first address from the right that is not in from is always the client"),
            ),
            ("depth", Elsewhere("list the addresses of all proxies in from, instead of their number")),
            (
                "num_trusted_hops",
                Elsewhere("list the addresses of all proxies in from, instead of their number"),
            ),
            (
                "xff_num_trusted_hops",
                Elsewhere("list the addresses of all proxies in from, instead of their number"),
            ),
        ],
    ),
    (
        "ProxyProtocol",
        &[
            ("trusted_ips", Key("from")),
            ("allow", Key("from")),
            ("insecure", Elsewhere("every balancer to believe is listed in from")),
        ],
    ),
    (
        "ListenerTls",
        &[
            ("certificate", Key("certificates")),
            ("cert", Elsewhere(CERTIFICATES)),
            ("certs", Elsewhere(CERTIFICATES)),
            ("cert_file", Elsewhere(CERTIFICATES)),
            ("key", Elsewhere(CERTIFICATES)),
            ("key_file", Elsewhere(CERTIFICATES)),
            ("ssl_certificate", Elsewhere(CERTIFICATES)),
            ("protocols", Key("min_version")),
            ("ssl_protocols", Key("min_version")),
            ("min_tls_version", Key("min_version")),
            (
                "ciphers",
                Elsewhere(
                    "the cipher suites are those of TLS 1.2 with forward secrecy and of TLS 1.3, and cannot be chosen",
                ),
            ),
            (
                "cipher_suites",
                Elsewhere(
                    "the cipher suites are those of TLS 1.2 with forward secrecy and of TLS 1.3, and cannot be chosen",
                ),
            ),
            (
                "ssl_ciphers",
                Elsewhere(
                    "the cipher suites are those of TLS 1.2 with forward secrecy and of TLS 1.3, and cannot be chosen",
                ),
            ),
            ("client_ca", Key("client_auth")),
            ("mtls", Key("client_auth")),
        ],
    ),
    (
        "ListenerTimeouts",
        &[
            ("read", Key("body_idle")),
            ("read_header", Key("header")),
            ("client", Key("body_idle")),
            ("write", Key("write_idle")),
            ("keepalive", Key("idle")),
            ("keep_alive", Key("idle")),
            ("keepalive_timeout", Key("idle")),
            ("http_request", Key("header")),
            ("http_keep_alive", Key("idle")),
        ],
    ),
    (
        "ClientAuth",
        &[
            ("ca_file", Key("ca")),
            ("ca_files", Key("ca")),
            ("trusted_ca_certs", Key("ca")),
            ("client_auth_type", Key("mode")),
            ("verify", Key("mode")),
            ("verify_client", Key("mode")),
            ("ssl_verify_client", Key("mode")),
        ],
    ),
    (
        "Certificate",
        &[
            ("cert_file", Key("cert")),
            ("certificate", Key("cert")),
            ("fullchain", Key("cert")),
            ("chain", Key("cert")),
            ("ssl_certificate", Key("cert")),
            ("file", Key("cert")),
            ("key_file", Key("key")),
            ("private_key", Key("key")),
            ("ssl_certificate_key", Key("key")),
            ("stapling", Key("ocsp")),
            ("internal", Key("self_signed")),
        ],
    ),
];

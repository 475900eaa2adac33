//! Words from the configurations of other products, and the key that means the same here.
//!
//! The nearest key by edit distance may mean something else. Where keys decide who is trusted, a wrong suggestion opens a
//! hole: `auth_response_headers` of Traefik is `copy_headers` here and not `response_headers`.

/// What to write instead of a foreign word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// A key of the same map.
    Key(&'static str),
    /// Another place or nothing to configure, as help for the reader.
    Elsewhere(&'static str),
}

use Meant::{Elsewhere, Key};

/// A foreign word in lower case with underscores, and what it means.
pub type Word = (&'static str, Meant);

const TRUST: Meant =
    Elsewhere("trusted_proxies of the listener lists the proxies whose X-Forwarded-* fields are believed");
const CREDENTIAL: Meant = Elsewhere("the key is always removed before the request goes upstream");
const SEVERAL: Meant = Elsewhere(
    "request_headers edits the request that goes upstream, response_headers the response to the client",
);

/// The schema's definition and the foreign words for its map.
const FOREIGN: &[(&str, &[Word])] = &[
    (
        "ForwardAuth",
        &[
            // Traefik
            ("address", Key("url")),
            ("auth_request_headers", Key("request_headers")),
            ("auth_response_headers", Key("copy_headers")),
            ("auth_response_headers_regex", Key("copy_headers")),
            ("add_auth_cookies_to_response", Key("response_headers")),
            ("trust_forward_header", TRUST),
            (
                "header_field",
                Elsewhere("copy_headers lists the fields that tell the upstream who the user is"),
            ),
            // nginx, Caddy, HAProxy
            ("auth_request", Key("url")),
            ("auth_request_set", Key("copy_headers")),
            ("uri", Key("url")),
            // Envoy
            ("http_service", Key("upstream")),
            ("cluster", Key("upstream")),
            ("path_prefix", Key("path")),
            ("allowed_headers", Key("request_headers")),
            ("authorization_request", Key("request_headers")),
            ("authorization_response", Key("copy_headers")),
            ("allowed_upstream_headers", Key("copy_headers")),
            ("allowed_upstream_headers_to_append", Key("copy_headers")),
            ("allowed_client_headers", Key("refusal_headers")),
            ("allowed_client_headers_on_success", Key("response_headers")),
            ("failure_mode_allow", Key("fail_open")),
            // words that suggest themselves
            ("upstream_headers", Key("copy_headers")),
            ("identity_headers", Key("copy_headers")),
            ("user_headers", Key("copy_headers")),
            (
                "forward_headers",
                Elsewhere("request_headers is what the service sees, copy_headers what the upstream gets"),
            ),
            (
                "headers",
                Elsewhere("request_headers is what the service sees, copy_headers what the upstream gets"),
            ),
            (
                "client_headers",
                Elsewhere(
                    "response_headers is what the client gets with a response, refusal_headers with a refusal",
                ),
            ),
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
        "Listener",
        &[
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
        "Ip",
        &[
            ("source_range", Key("allow")),
            ("ip_allow_list", Key("allow")),
            ("ip_white_list", Key("allow")),
            ("allowlist", Key("allow")),
            ("whitelist", Key("allow")),
            ("permit", Key("allow")),
            ("denied", Key("deny")),
            ("block", Key("deny")),
            ("blocklist", Key("deny")),
            ("blacklist", Key("deny")),
            ("denylist", Key("deny")),
            ("ip_strategy", TRUST),
            ("depth", TRUST),
            ("excluded_ips", TRUST),
        ],
    ),
    (
        "BasicAuth",
        &[
            ("users_file", Key("file")),
            ("user_file", Key("file")),
            ("auth_basic", Key("realm")),
            ("auth_basic_user_file", Key("file")),
            ("htpasswd", Key("file")),
            ("header_field", Key("forward_user")),
            ("forward_username_header", Key("forward_user")),
            ("remove_header", Key("strip")),
            ("hide_credentials", Key("strip")),
        ],
    ),
    (
        "ApiKey",
        &[
            ("key_names", Key("from")),
            ("key_sources", Key("from")),
            ("header", Key("from")),
            ("headers", Key("from")),
            ("credentials", Key("keys")),
            ("header_field", Key("forward_name")),
            ("forwarding", Key("forward_name")),
            ("hide_credentials", CREDENTIAL),
            ("strip", CREDENTIAL),
            ("remove_header", CREDENTIAL),
        ],
    ),
    (
        "Jwt",
        &[
            ("jwks_uri", Key("jwks")),
            ("jwks_url", Key("jwks")),
            ("remote_jwks", Key("jwks")),
            ("local_jwks", Key("jwks")),
            ("public_key_file", Key("public_key")),
            ("signing_secret", Key("secret")),
            ("clock_skew", Key("leeway")),
            ("clock_skew_seconds", Key("leeway")),
            ("claim_to_headers", Key("claims_to_headers")),
            ("forward_headers", Key("claims_to_headers")),
            ("required_claims", Key("require")),
            ("from_headers", Key("from")),
            ("from_params", Key("from")),
            ("forward", Elsewhere("the token goes on to the upstream unless strip is true")),
            ("forward_authorization", Elsewhere("the token goes on to the upstream unless strip is true")),
            ("allow_missing", Elsewhere("public lists the paths that need no token")),
        ],
    ),
    (
        "Mtls",
        &[
            ("ca", Elsewhere("client_auth of the listener's tls names the authorities")),
            ("ca_files", Elsewhere("client_auth of the listener's tls names the authorities")),
            ("pass_tls_client_cert", Key("headers")),
            ("san", Key("sans")),
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
        "UpstreamTls",
        &[
            (
                "insecure_skip_verify",
                Elsewhere("verify: none accepts every certificate, ca: FILE trusts a private authority"),
            ),
            (
                "tls_insecure_skip_verify",
                Elsewhere("verify: none accepts every certificate, ca: FILE trusts a private authority"),
            ),
            ("proxy_ssl_verify", Key("verify")),
            ("root_ca", Key("ca")),
            ("root_cas", Key("ca")),
            ("trusted_certificate", Key("ca")),
            ("certificate", Key("client_certificate")),
            ("sni", Key("server_name")),
        ],
    ),
    (
        "Cors",
        &[
            ("allow_origins", Key("origins")),
            ("allowed_origins", Key("origins")),
            ("access_control_allow_origin_list", Key("origins")),
            ("allow_methods", Key("methods")),
            ("allow_headers", Key("headers")),
            ("expose_headers", Key("expose")),
            ("allow_credentials", Key("credentials")),
        ],
    ),
    (
        "Middleware",
        &[
            ("headers", SEVERAL),
            ("add_header", SEVERAL),
            ("proxy_set_header", Key("request_headers")),
            ("ip_allow_list", Key("ip")),
            ("ip_white_list", Key("ip")),
            ("ip_filter", Key("ip")),
            ("auth_request", Key("forward_auth")),
            ("ext_authz", Key("forward_auth")),
            ("basicauth", Key("basic_auth")),
            ("key_auth", Key("api_key")),
            ("jwt_auth", Key("jwt")),
            ("jwt_authn", Key("jwt")),
            ("pass_tls_client_cert", Key("mtls")),
            ("in_flight_req", Key("concurrency")),
            ("real_ip", TRUST),
            ("forwarded_headers", TRUST),
        ],
    ),
];

/// The foreign words for the map of a definition.
pub fn words(definition: &str) -> &'static [Word] {
    FOREIGN.iter().find(|(name, _)| *name == definition).map_or(&[], |(_, words)| words)
}

/// What a key of these words means, in whatever style it is written.
pub fn meant(words: &[Word], key: &str) -> Option<Meant> {
    if words.is_empty() {
        return None;
    }
    let snake = snake_case(key);
    words.iter().find(|(word, _)| *word == snake).map(|(_, meant)| *meant)
}

/// `authResponseHeaders`, `Auth-Response-Headers` and `trustedIPs` in lower case with underscores.
fn snake_case(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 4);
    let letters: Vec<char> = word.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && (letters[at - 1].is_lowercase() || letters[at - 1].is_ascii_digit());
        match letter {
            '-' | '.' | ' ' => snake.push('_'),
            upper if upper.is_uppercase() => {
                if after_lower {
                    snake.push('_');
                }
                snake.extend(upper.to_lowercase());
            }
            other => snake.push(*other),
        }
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_recognised_in_every_style() {
        for word in ["auth_response_headers", "authResponseHeaders", "auth-response-headers"] {
            assert_eq!(meant(words("ForwardAuth"), word), Some(Key("copy_headers")), "{word}");
        }
        assert_eq!(meant(words("TrustedProxies"), "trustedIPs"), Some(Key("from")));
        assert_eq!(meant(words("Ip"), "sourceRange"), Some(Key("allow")));
        assert_eq!(meant(words("Nothing"), "address"), None);
    }

    #[test]
    fn every_foreign_word_leads_to_a_key_that_exists() {
        let schema = crate::config::schema::strict();
        for (definition, words) in FOREIGN {
            let shape = &schema["$defs"][definition];
            assert!(shape.is_object(), "no definition is called {definition}");
            let choices = shape["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
            let is_key = |key: &str| {
                !shape["properties"][key].is_null()
                    || choices.iter().any(|choice| !choice["properties"][key].is_null())
            };
            for (word, meant) in *words {
                assert!(!is_key(word), "{word} is a key of {definition} itself");
                if let Key(key) = meant {
                    assert!(is_key(key), "{definition} has no key {key}, which {word} leads to");
                }
                assert_eq!(*word, snake_case(word), "written in lower case with underscores");
            }
        }
    }
}

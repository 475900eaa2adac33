//! A listener's TLS: its certificates, those of its hosts, and what it asks of clients.

use std::sync::Arc;

use rustls::ServerConfig;

use super::{certificates::Certificates, context::Context, hosts};
use crate::{
    config::listener::{self as config, ClientAuthMode, TlsVersion},
    diagnostic::{Code, Diagnostic},
    snapshot::settings::Protocols,
    tls::{
        Certificate, ClientAuth, Handshake, Resolver, SINCE_TLS12, SINCE_TLS13, ServerError, certificates,
        server_config,
    },
    value::Spanned,
};

pub(super) fn compile<'h, 'a: 'h>(
    cx: &Context<'_>,
    known: &Certificates,
    written: &Spanned<config::Tls>,
    protocols: Protocols,
    hosts: impl Iterator<Item = &'h hosts::Draft<'a>> + Clone,
) -> Option<Arc<ServerConfig>> {
    if written.certificates.is_empty() {
        let message = "TLS needs at least one certificate";
        let help = "certificates: { local: { self_signed: [localhost] } } defines one made at start";
        cx.report.push(Diagnostic::error(Code::MissingKey, written.span, message).help(help));
    }
    let own: Vec<_> = written.certificates.iter().filter_map(|name| known.find(cx, name)).collect();
    let client_auth = match &written.client_auth {
        None => None,
        Some(written) => Some(client_auth(cx, written)?),
    };
    let handshake = Handshake {
        resolver: Resolver::new(&own, host_names(hosts)),
        versions: match written.min_version {
            Some(TlsVersion::V13) => SINCE_TLS13,
            Some(TlsVersion::V12) | None => SINCE_TLS12,
        },
        alpn: protocols.alpn(),
        client_auth,
    };
    match server_config(handshake) {
        Ok(config) => Some(config),
        Err(error) => {
            let span = match (&error, &written.client_auth) {
                (ServerError::Authority(_), Some(client_auth)) => client_auth.ca.span,
                _ => written.span,
            };
            cx.report.push(Diagnostic::error(Code::BadCertificate, span, error.to_string()));
            None
        }
    }
}

/// The names of the hosts with their own certificates; nothing where no host has one.
fn host_names<'h, 'a: 'h>(
    hosts: impl Iterator<Item = &'h hosts::Draft<'a>> + Clone,
) -> Vec<(String, Option<Arc<Certificate>>)> {
    if !hosts.clone().any(|host| host.certificate.is_some()) {
        return Vec::new();
    }
    hosts
        .flat_map(|host| host.patterns.iter().map(|name| (name.to_string(), host.certificate.clone())))
        .collect()
}

fn client_auth(cx: &Context<'_>, written: &config::ClientAuth) -> Option<ClientAuth> {
    let required = written.mode == ClientAuthMode::Require;
    match certificates(&cx.read(&written.ca)?) {
        Ok(authorities) => Some(ClientAuth { authorities, required }),
        Err(error) => {
            let message = format!("{} holds no authorities to trust", written.ca.0.display());
            cx.report.error(Code::BadCertificate, written.ca.span, message, error.to_string());
            None
        }
    }
}

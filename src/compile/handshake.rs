//! A listener's TLS: its certificates, those of its hosts, and what it asks of clients.

use std::sync::Arc;

use super::{certificates::Certificates, context::Context, hosts};
use crate::{
    config::listener::{self as config, ClientAuthMode, TlsVersion},
    diagnostic::{Code, Diagnostic},
    snapshot::settings,
    tls::{ClientAuth, Handshake, Resolver, SINCE_TLS12, SINCE_TLS13, Server, pem},
    value::Spanned,
};

pub(super) fn compile<'h, 'a: 'h>(
    cx: &Context<'_>,
    known: &Certificates,
    written: &Spanned<config::Tls>,
    listener: &config::Listener,
    hosts: impl Iterator<Item = &'h hosts::Draft<'a>> + Clone,
) -> Option<Arc<Server>> {
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
    let protocols = settings::protocols(listener);
    let session_tickets = written.session_tickets.unwrap_or(true);
    let early_data = written.early_data.is_some_and(|early_data| early_data.value);
    if let Some(early_data) = written.early_data.filter(|early_data| early_data.value && !session_tickets) {
        let message = "nothing comes early where no session is resumed";
        let help = "session_tickets: true lets clients resume theirs";
        cx.report.push(Diagnostic::error(Code::NoEffect, early_data.span, message).help(help));
    }
    let handshake = Handshake {
        resolver: Resolver::new(&own, by_name(hosts.clone(), |host| host.certificate.clone())),
        versions: match written.min_version {
            Some(TlsVersion::V13) => SINCE_TLS13,
            Some(TlsVersion::V12) | None => SINCE_TLS12,
        },
        alpn: protocols.alpn(),
        session_tickets,
        early_data,
        quic: protocols.h3.then(|| settings::remembered(listener)),
        client_auth,
        hosts: by_name(hosts, |host| host.client_auth.clone()),
    };
    match Server::new(handshake, &cx.registries.tickets) {
        Ok(server) => Some(Arc::new(server)),
        Err(error) => {
            cx.report.push(Diagnostic::error(Code::BadCertificate, written.span, error.to_string()));
            None
        }
    }
}

/// The names of the hosts with what each has of its own; nothing where no host has any.
fn by_name<'h, 'a: 'h, T: Clone>(
    hosts: impl Iterator<Item = &'h hosts::Draft<'a>> + Clone,
    own: impl Fn(&hosts::Draft<'a>) -> Option<T>,
) -> Vec<(String, Option<T>)> {
    if !hosts.clone().any(|host| own(host).is_some()) {
        return Vec::new();
    }
    hosts.flat_map(|host| host.patterns.iter().map(|name| (name.to_string(), own(host)))).collect()
}

/// What is asked of clients; authorities that cannot be used are reported.
pub(super) fn client_auth(cx: &Context<'_>, written: &config::ClientAuth) -> Option<Arc<ClientAuth>> {
    let required = written.mode == ClientAuthMode::Require;
    let authorities = match pem::certificates(&cx.read(&written.ca)?) {
        Ok(authorities) => authorities,
        Err(error) => {
            let message = format!("{} holds no authorities to trust", written.ca.0.display());
            let problem = Diagnostic::error(Code::BadCertificate, written.ca.span, message);
            cx.report.push(problem.reason(error.to_string()).maybe_help(error.help(&cx.path(&written.ca))));
            return None;
        }
    };
    match ClientAuth::new(authorities, required) {
        Ok(client_auth) => Some(Arc::new(client_auth)),
        Err(error) => {
            cx.report.push(Diagnostic::error(Code::BadCertificate, written.ca.span, error.to_string()));
            None
        }
    }
}

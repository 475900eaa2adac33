//! From what a person wrote to [`Settings`], with every problem reported where it stands.

mod endpoints;
mod limits;
mod resilience;
mod sticky;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time};

use http::uri::PathAndQuery;
use rustls::pki_types;

use super::{
    config::{self, BalanceBy, BalanceByKey, Config, Protocol, Verify},
    discovery::ReadEndpoints,
    reach::Denied,
    retry,
    settings::{Balance, Health, Host, Probe, Settings, Timeouts},
    tls::{Authorities, ClientCertificate, ServerName, Tls},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::{Duration, FilePath, Name, Spanned, TextOr},
};

/// What compiling an upstream needs of the rest of the configuration.
pub struct Context<'a> {
    /// A file's bytes; it reports itself what cannot be read.
    pub file: &'a mut ReadFile<'a>,
    /// A certificate by its name; it reports itself what is not defined.
    pub certificate: &'a dyn Fn(&Spanned<Name>) -> Option<Arc<ClientCertificate>>,
    /// What `defaults` say, for an upstream that does not.
    pub first_byte: time::Duration,
    pub body_idle: time::Duration,
    /// The zone that this process is in.
    pub zone: Option<&'a Name>,
    /// Where it may not lead to.
    pub denied: &'a Denied,
    /// A file that lists endpoints.
    pub endpoints_file: &'a dyn Fn(&Spanned<FilePath>) -> EndpointsFile,
    /// The DNS servers that names are asked of; none: the system's.
    pub resolvers: Arc<[SocketAddr]>,
    pub out: &'a mut Diagnostics,
}

/// A file that lists endpoints: where it is, where it must lie within, and how it is read.
pub struct EndpointsFile {
    pub path: PathBuf,
    pub roots: Option<Arc<[PathBuf]>>,
    pub read: ReadEndpoints,
}

/// Gives the bytes of a file as the configuration names it.
pub type ReadFile<'a> = dyn FnMut(&Spanned<FilePath>) -> Option<Arc<[u8]>> + 'a;

const CONNECT: time::Duration = time::Duration::from_secs(5);
const CHECK_INTERVAL: time::Duration = time::Duration::from_secs(5);
const CHECK_TIMEOUT: time::Duration = time::Duration::from_secs(1);
const LONGEST: time::Duration = time::Duration::from_secs(365 * 86_400);

/// Compiles an upstream. `None` where something in it is wrong: then an error was reported.
pub fn settings(name: &Spanned<Name>, config: &Config, cx: &mut Context<'_>) -> Option<Settings> {
    // Everything is looked at before anything is given up, so that all problems are reported at once.
    let endpoints = endpoints::endpoints(&config.endpoints, cx);
    let protocol = protocol(name, config, cx.out);
    let tls = config.tls.as_ref().map(|tls| self::tls(tls, cx));
    let health = config.health.as_ref().map(|health| self::health(health, config, cx.out));
    let (first_byte, body_idle) = (cx.first_byte, cx.body_idle);
    let connect = duration(config.timeouts.connect, CONNECT, cx.out);
    let first_byte = duration(config.timeouts.first_byte, first_byte, cx.out);
    let body_idle = duration(config.timeouts.body_idle, body_idle, cx.out);
    let pool = limits::pool(config, cx.out);
    let in_flight = limits::in_flight(&config.limits, cx.out);
    let response_limits = limits::response_limits(&config.limits, cx.out);
    let resilience = resilience::resilience(config, cx.out);
    let retry = retry::policy(&config.retry, cx.out);
    let sticky = config.sticky.as_ref().map(|sticky| sticky::sticky(sticky, cx.out));
    let weights = sticky::check_weights(config, cx.out);
    let endpoints = endpoints?;
    weights?;
    if let (Some(hedge), [_], []) = (&config.retry.hedge, &*endpoints.listed, &*endpoints.sources) {
        let message = "hedge has no effect: the upstream has only one endpoint";
        let problem = Diagnostic::error(Code::NoEffect, hedge.span, message);
        return refuse(cx.out, problem.help("add an endpoint, or remove hedge"));
    }
    Some(Settings {
        name: name.value.clone(),
        endpoints: endpoints.listed,
        sources: endpoints.sources,
        resolvers: cx.resolvers.clone(),
        denied: cx.denied.clone(),
        balance: config.balance.as_ref().map_or(Balance::RoundRobin, |balance| self::balance(balance)),
        protocol: protocol?,
        tls: given(tls)?,
        proxy_protocol: config.proxy_protocol,
        health: given(health)?,
        timeouts: Timeouts { connect: connect?, first_byte: first_byte?, body_idle: body_idle? },
        pool: pool?,
        in_flight: in_flight?,
        response_limits: response_limits?,
        zone: cx.zone.cloned(),
        resilience: resilience?,
        retry: retry?,
        sticky: given(sticky)?,
    })
}

fn balance(written: &config::Balance) -> Balance {
    match written {
        TextOr::Text(BalanceBy::RoundRobin) => Balance::RoundRobin,
        TextOr::Text(BalanceBy::RandomTwo) => Balance::RandomTwo,
        TextOr::Text(BalanceBy::LeastRequests) => Balance::LeastRequests,
        TextOr::Text(BalanceBy::Ewma) => Balance::Ewma,
        TextOr::Map(BalanceByKey::Hash(key)) => Balance::Hash(key.value.clone()),
        TextOr::Map(BalanceByKey::ConsistentHash(written)) => match &written.value {
            TextOr::Text(key) => Balance::ConsistentHash(key.clone()),
            TextOr::Map(map) => match map.bound {
                None => Balance::ConsistentHash(map.key.value.clone()),
                Some(bound) => Balance::BoundedHash(map.key.value.clone(), bound.0),
            },
        },
    }
}

fn protocol(name: &Spanned<Name>, config: &Config, out: &mut Diagnostics) -> Option<Protocol> {
    let Some(protocol) = config.protocol else { return Some(Protocol::default()) };
    match (protocol.value, &config.tls) {
        (Protocol::H2c, Some(tls)) => refuse(
            out,
            Diagnostic::error(Code::BadValue, protocol.span, "h2c is HTTP/2 in cleartext, and tls encrypts")
                .label(tls.span, "encryption is asked for here")
                .help("protocol: h2 is HTTP/2 over TLS"),
        ),
        (Protocol::H2 | Protocol::Auto, None) => refuse(
            out,
            Diagnostic::error(
                Code::MissingKey,
                protocol.span,
                "HTTP/2 is agreed upon in the TLS handshake, but there is no tls",
            )
            .label(name.span, "in this upstream")
            .help("protocol: h2c is HTTP/2 in cleartext; tls: {} encrypts"),
        ),
        (protocol, _) => Some(protocol),
    }
}

fn tls(written: &config::Tls, cx: &mut Context<'_>) -> Option<Tls> {
    let verify = written.verify.map_or_else(Verify::default, |verify| verify.value);
    let server_name = written.server_name.as_ref().map(|name| server_name(name, cx.out));
    let authorities = written.ca.as_ref().map(|ca| authorities(ca, verify, cx));
    let client_certificate = written.client_certificate.as_ref().map(|name| (cx.certificate)(name));
    if let Some(Spanned { value: Verify::None, span }) = written.verify {
        let message =
            "the endpoints' certificates are not verified: whoever sits in between can read and change all";
        cx.out.push(
            Diagnostic::warning(Code::InsecureUpstream, span, message)
                .help("name the authority that issued them: ca: certs/internal-ca.pem"),
        );
    }
    Some(Tls {
        server_name: given(server_name)?.map_or(ServerName::Request, ServerName::Fixed),
        authorities: given(authorities)?,
        client_certificate: given(client_certificate)?,
        verify,
    })
}

fn server_name(written: &Spanned<String>, out: &mut Diagnostics) -> Option<String> {
    match pki_types::ServerName::try_from(written.as_str()) {
        Ok(_) => Some(written.value.clone()),
        _ => {
            let message = format!(
                "{:?} is no server name: a host name or an IP address, without a port",
                written.value
            );
            refuse(out, Diagnostic::error(Code::BadValue, written.span, message))
        }
    }
}

fn authorities(written: &Spanned<FilePath>, verify: Verify, cx: &mut Context<'_>) -> Option<Authorities> {
    let pem = (cx.file)(written)?;
    if verify == Verify::None {
        let message = "ca has no effect beside verify: none";
        return refuse(cx.out, Diagnostic::error(Code::NoEffect, written.span, message));
    }
    Authorities::of_file(written, &pem).map_err(|problem| cx.out.push(problem)).ok()
}

fn health(written: &Spanned<config::Health>, config: &Config, out: &mut Diagnostics) -> Option<Health> {
    let probe = match (&written.http, &written.tcp, &written.grpc) {
        (Some(http), None, None) => http_probe(http, out),
        (None, Some(config::TcpCheck {}), None) => Some(Probe::Tcp),
        (None, None, Some(grpc)) => grpc_probe(grpc, config.protocol, out),
        (None, None, None) => {
            let message = "health does not say how it is checked";
            let help =
                "http: { path: /health } asks for a page, grpc: {} asks a gRPC server, tcp: {} connects";
            refuse(out, Diagnostic::error(Code::MissingKey, written.span, message).help(help))
        }
        _ => {
            let message = "health is checked by one of http, grpc and tcp (got several)";
            let help = "keep http or grpc: a connection alone says less";
            refuse(out, Diagnostic::error(Code::BadValue, written.span, message).help(help))
        }
    };
    let interval = duration(written.interval, CHECK_INTERVAL, out);
    let timeout = duration(written.timeout, CHECK_TIMEOUT, out);
    Some(Health {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        unhealthy_after: written.unhealthy_after.map_or(3, std::num::NonZeroU16::get),
        healthy_after: written.healthy_after.map_or(2, std::num::NonZeroU16::get),
    })
}

fn http_probe(written: &config::HttpCheck, out: &mut Diagnostics) -> Option<Probe> {
    let path = match written.path.parse::<PathAndQuery>() {
        Ok(path) if written.path.starts_with('/') && path.as_str() == written.path.as_str() => Some(path),
        _ => {
            let message = format!(
                "{:?} is no path to ask for: it starts with \"/\" and is percent-encoded",
                written.path.value
            );
            refuse(out, Diagnostic::error(Code::BadValue, written.path.span, message))
        }
    };
    let host = written.host.as_ref().map(|host| checked_host(host, out));
    let status = written.status.as_ref().map_or(200..=299, |status| status.0.clone());
    Some(Probe::Http { path: path?, status, host: given(host)? })
}

fn grpc_probe(
    written: &Spanned<config::GrpcCheck>,
    protocol: Option<Spanned<Protocol>>,
    out: &mut Diagnostics,
) -> Option<Probe> {
    let host = written.host.as_ref().map(|host| checked_host(host, out));
    if protocol.is_none_or(|protocol| protocol.value == Protocol::H1) {
        let message = "gRPC needs HTTP/2, but the upstream's protocol is h1";
        let problem = Diagnostic::error(Code::BadValue, written.span, message)
            .help("write protocol: h2c (cleartext), or protocol: h2 with tls");
        return refuse(
            out,
            match protocol {
                Some(protocol) => problem.label(protocol.span, "the protocol is written here"),
                None => problem,
            },
        );
    }
    Some(Probe::Grpc { service: written.service.clone().unwrap_or_default(), host: given(host)? })
}

fn checked_host(written: &Spanned<String>, out: &mut Diagnostics) -> Option<Host> {
    let host = Host::parse(written);
    if host.is_none() {
        let message = format!("{:?} is no host: a name or address, with or without a port", written.value);
        out.push(Diagnostic::error(Code::BadValue, written.span, message));
    }
    host
}

/// A time that something must end in: none at all and what is as good as for ever are refused.
pub(super) fn duration(
    written: Option<Spanned<Duration>>,
    default: time::Duration,
    out: &mut Diagnostics,
) -> Option<time::Duration> {
    let Some(written) = written else { return Some(default) };
    match written.get() {
        time::Duration::ZERO => {
            let message = "a time of zero would end everything before it begins";
            refuse(out, Diagnostic::error(Code::BadValue, written.span, message))
        }
        long if long > LONGEST => {
            let message = "a time of more than a year is as good as none";
            refuse(out, Diagnostic::error(Code::BadValue, written.span, message).help("the longest is 365d"))
        }
        duration => Some(duration),
    }
}

pub(super) fn refuse<T>(out: &mut Diagnostics, problem: Diagnostic) -> Option<T> {
    out.push(problem);
    None
}

/// A part that may be left out, but must be right where it stands.
fn given<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        Some(None) => None,
        Some(Some(part)) => Some(Some(part)),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests;

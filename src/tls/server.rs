//! A listener's side of the handshake.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion, crypto,
    pki_types::CertificateDer,
    server::{
        NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use super::{
    provider::provider,
    resolver::{Names, Resolver},
};
use crate::http::connection::ClientRules;

/// The versions from TLS 1.2 on.
pub const SINCE_TLS12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// The versions from TLS 1.3 on.
pub const SINCE_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// What a listener's handshakes are made of.
#[derive(Debug)]
pub struct Handshake {
    pub resolver: Resolver,
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Names of protocols, the preferred first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether clients may resume their sessions.
    pub session_tickets: bool,
    /// Whether resumed clients may ask before the handshake is over. Their sessions are kept here then, each for one use:
    /// a ticket that carries all could be used again, with what was asked by it.
    pub early_data: bool,
    /// What clients of QUIC keep with a session, where it is spoken.
    pub quic: Option<Remembered>,
    pub client_auth: Option<Arc<ClientAuth>>,
    /// The names of hosts, each with what it asks of clients itself, if it does. Nothing where no host does.
    pub hosts: Vec<(String, Option<Arc<ClientAuth>>)>,
}

/// Certificates asked of clients.
#[derive(Debug)]
pub struct ClientAuth {
    verifier: Arc<dyn ClientCertVerifier>,
    rules: ClientRules,
}

/// The handshakes of a listener.
#[derive(Debug)]
pub struct Server {
    own: Ruled,
    /// By the names of hosts, where a host asks something of its own of clients. `None`: what the listener asks.
    hosts: Option<Names<Option<Ruled>>>,
    /// Sessions of QUIC for early data.
    over_quic: Option<Arc<dyn StoresServerSessions>>,
}

/// Limits that a client goes by with its early data, as it learnt them when its session began: a session is taken up again
/// for as long as they stand (RFC 9000 section 7.4.1, RFC 9114 section 7.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remembered {
    pub max_streams: u64,
    pub stream_window: u64,
    pub connection_window: u64,
    pub header_size: u64,
}

/// How a handshake goes.
#[derive(Clone, Debug)]
pub struct Ruled {
    pub config: Arc<ServerConfig>,
    pub rules: ClientRules,
}

/// The keys of session tickets: one for each way to ask for clients' certificates, for as long as a handshake uses it. A
/// ticket carries the client's verified certificate, so one that was made by other rules must not be taken.
#[derive(Default)]
pub struct Tickets {
    keys: Mutex<HashMap<ClientRules, Weak<dyn ProducesTickets>>>,
    /// What tickets stand for where they carry nothing.
    sessions: Mutex<HashMap<SessionsOf, Weak<dyn StoresServerSessions>>>,
}

/// What sessions are kept by.
type SessionsOf = (ClientRules, Option<Remembered>);

/// What a client may send before the handshake is over: a request, not a body.
const EARLY_DATA: u32 = 16 << 10;

/// Sessions that are kept for early data, by rules: those before are forgotten.
const SESSIONS: usize = 16 << 10;

/// Why a handshake cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error("an authority's certificate cannot be used: {0}")]
    Authority(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

// === impl Server ===

impl Server {
    pub fn new(handshake: Handshake, tickets: &Tickets) -> Result<Self, ServerError> {
        let Handshake { resolver, versions, alpn, session_tickets, early_data, quic, client_auth, hosts } =
            handshake;
        let resolver = Arc::new(resolver);
        let ruled = |client_auth: Option<&ClientAuth>| {
            let rules = client_auth.map_or(ClientRules::default(), |client_auth| client_auth.rules);
            let mut config = config(versions, client_auth)?.with_cert_resolver(resolver.clone());
            config.alpn_protocols.clone_from(&alpn);
            config.ignore_client_order = true;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            match (session_tickets, early_data) {
                (false, _) => config.send_tls13_tickets = 0,
                (true, false) => config.ticketer = tickets.keys(rules)?,
                (true, true) => {
                    config.session_storage = tickets.sessions(rules, None);
                    config.max_early_data_size = EARLY_DATA;
                    config.send_half_rtt_data = true;
                }
            }
            Ok(Ruled { config: Arc::new(config), rules })
        };
        let own = ruled(client_auth.as_deref())?;
        let hosts: Result<Vec<_>, ServerError> = hosts
            .into_iter()
            .map(|(name, client_auth)| Ok((name, client_auth.map(|auth| ruled(Some(&auth))).transpose()?)))
            .collect();
        let hosts = hosts?;
        let differ = hosts.iter().any(|(_, ruled)| ruled.is_some());
        let over_quic = quic.filter(|_| session_tickets && early_data);
        let over_quic = over_quic.map(|limits| tickets.sessions(own.rules, Some(limits)));
        Ok(Self { own, hosts: differ.then(|| Names::new(hosts)), over_quic })
    }

    /// A handshake of QUIC, which does not wait for the name that the client asks for.
    pub fn quic(&self) -> Ruled {
        let Ruled { config, rules } = self.find(None);
        let mut config = ServerConfig::clone(config);
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.max_early_data_size = 0;
        // Who has to show a certificate is known when the handshake is over.
        if let Some(sessions) = self.over_quic.as_ref().filter(|_| *rules == ClientRules::default()) {
            config.session_storage = sessions.clone();
            // QUIC's own limits are what bounds it (RFC 9001 section 4.6.1).
            config.max_early_data_size = u32::MAX;
        }
        Ruled { config: Arc::new(config), rules: *rules }
    }

    /// How every handshake goes, where they do not differ by name.
    pub fn only(&self) -> Option<&Ruled> {
        self.hosts.is_none().then_some(&self.own)
    }

    /// How the handshake with a client goes that asks for this name.
    pub fn find(&self, name: Option<&str>) -> &Ruled {
        let Some(hosts) = &self.hosts else { return &self.own };
        let found = match name {
            None => hosts.any(),
            Some(name) => hosts.find_below(&name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()),
        };
        found.and_then(Option::as_ref).unwrap_or(&self.own)
    }

    /// Whether a request to this host may come by a connection whose handshake went by these rules: another host could
    /// ask for less (RFC 9110 section 7.4).
    pub fn takes(&self, rules: ClientRules, host: &str) -> bool {
        let asked = match &self.hosts {
            None => &self.own,
            Some(hosts) => hosts.find_below(host).and_then(Option::as_ref).unwrap_or(&self.own),
        };
        asked.rules == rules
    }
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
    client_auth: Option<&ClientAuth>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, ServerError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| ServerError::Setup(error.to_string()))?;
    Ok(match client_auth {
        Some(client_auth) => builder.with_client_cert_verifier(client_auth.verifier.clone()),
        None => builder.with_no_client_auth(),
    })
}

// === impl ClientAuth ===

impl ClientAuth {
    /// Asks for certificates signed by one of these. `required`: a client without one is refused; one with a wrong one
    /// always is.
    pub fn new(authorities: Vec<CertificateDer<'static>>, required: bool) -> Result<Self, ServerError> {
        let unusable = |error: &dyn ToString| ServerError::Authority(error.to_string());
        let mut digest = Sha256::new();
        digest.update([u8::from(required)]);
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            digest.update(Sha256::digest(&authority));
            roots.add(authority).map_err(|error| unusable(&error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|error| unusable(&error))?;
        Ok(Self { verifier, rules: ClientRules::of(digest.finalize().into()) })
    }
}

// === impl Tickets ===

impl Tickets {
    /// The keys for these rules; they change every few hours, and those before are good for as long again.
    fn keys(&self, rules: ClientRules) -> Result<Arc<dyn ProducesTickets>, ServerError> {
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = known.get(&rules).and_then(Weak::upgrade) {
            return Ok(keys);
        }
        let keys =
            crypto::aws_lc_rs::Ticketer::new().map_err(|error| ServerError::Setup(error.to_string()))?;
        known.retain(|_, keys| keys.strong_count() > 0);
        known.insert(rules, Arc::downgrade(&keys));
        Ok(keys)
    }

    fn sessions(&self, rules: ClientRules, quic: Option<Remembered>) -> Arc<dyn StoresServerSessions> {
        let mut known = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = known.get(&(rules, quic)).and_then(Weak::upgrade) {
            return sessions;
        }
        let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
        known.retain(|_, sessions| sessions.strong_count() > 0);
        known.insert((rules, quic), Arc::downgrade(&sessions));
        sessions
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::SelfSigned;

    fn authority(name: &str) -> CertificateDer<'static> {
        let certificate = SelfSigned::default().certificate(&[name.to_owned()]).unwrap();
        certificate.chain()[0].clone()
    }

    fn server(own: Option<&Arc<ClientAuth>>, hosts: &[(&str, Option<&Arc<ClientAuth>>)]) -> Server {
        early(own, hosts, false, &Tickets::default())
    }

    fn early(
        own: Option<&Arc<ClientAuth>>,
        hosts: &[(&str, Option<&Arc<ClientAuth>>)],
        early_data: bool,
        tickets: &Tickets,
    ) -> Server {
        let certificate = SelfSigned::default().certificate(&["a.test".into()]).unwrap();
        let hosts = hosts.iter().map(|(name, auth)| ((*name).to_owned(), auth.cloned())).collect();
        let handshake = Handshake {
            resolver: Resolver::new(&[certificate], []),
            versions: SINCE_TLS12,
            alpn: Vec::new(),
            session_tickets: true,
            early_data,
            quic: Some(LIMITS),
            client_auth: own.cloned(),
            hosts,
        };
        Server::new(handshake, tickets).unwrap()
    }

    const LIMITS: Remembered =
        Remembered { max_streams: 9, stream_window: 9, connection_window: 9, header_size: 9 };

    #[test]
    fn quic_takes_early_data_where_nobody_has_to_show_a_certificate() {
        let auth = Arc::new(ClientAuth::new(vec![authority("ca.test")], false).unwrap());
        let early_data = |server: Server| server.quic().config.max_early_data_size;
        let tickets = Tickets::default();
        assert_eq!(early_data(early(None, &[], true, &tickets)), u32::MAX);
        assert_eq!(early_data(early(None, &[], false, &tickets)), 0);
        assert_eq!(early_data(early(Some(&auth), &[], true, &tickets)), 0);
        assert_eq!(early_data(early(None, &[("*", Some(&auth))], true, &tickets)), 0);
    }

    #[test]
    fn sessions_of_quic_outlive_a_configuration_while_its_limits_stand() {
        let tickets = Tickets::default();
        let sessions = |limits| tickets.sessions(ClientRules::default(), limits);
        let first = sessions(Some(LIMITS));
        assert!(Arc::ptr_eq(&first, &sessions(Some(LIMITS))));
        assert!(!Arc::ptr_eq(&first, &sessions(Some(Remembered { max_streams: 8, ..LIMITS }))));
        assert!(!Arc::ptr_eq(&first, &sessions(None)));
    }

    #[test]
    fn rules_are_equal_where_the_same_is_asked() {
        let (one, other) = (authority("one.test"), authority("other.test"));
        let rules = |authorities: &[&CertificateDer<'static>], required| {
            let authorities = authorities.iter().map(|&der| der.clone()).collect();
            ClientAuth::new(authorities, required).unwrap().rules
        };
        assert_eq!(rules(&[&one], true), rules(&[&one], true));
        for different in [rules(&[&one], false), rules(&[&other], true), rules(&[&one, &other], true)] {
            assert_ne!(rules(&[&one], true), different);
        }
        assert_ne!(rules(&[&one], false), ClientRules::default());
    }

    #[test]
    fn a_host_is_reached_by_its_own_rules_alone() {
        let strict = Arc::new(ClientAuth::new(vec![authority("ca.test")], true).unwrap());
        let server = server(None, &[("*.a.test", Some(&strict)), ("open.a.test", None), ("*", None)]);
        assert!(server.only().is_none());
        let by = |name| server.find(name).rules;
        assert_eq!(by(Some("X.a.test.")), strict.rules);
        assert_eq!(by(Some("open.a.test")), ClientRules::default());
        assert_eq!(by(None), ClientRules::default());
        assert!(server.takes(by(Some("y.a.test")), "x.a.test"));
        assert!(!server.takes(by(Some("open.a.test")), "x.a.test"));
        assert!(!server.takes(by(Some("x.a.test")), "open.a.test"));
        assert!(server.takes(by(None), "else.test"));
    }

    #[test]
    fn keys_of_tickets_are_shared_by_equal_rules_and_outlive_a_configuration() {
        let tickets = Tickets::default();
        let plain = tickets.keys(ClientRules::default()).unwrap();
        assert!(Arc::ptr_eq(&plain, &tickets.keys(ClientRules::default()).unwrap()));
        let auth = ClientAuth::new(vec![authority("ca.test")], true).unwrap();
        let ruled = tickets.keys(auth.rules).unwrap();
        let ticket = plain.encrypt(b"who it was").unwrap();
        assert_eq!(plain.decrypt(&ticket).unwrap(), b"who it was");
        assert!(ruled.decrypt(&ticket).is_none());
    }
}

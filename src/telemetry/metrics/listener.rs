//! What is counted of connections, by listener.

use prometheus::{IntCounter, IntGauge};

use super::{Families, kept::Counts};
use crate::value::Name;

/// The connections of one listener.
#[derive(Debug)]
pub struct Listener {
    name: Name,
    open: [IntGauge; 3],
    connections: [IntCounter; 3],
    refused: [IntCounter; 2],
    proxy_headers: [IntCounter; 5],
    shaken: [IntCounter; 2],
    failed: IntCounter,
    pub quic: Quic,
}

/// What is counted of QUIC connections beside.
#[derive(Debug)]
pub struct Quic {
    shaken: IntCounter,
    failed: IntCounter,
    /// Clients that were asked to prove their address.
    pub retries: IntCounter,
    /// Streams of requests.
    pub streams: IntCounter,
    /// Those of them that came before the handshake was over.
    pub early_streams: IntCounter,
    pub sent_packets: IntCounter,
    pub lost_packets: IntCounter,
    pub migrations: IntCounter,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

/// The limit that a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Connections,
    PerAddress,
}

/// What became of a PROXY header that a connection was to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    Taken,
    /// The peer is not one whose header is read.
    NotListed,
    Missing,
    Malformed,
    Late,
}

/// A connection that counts as open until dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

const PROTOCOLS: [&str; 3] = ["h1", "h2", "h3"];
const LIMITS: [&str; 2] = ["connections", "connections_per_ip"];
const PROXY_HEADERS: [&str; 5] = ["taken", "not_listed", "missing", "malformed", "late"];
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
const OUTCOMES: [&str; 2] = ["ok", "failed"];

impl Listener {
    pub(super) fn new(name: &Name, families: &Families) -> Self {
        let text = name.as_str();
        Self {
            open: PROTOCOLS.map(|protocol| families.open.with_label_values(&[text, protocol])),
            connections: PROTOCOLS.map(|protocol| families.connections.with_label_values(&[text, protocol])),
            refused: LIMITS.map(|limit| families.refused.with_label_values(&[text, limit])),
            proxy_headers: PROXY_HEADERS
                .map(|outcome| families.proxy_headers.with_label_values(&[text, outcome])),
            shaken: VERSIONS.map(|version| families.handshakes.with_label_values(&[text, "ok", version])),
            failed: families.handshakes.with_label_values(&[text, "failed", ""]),
            quic: Quic {
                shaken: families.quic_handshakes.with_label_values(&[text, OUTCOMES[0]]),
                failed: families.quic_handshakes.with_label_values(&[text, OUTCOMES[1]]),
                retries: families.quic_retries.with_label_values(&[text]),
                streams: families.quic_streams.with_label_values(&[text]),
                early_streams: families.quic_early.with_label_values(&[text]),
                sent_packets: families.quic_sent.with_label_values(&[text]),
                lost_packets: families.quic_lost.with_label_values(&[text]),
                migrations: families.quic_migrations.with_label_values(&[text]),
            },
            name: name.clone(),
        }
    }

    /// A connection has come to speak a protocol.
    pub fn opened(&self, protocol: Protocol) -> Open {
        self.connections[protocol as usize].inc();
        let open = self.open[protocol as usize].clone();
        open.inc();
        Open(open)
    }

    pub fn refused(&self, limit: Limit) {
        self.refused[limit as usize].inc();
    }

    pub fn proxy_header(&self, outcome: ProxyHeader) {
        self.proxy_headers[outcome as usize].inc();
    }

    /// A handshake has agreed upon this version of TLS, or on none.
    pub fn shaken(&self, version: Option<&str>) {
        match VERSIONS.iter().position(|known| version == Some(known)) {
            Some(place) => self.shaken[place].inc(),
            None => self.failed.inc(),
        }
    }
}

impl Quic {
    /// A handshake has come to its end, or not.
    pub fn shaken(&self, is_ok: bool) {
        if is_ok { self.shaken.inc() } else { self.failed.inc() }
    }
}

impl Counts for Listener {
    fn forget(&self, families: &Families) {
        let name = self.name.as_str();
        // They were all made together; what is not there need not be taken away.
        for protocol in PROTOCOLS {
            let _ = families.open.remove_label_values(&[name, protocol]);
            let _ = families.connections.remove_label_values(&[name, protocol]);
        }
        for limit in LIMITS {
            let _ = families.refused.remove_label_values(&[name, limit]);
        }
        for outcome in PROXY_HEADERS {
            let _ = families.proxy_headers.remove_label_values(&[name, outcome]);
        }
        for version in VERSIONS {
            let _ = families.handshakes.remove_label_values(&[name, "ok", version]);
        }
        let _ = families.handshakes.remove_label_values(&[name, "failed", ""]);
        for outcome in OUTCOMES {
            let _ = families.quic_handshakes.remove_label_values(&[name, outcome]);
        }
        for family in [
            &families.quic_retries,
            &families.quic_streams,
            &families.quic_early,
            &families.quic_sent,
            &families.quic_lost,
            &families.quic_migrations,
        ] {
            let _ = family.remove_label_values(&[name]);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

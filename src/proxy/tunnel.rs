//! Tunnels: what a client asks for by an upgrade or by extended CONNECT, how its upstream is asked for it, and what each
//! is told. On the way between, a tunnel's head is a 101, whoever it is from and whoever it goes to.

use std::{pin::Pin, time::Duration};

use http::{HeaderValue, StatusCode, header, request, response};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    error::Reason,
    http::{hop_by_hop, websocket},
    upstream::{config::Protocol, exchange::TunnelRequest},
};

/// A tunnel as it is asked for. `accept` is what Sec-WebSocket-Accept has to say.
#[derive(Clone, Debug)]
pub(super) enum Tunnel {
    /// An upgrade, to whatever protocol, handed on as it is.
    Upgrade,
    /// Extended CONNECT of the client, an upgrade towards the upstream, with a key of ours.
    ConnectByUpgrade { accept: HeaderValue },
    /// Extended CONNECT, handed on.
    Connect,
    /// An upgrade of the client to WebSocket, extended CONNECT towards the upstream.
    UpgradeByConnect { accept: HeaderValue },
}

impl Tunnel {
    /// Makes the head that goes upstream ask for what it asks for, in the upstream's protocol. `None`, and no word of it
    /// left, where it is passed over, as a server may (RFC 9110 section 7.8): where HTTP/2 is asked for anything but
    /// WebSocket, or with a body.
    pub fn ask(head: &mut request::Parts, upstream: Protocol, bodiless: bool) -> Option<Self> {
        let connects = head.extensions.remove::<websocket::Connect>().is_some();
        let tunnel = match (connects, upstream) {
            (true, Protocol::H1 | Protocol::Auto) => {
                Some(Self::ConnectByUpgrade { accept: websocket::ask(&mut head.headers) })
            }
            (true, Protocol::H2 | Protocol::H2c) => Some(Self::Connect),
            (false, Protocol::H1 | Protocol::Auto) => Some(Self::Upgrade),
            (false, _) if !bodiless => None,
            (false, Protocol::H2 | Protocol::H2c) => {
                websocket::accept(&head.headers).map(|accept| Self::UpgradeByConnect { accept })
            }
        };
        if tunnel.is_none() {
            head.headers.remove(header::UPGRADE);
            head.headers.remove(header::CONNECTION);
        }
        tunnel
    }

    /// Whether the upstream is asked by extended CONNECT.
    pub fn connects_upstream(&self) -> bool {
        matches!(self, Self::Connect | Self::UpgradeByConnect { .. })
    }

    /// Whether the client asked by extended CONNECT: what it sends behind the head is the tunnel's.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::ConnectByUpgrade { .. } | Self::Connect)
    }

    /// How the upstream is asked for it.
    pub fn request(&self) -> TunnelRequest {
        match self.connects_upstream() {
            true => TunnelRequest::Connect,
            false => TunnelRequest::Upgrade,
        }
    }

    /// Whether a head of the upstream can be the answer. A refusal always can; a success that switches nothing would be
    /// taken for the tunnel's beginning by a client that sent CONNECT.
    pub fn check(&self, head: &response::Parts) -> Result<(), Reason> {
        let Self::ConnectByUpgrade { accept } = self else { return Ok(()) };
        let fits = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => websocket::is_accepted(&head.headers, accept),
            status => !status.is_success(),
        };
        if fits { Ok(()) } else { Err(Reason::UpgradeFailed) }
    }

    /// Whether what a 101 begins is WebSocket.
    pub fn is_websocket(&self, head: &response::Parts) -> bool {
        !matches!(self, Self::Upgrade) || websocket::is_named(&head.headers)
    }

    /// Makes a 101 of an upstream's answer to extended CONNECT, where that is a success.
    pub fn switch(&self, head: &mut response::Parts) {
        if !self.connects_upstream() || !head.status.is_success() {
            return;
        }
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        hop_by_hop::strip(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        if let Self::UpgradeByConnect { accept } = self {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(header::UPGRADE, HeaderValue::from_static(websocket::NAME));
            head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
    }
}

/// Makes of a 101 the head that extended CONNECT is answered with (RFC 8441 section 5).
pub(super) fn answer_connect(head: &mut response::Parts) {
    head.status = StatusCode::OK;
    hop_by_hop::strip(&mut head.headers);
    head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    // A tunnel has no length (RFC 9110 section 9.3.6).
    head.headers.remove(header::CONTENT_LENGTH);
}

/// How long nothing has gone through a tunnel, in either way.
#[derive(Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// Something went through.
    pub fn broken(&mut self) {
        self.since = None;
    }

    /// Ends when the silence has lasted for `limit`. The timer is set anew only when it goes off, or would too late.
    pub async fn lasts(&mut self, limit: Duration) {
        let due = *self.since.get_or_insert_with(Instant::now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while Instant::now() < due {
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            timer.as_mut().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get("/ws");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const UPGRADE: &[(&str, &str)] = &[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn what_cannot_be_asked_for_leaves_no_trace() {
        for (fields, upstream, bodiless) in [
            (&[("connection", "Upgrade"), ("upgrade", "tcp")][..], Protocol::H2, true),
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], Protocol::H2c, true),
            (UPGRADE, Protocol::H2c, false),
        ] {
            let mut head = head(fields);
            assert!(Tunnel::ask(&mut head, upstream, bodiless).is_none(), "{fields:?}");
            assert!(!head.headers.contains_key("upgrade") && !head.headers.contains_key("connection"));
        }
    }

    #[test]
    fn a_connect_gets_a_key_of_its_own_where_the_upstream_is_asked_by_upgrade() {
        let mut head = head(UPGRADE);
        head.extensions.insert(websocket::Connect::WebSocket);
        let tunnel = Tunnel::ask(&mut head, Protocol::Auto, false).unwrap();
        assert_ne!(head.headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = |status: u16, accept: &HeaderValue| {
            let head = http::Response::builder().status(status).header("upgrade", "websocket");
            head.header("sec-websocket-accept", accept).body(()).unwrap().into_parts().0
        };
        let Tunnel::ConnectByUpgrade { accept } = &tunnel else { panic!("{tunnel:?}") };
        let wrong = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(tunnel.check(&answer(101, accept)), Ok(()));
        assert_eq!(tunnel.check(&answer(403, &wrong)), Ok(()));
        for failed in [answer(101, &wrong), answer(200, accept), answer(204, accept)] {
            assert_eq!(tunnel.check(&failed), Err(Reason::UpgradeFailed), "{failed:?}");
        }
    }

    #[test]
    fn a_connected_upstream_switches_the_client() {
        let tunnel = Tunnel::ask(&mut head(UPGRADE), Protocol::H2c, true).unwrap();
        let response = http::Response::builder().header("content-length", "0").header("x-a", "1").body(());
        let mut answer = response.unwrap().into_parts().0;
        tunnel.switch(&mut answer);
        assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(answer.headers.contains_key("x-a") && !answer.headers.contains_key("content-length"));
        let mut refused = http::Response::builder().status(403).body(()).unwrap().into_parts().0;
        tunnel.switch(&mut refused);
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_from_the_last_that_was_said() {
        let (mut silence, limit) = (Silence::default(), Duration::from_secs(60));
        let said = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let began = Instant::now();
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_secs(40), silence.lasts(limit)).await;
            assert!(waited.is_err());
            silence.broken();
        }
        said(0).await;
        silence.lasts(limit).await;
        assert_eq!(began.elapsed().as_secs(), 180);
        silence.broken();
        let waited = tokio::time::timeout(Duration::from_secs(1), silence.lasts(limit)).await;
        assert!(waited.is_err());
        silence.lasts(limit / 6).await;
        assert_eq!(began.elapsed().as_secs(), 190, "a shorter limit holds at once");
    }
}

//! Who may ask where a token is set: who shows it (RFC 6750 section 2.1).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header};

use crate::{
    http::connection::Peer,
    value::{Bind, Secret},
};

/// Whether the request may see and do everything. Without a token that is so on this machine alone: a reload may take
/// the token away while the address stays until a restart.
pub(super) fn admits(headers: &HeaderMap, token: Option<&Secret>, local: &Bind) -> bool {
    match token {
        None => local.is_of_this_machine(),
        Some(token) => shown(headers).is_some_and(|shown| token.is(shown)),
    }
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?.as_bytes();
    let (scheme, token) = field.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Tells the log of those who are turned away, without letting them fill it.
#[derive(Default)]
pub(super) struct TurnedAway(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    last: Option<Instant>,
    /// Since the last line.
    untold: u64,
}

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);

impl TurnedAway {
    pub fn note(&self, peer: Peer) {
        if let Some(others) = self.count(Instant::now()) {
            tracing::warn!(%peer, others, "the administration turned a request away: its token is missing or wrong");
        }
    }

    /// How many were not told of before this one, where it is to be told.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            lines.untold += 1;
            return None;
        }
        lines.last = Some(now);
        Some(std::mem::take(&mut lines.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(fields: &[&str], token: Option<&str>, local: &str) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, field.parse().unwrap());
        }
        admits(&headers, token.map(|token| Secret(token.into())).as_ref(), &local.parse().unwrap())
    }

    #[test]
    fn a_token_is_shown_once_and_whole() {
        let token = Some("a-token");
        for local in ["0.0.0.0:1", "127.0.0.1:1", "unix:/a"] {
            assert!(
                admitted(&["Bearer a-token"], token, local) && admitted(&["bearer  a-token"], token, local)
            );
            for wrong in
                [&[][..], &["Bearer a-toke"], &["Bearer"], &["Basic a-token"], &["Bearer a-token"; 2]]
            {
                assert!(!admitted(wrong, token, local), "{local} {wrong:?}");
            }
        }
    }

    #[test]
    fn without_one_this_machine_alone_may_ask() {
        for local in ["127.0.0.1:1", "[::1]:1", "unix:/a"] {
            assert!(admitted(&[], None, local), "{local}");
        }
        for local in [":1", "0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            assert!(!admitted(&[], None, local) && !admitted(&["Bearer "], None, local), "{local}");
        }
    }

    #[test]
    fn the_log_is_not_filled() {
        let (turned_away, start) = (TurnedAway::default(), Instant::now());
        assert_eq!(turned_away.count(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(turned_away.count(start + PAUSE / 2), None);
        }
        assert_eq!(turned_away.count(start + PAUSE), Some(1000));
        assert_eq!(turned_away.count(start + PAUSE * 2), Some(0));
    }
}

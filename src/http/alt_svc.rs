//! Alt-Svc: that a listener speaks HTTP/3 as well (RFC 7838).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU8, Ordering},
};

use http::HeaderValue;

/// Whether a listener speaks HTTP/3 at the moment. Whoever was told so has to be told when it is over.
#[derive(Debug, Default)]
pub struct Announcement(AtomicU8);

const NEVER: u8 = 0;
const SPOKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// What the responses on a connection say of it.
#[derive(Debug)]
pub struct AltSvc {
    announcement: Arc<Announcement>,
    /// The UDP port, as clients see it.
    port: u16,
    /// Made once, when it is first said.
    value: OnceLock<HeaderValue>,
}

impl Announcement {
    /// The listener speaks HTTP/3 from now on, or not.
    pub fn set(&self, is_spoken: bool) {
        let next = match (is_spoken, self.0.load(Ordering::Relaxed)) {
            (true, _) => SPOKEN,
            (false, NEVER) => NEVER,
            (false, _) => WITHDRAWN,
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

impl AltSvc {
    pub fn new(announcement: Arc<Announcement>, port: u16) -> Self {
        Self { announcement, port, value: OnceLock::new() }
    }

    /// What a response says; nothing where HTTP/3 was never spoken. A client keeps it for a day.
    pub fn value(&self) -> Option<HeaderValue> {
        match self.announcement.0.load(Ordering::Relaxed) {
            SPOKEN => Some(self.value.get_or_init(|| spoken(self.port)).clone()),
            WITHDRAWN => Some(HeaderValue::from_static("clear")),
            _ => None,
        }
    }
}

fn spoken(port: u16) -> HeaderValue {
    let text = format!("h3=\":{port}\"; ma=86400");
    HeaderValue::from_str(&text).expect("the text is constant but for a decimal port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_is_withdrawn() {
        let announcement = Arc::new(Announcement::default());
        let alt_svc = AltSvc::new(announcement.clone(), 8443);
        announcement.set(false);
        assert_eq!(alt_svc.value(), None);
        announcement.set(true);
        assert_eq!(alt_svc.value().unwrap(), "h3=\":8443\"; ma=86400");
        for _ in 0..2 {
            announcement.set(false);
            assert_eq!(alt_svc.value().unwrap(), "clear");
        }
        announcement.set(true);
        assert_ne!(alt_svc.value().unwrap(), "clear");
    }
}

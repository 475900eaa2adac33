//! Texts that are not shown.

use std::fmt;

use ring::{hmac, rand::SystemRandom};
use schemars::JsonSchema;
use serde::Deserialize;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Secret(pub String);

impl Secret {
    /// Whether it is this, compared by tags under a key of chance: how long that takes tells nothing of it, nor of its
    /// length.
    pub fn is(&self, shown: &[u8]) -> bool {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.expect("the system has a source of random numbers");
        hmac::verify(&key, shown, hmac::sign(&key, self.0.as_bytes()).as_ref()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_itself_alone_and_is_not_shown() {
        let secret = Secret("token".into());
        assert!(secret.is(b"token"));
        for other in [&b""[..], b"toke", b"tokens", b"Token"] {
            assert!(!secret.is(other));
        }
        assert_eq!(format!("{secret:?}"), "***");
    }
}

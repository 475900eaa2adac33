//! Where a Redis is, and by what name and password it is entered.

use std::{fmt, str::FromStr};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Where a Redis is. It may hold a password, and is shown without it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// As the client library takes it.
    url: Box<str>,
}

crate::value::text_value!(
    Address,
    "redis-url",
    "Where a Redis is: redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, or unix:/PATH.",
    "redis://127.0.0.1:6379",
    "unix:/run/redis/redis.sock"
);

/// What is said of one that is none does not repeat it.
const FORM: &str = "this is no address of a Redis: redis://HOST:PORT, redis://USER:PASSWORD@HOST:PORT/DATABASE (with \
                    what is special in a URL percent-encoded), rediss:// for TLS, or unix:/PATH";

impl Address {
    pub fn is_over_tls(&self) -> bool {
        matches!(self.info().addr(), ConnectionAddr::TcpTls { .. })
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        (*self.url)
            .into_connection_info()
            .expect("the URL was parsed the same way when the configuration was read")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = match text.split_once(':') {
            Some(("redis" | "rediss", _)) => text.to_owned(),
            Some(("unix", path)) if path.starts_with('/') => format!("redis+unix://{path}"),
            _ => return Err(FORM.into()),
        };
        // The library takes settings from there, which are none of the language's.
        let is_plain = !text.contains(['?', '#']);
        match (&*url).into_connection_info() {
            Ok(_) if is_plain => Ok(Self { url: url.into() }),
            _ => Err(FORM.into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info().addr() {
            ConnectionAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            address @ ConnectionAddr::TcpTls { .. } => write!(f, "rediss://{address}"),
            address => write!(f, "redis://{address}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://cache.internal", "redis://cache.internal:6379"),
            ("redis://:secret@10.0.0.1:1/2", "redis://10.0.0.1:1"),
            ("redis://app:p%40ss@[::1]:1/2", "redis://::1:1"),
            ("rediss://app:secret@a", "rediss://a:6379"),
            ("unix:/run/redis.sock", "unix:/run/redis.sock"),
        ] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.into(), shown.into()));
        }
    }

    #[test]
    fn what_is_none_is_refused_without_repeating_it() {
        for wrong in [
            "",
            "127.0.0.1:6379",
            "http://secret@a",
            "redis://",
            "redis://:secret@",
            "redis://:secret@a/b",
            "redis://:secret@a:99999",
            "redis://:secret@a?protocol=resp3",
            "rediss://:secret@a#insecure",
            "rediss://",
            "unix:secret.sock",
        ] {
            let error = wrong.parse::<Address>().expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

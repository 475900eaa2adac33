//! The scheme and port by which users reach a request's resource. Behind a balancer they are others than those of the
//! connection: `expose` of the listener says them, and a trusted proxy says the scheme of each request.

/// What users see of a listener, as far as the configuration says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expose {
    pub is_https: Option<bool>,
    pub port: Option<u16>,
}

impl Expose {
    /// The scheme of a request where no trusted proxy says another.
    pub fn scheme(self, is_encrypted: bool) -> &'static str {
        if self.is_https.unwrap_or(is_encrypted) { "https" } else { "http" }
    }

    /// The port to write into a URL of this scheme, `None` where a URL need not name it. `asked` is the port in the
    /// request's Host.
    pub fn port(self, scheme: &str, is_encrypted: bool, asked: Option<u16>) -> Option<u16> {
        let port = match self {
            Self { is_https: None, port: None } => asked,
            // The port that is exposed belongs to the scheme that is.
            _ if scheme == self.scheme(is_encrypted) => self.port,
            _ => None,
        };
        port.filter(|port| default_port(scheme) != Some(*port))
    }
}

/// The port that a URL of a scheme means where it names none.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposed_port_goes_with_the_exposed_scheme() {
        let none = Expose::default();
        assert_eq!((none.scheme(true), none.scheme(false)), ("https", "http"));
        assert_eq!(none.port("http", false, Some(8080)), Some(8080));
        assert_eq!(none.port("http", false, Some(80)), None);
        let balanced = Expose { is_https: Some(true), port: Some(8443) };
        assert_eq!(balanced.scheme(false), "https");
        assert_eq!(balanced.port("https", false, Some(8080)), Some(8443));
        assert_eq!(balanced.port("http", false, Some(8080)), None, "a balancer's other port");
        assert_eq!(Expose { is_https: None, port: Some(443) }.port("https", true, None), None);
    }
}

//! Which certificate a client is shown, by the name that it asks for (RFC 6066 section 3).

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Certificate;

/// The certificates of a listener: an exact name before a wildcard, then their order; the first is for
/// all that is left. A host with a certificate of its own comes before.
pub struct Resolver {
    hosts: Names<Option<Arc<Certificate>>>,
    certificates: Names<Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
}

/// What names stand for: `www.example.com`, or `*.example.com`, which covers what lies below.
#[derive(Debug)]
pub(super) struct Names<T> {
    exact: HashMap<String, T>,
    /// By what follows the "*.".
    wildcards: HashMap<String, T>,
    any: Option<T>,
}

impl Resolver {
    /// `certificates` in the order of the listener; `hosts` are the names of its hosts, each with the
    /// certificate of its own if it has one.
    pub fn new(
        certificates: &[Arc<Certificate>],
        hosts: impl IntoIterator<Item = (String, Option<Arc<Certificate>>)>,
    ) -> Self {
        let by_name = certificates.iter().flat_map(|certificate| {
            certificate.names().iter().map(|name| (name.clone(), certificate.clone()))
        });
        Self {
            hosts: Names::new(hosts),
            certificates: Names::new(by_name),
            default: certificates.first().cloned(),
        }
    }

    /// The certificate for a name, or for a client that names none.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<Certificate>> {
        let Some(name) = name else {
            return self.hosts.any.as_ref().and_then(Option::as_ref).or(self.default.as_ref());
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(Some(own)) = self.hosts.find_below(&name) {
            return Some(own);
        }
        self.certificates.find_one_label(&name).or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|certificate| certificate.key.clone())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

// === impl Names ===

impl<T> Names<T> {
    /// Of equal names the first stands.
    pub(super) fn new(names: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut all = Self { exact: HashMap::new(), wildcards: HashMap::new(), any: None };
        for (name, value) in names {
            let name = name.to_ascii_lowercase();
            if name == "*" {
                all.any.get_or_insert(value);
            } else if let Some(below) = name.strip_prefix("*.") {
                all.wildcards.entry(below.into()).or_insert(value);
            } else {
                all.exact.entry(name).or_insert(value);
            }
        }
        all
    }

    /// What stands for every name that nothing else stands for.
    pub(super) fn any(&self) -> Option<&T> {
        self.any.as_ref()
    }

    /// As certificates mean a wildcard: one label (RFC 9525 section 6.3).
    fn find_one_label(&self, name: &str) -> Option<&T> {
        let below = || name.split_once('.').and_then(|(_, below)| self.wildcards.get(below));
        self.exact.get(name).or_else(below)
    }

    /// As hosts mean a wildcard: one label or more, the longest wildcard first.
    pub(super) fn find_below(&self, name: &str) -> Option<&T> {
        let below = || {
            let mut rest = name;
            while let Some((_, below)) = rest.split_once('.') {
                if let Some(found) = self.wildcards.get(below) {
                    return Some(found);
                }
                rest = below;
            }
            None
        };
        self.exact.get(name).or_else(below).or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::SelfSigned;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        SelfSigned::default().certificate(&names).unwrap()
    }

    #[track_caller]
    fn shows(resolver: &Resolver, name: Option<&str>, expected: &Arc<Certificate>) {
        let found = resolver.find(name).expect("there is a default");
        assert!(Arc::ptr_eq(found, expected), "{name:?} is shown {:?}", found.names());
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_then_the_order_then_the_default() {
        let first = certificate(&["default.test"]);
        let wild = certificate(&["*.example.com"]);
        let exact = certificate(&["www.example.com"]);
        let late = certificate(&["www.example.com", "*.example.com"]);
        let all = [first.clone(), wild.clone(), exact.clone(), late];
        let resolver = Resolver::new(&all, []);
        shows(&resolver, Some("WWW.example.com"), &exact);
        shows(&resolver, Some("www.example.com."), &exact);
        shows(&resolver, Some("api.example.com"), &wild);
        shows(&resolver, Some("a.b.example.com"), &first);
        shows(&resolver, Some("example.com"), &first);
        shows(&resolver, None, &first);
    }

    #[test]
    fn a_host_shows_its_own_and_hides_those_of_wider_hosts() {
        let listeners = certificate(&["*.example.com"]);
        let (own, wide) = (certificate(&["own.test"]), certificate(&["wide.test"]));
        let hosts = [
            ("own.example.com".to_string(), Some(own.clone())),
            ("plain.example.com".to_string(), None),
            ("*.example.com".to_string(), Some(wide.clone())),
        ];
        let resolver = Resolver::new(std::slice::from_ref(&listeners), hosts);
        shows(&resolver, Some("own.example.com"), &own);
        shows(&resolver, Some("plain.example.com"), &listeners);
        shows(&resolver, Some("other.example.com"), &wide);
        shows(&resolver, Some("a.b.example.com"), &wide);
        shows(&resolver, None, &listeners);
    }
}

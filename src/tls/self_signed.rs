//! Certificates made at start, for development: once per process and set of names, so that a reload
//! changes nothing for those who trust them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::certificate::{Certificate, CertificateError};

/// The certificates made so far and still used.
#[derive(Debug, Default)]
pub struct SelfSigned {
    made: Mutex<HashMap<Vec<String>, Weak<Certificate>>>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl SelfSigned {
    /// The certificate for these names, the first of which is its common name.
    pub fn certificate(&self, names: &[String]) -> Result<Arc<Certificate>, CertificateError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = made.get(names).and_then(Weak::upgrade) {
            return Ok(certificate);
        }
        let certificate = Arc::new(make(names)?);
        made.retain(|_, certificate| certificate.strong_count() > 0);
        made.insert(names.to_vec(), Arc::downgrade(&certificate));
        Ok(certificate)
    }
}

fn make(names: &[String]) -> Result<Certificate, CertificateError> {
    let mut params = CertificateParams::default();
    for name in names {
        let own = CertificateParams::new([name.clone()]).map_err(|_| CertificateError::Name(name.clone()))?;
        params.subject_alt_names.extend(own.subject_alt_names);
    }
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("portolan", String::as_str));
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + 365 * DAY).into();
    let unusable = |error: rcgen::Error| CertificateError::KeyUnusable(error.to_string());
    let key = KeyPair::generate().map_err(unusable)?;
    let certificate = params.self_signed(&key).map_err(unusable)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Certificate::from_der(vec![certificate.der().clone()], der)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_is_made_once_for_its_names() {
        let made = SelfSigned::default();
        let first = made.certificate(&names(&["localhost", "127.0.0.1", "*.test"])).unwrap();
        assert_eq!(first.names(), ["localhost", "127.0.0.1", "*.test"]);
        assert!(first.not_after() > SystemTime::now() && first.not_before() < SystemTime::now());
        let again = made.certificate(&names(&["localhost", "127.0.0.1", "*.test"])).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = made.certificate(&names(&["localhost"])).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn what_nothing_uses_is_forgotten() {
        let made = SelfSigned::default();
        drop(made.certificate(&names(&["a.test"])).unwrap());
        let _held = made.certificate(&names(&["b.test"])).unwrap();
        assert_eq!(made.made.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_name_is_said() {
        let error = SelfSigned::default().certificate(&names(&["a.test", "ä"])).unwrap_err();
        assert_eq!(error, CertificateError::Name("ä".into()));
    }
}

//! Certificates with their keys.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

use super::context::Context;
use crate::{
    config::document::File,
    diagnostic::{Code, Diagnostic},
    http::authority::Authority,
    tls::{Certificate, CertificateError, Config, pem},
    upstream::ClientCertificate,
    value::{Entry, Name, Spanned},
};

/// The certificates that could be made, by name.
pub(super) struct Certificates(HashMap<Name, Arc<Certificate>>);

/// Where a certificate comes from.
enum Origin<'a> {
    Files { cert: &'a File, key: &'a File },
    SelfSigned(&'a Spanned<Vec<Spanned<String>>>),
}

pub(super) fn compile(cx: &Context<'_>) -> Certificates {
    let made = cx.document.certificates.iter().filter_map(|entry| {
        let certificate = match origin(cx, entry)? {
            Origin::Files { cert, key } => stapled(cx, from_files(cx, cert, key), entry.value.ocsp.as_ref()),
            Origin::SelfSigned(names) => self_signed(cx, names),
        };
        Some((entry.name.value.clone(), certificate?))
    });
    Certificates(made.collect())
}

impl Certificates {
    /// When each ends.
    pub fn ends(&self) -> BTreeMap<Name, SystemTime> {
        self.0.iter().map(|(name, certificate)| (name.clone(), certificate.not_after())).collect()
    }

    /// The certificate of this name; a name that nothing has is reported.
    pub fn find(&self, cx: &Context<'_>, name: &Spanned<Name>) -> Option<Arc<Certificate>> {
        let (_, entry) = cx.names.certificates.find(name, &cx.report)?;
        self.0.get(&entry.name.value).cloned()
    }

    /// The same for what is shown to upstreams, where it has files.
    pub fn for_client(&self, cx: &Context<'_>, name: &Spanned<Name>) -> Option<Arc<ClientCertificate>> {
        let (_, entry) = cx.names.certificates.find(name, &cx.report)?;
        self.0.get(&entry.name.value)?;
        let (Some(cert), Some(key)) = (&entry.value.cert, &entry.value.key) else {
            let message = format!("{name} is made at start: no upstream knows it");
            let help = "a certificate from files can be shown to upstreams";
            let problem = Diagnostic::error(Code::BadCertificate, name.span, message);
            cx.report.push(problem.label(entry.name.span, "defined here").help(help));
            return None;
        };
        // That both can be read and belong together was seen when the certificate was made.
        let chain = pem::certificates(&cx.read(cert)?).ok()?;
        let key = pem::private_key(&cx.read(key)?).ok()?;
        match ClientCertificate::new(&chain, &key) {
            Ok(certificate) => Some(Arc::new(certificate)),
            Err(reason) => {
                let message = format!("{name} cannot be shown to upstreams");
                cx.report.error(Code::BadCertificate, name.span, message, reason);
                None
            }
        }
    }
}

fn origin<'a>(cx: &Context<'_>, entry: &'a Entry<Name, Config>) -> Option<Origin<'a>> {
    let Config { cert, key, ocsp, self_signed } = &entry.value;
    if let (Some(ocsp), Some(names)) = (ocsp, self_signed) {
        let message = "no authority says anything of a certificate made at start";
        let problem = Diagnostic::error(Code::NoEffect, ocsp.span, message);
        cx.report.push(problem.label(names.span, "it is made here"));
    }
    let missing = |span, message: &str| {
        let help = "{ cert: a.pem, key: a.key } reads files, { self_signed: [localhost] } makes one";
        cx.report.push(Diagnostic::error(Code::MissingKey, span, message).help(help));
        None
    };
    match (cert, key, self_signed) {
        (Some(cert), Some(key), None) => Some(Origin::Files { cert, key }),
        (None, None, Some(names)) => Some(Origin::SelfSigned(names)),
        (Some(cert), None, None) => missing(cert.span, "a certificate needs its key"),
        (None, Some(key), None) => missing(key.span, "a key needs its certificate"),
        (None, None, None) => missing(entry.name.span, "a certificate comes from somewhere"),
        (Some(file), _, Some(names)) | (None, Some(file), Some(names)) => {
            let message = "a certificate is read from files or made at start, not both";
            let problem = Diagnostic::error(Code::NoEffect, names.span, message);
            cx.report.push(problem.label(file.span, "this file would not be used"));
            None
        }
    }
}

fn from_files(cx: &Context<'_>, cert: &File, key: &File) -> Option<Arc<Certificate>> {
    // Both are asked for before either is given up: both may be missing.
    let (chain, private) = (cx.read(cert), cx.read(key));
    let (chain, private) = (chain?, private?);
    if chain != private && pem::has_private_key(&chain) {
        warn_of_key(cx, cert, key);
    }
    let error = match Certificate::from_pem(&chain, &private) {
        Ok(certificate) => return Some(Arc::new(certificate)),
        Err(error) => error,
    };
    cx.report.push(match &error {
        CertificateError::Mismatch => {
            Diagnostic::error(Code::CertificateMismatch, key.span, "certificate and key do not match")
                .reason("the private key is not the certificate's")
                .label(cert.span, "the certificate")
        }
        _ => {
            let file = if error.is_of_key() { key } else { cert };
            let message = format!("{} cannot be used", file.0.display());
            let help = error.help(&cx.path(file));
            Diagnostic::error(Code::BadCertificate, file.span, message)
                .reason(error.to_string())
                .maybe_help(help)
        }
    });
    None
}

/// Certificates are handed around and keys are not: a key among them is read by more people than is meant.
fn warn_of_key(cx: &Context<'_>, cert: &File, key: &File) {
    let message = format!("{} holds a private key beside the certificate", cert.0.display());
    let help = "remove the private key from the certificate's file; if it was readable by others, replace it";
    let problem = Diagnostic::warning(Code::NoEffect, cert.span, message).reason("it is not used");
    cx.report.push(problem.label(key.span, "the private key that is used").help(help));
}

/// The certificate with its authority's word, where that is given. The file is asked for in any case: it may be missing.
fn stapled(
    cx: &Context<'_>,
    certificate: Option<Arc<Certificate>>,
    ocsp: Option<&File>,
) -> Option<Arc<Certificate>> {
    let Some(file) = ocsp else { return certificate };
    let response = cx.read(file)?;
    match certificate?.with_ocsp(&response) {
        Ok(certificate) => Some(Arc::new(certificate)),
        Err(error) => {
            let message = format!("{} cannot be used", file.0.display());
            cx.report.error(Code::BadCertificate, file.span, message, error.to_string());
            None
        }
    }
}

fn self_signed(cx: &Context<'_>, names: &Spanned<Vec<Spanned<String>>>) -> Option<Arc<Certificate>> {
    if names.is_empty() {
        cx.report.push(Diagnostic::error(Code::BadValue, names.span, "a certificate has at least one name"));
        return None;
    }
    for name in names.iter().filter(|name| !can_be_certified(name)) {
        let message = format!("{:?} is no name that a certificate can have", name.value);
        let help = "a host name, \"*.\" and a host name, or an address";
        cx.report.push(Diagnostic::error(Code::BadCertificate, name.span, message).help(help));
    }
    if !names.iter().all(|name| can_be_certified(name)) {
        return None;
    }
    let list: Vec<String> = names.iter().map(|name| name.value.clone()).collect();
    let made = cx.registries.self_signed.certificate(&list);
    made.inspect_err(|error| {
        cx.report.push(Diagnostic::error(Code::BadCertificate, names.span, error.to_string()));
    })
    .ok()
}

fn can_be_certified(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let plain =
        Authority::parse(host).is_ok_and(|authority| authority.port.is_none() && !host.ends_with(':'));
    name.parse::<IpAddr>().is_ok() || (plain && !host.starts_with('['))
}

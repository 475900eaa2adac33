//! A certificate's settings as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{FilePath, Spanned};

/// A certificate: { cert, key } from files, or { self_signed: [names] } made at start for development.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Certificate")]
pub struct Config {
    /// The certificate and its intermediate certificates, PEM.
    pub cert: Option<Spanned<FilePath>>,
    /// Its private key, PEM.
    pub key: Option<Spanned<FilePath>>,
    /// An OCSP response in DER, stapled for clients that ask for it. It is read again when the file changes; Portolan does
    /// not fetch it.
    pub ocsp: Option<Spanned<FilePath>>,
    /// Names of a self-signed certificate.
    pub self_signed: Option<Spanned<Vec<Spanned<String>>>>,
}

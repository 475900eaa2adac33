//! A certificate's settings as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{FilePath, Spanned};

/// A certificate: { cert, key } from files, or { self_signed: [names] } made at start for development.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Certificate")]
pub struct Config {
    /// The certificate and those between it and its authority, PEM.
    pub cert: Option<Spanned<FilePath>>,
    /// Its private key, PEM.
    pub key: Option<Spanned<FilePath>>,
    /// What its authority says of whether it still holds, an OCSP response in DER, shown to clients that ask for one. It is
    /// read again when the file changes; nothing fetches it.
    pub ocsp: Option<Spanned<FilePath>>,
    /// Names to make a certificate for.
    pub self_signed: Option<Spanned<Vec<Spanned<String>>>>,
}

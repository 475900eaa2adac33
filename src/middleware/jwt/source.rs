//! Where the keys come from: a secret, a PEM file, or a JWK set in a file or at a URL.

use std::time;

use super::{
    Config, KeySet, Keys,
    jwks::Source,
    key::{self, Algorithm, Key},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    middleware::Context,
    value::{FilePath, OneOrMany, Spanned, Url},
};

const REFRESH: time::Duration = time::Duration::from_secs(600);

/// The keys of the one place that they come from, for the algorithms pinned.
pub(super) fn keys(config: &Config, cx: &mut Context<'_>) -> Keys {
    let url = config.jwks.as_ref().and_then(|jwks| match &jwks.value {
        KeySet::Url(url) => Some(url),
        KeySet::File(_) => None,
    });
    if let Some(refresh) = config.refresh.as_ref().filter(|_| url.is_none()) {
        let message = "refresh has no effect: only a JWK set at a URL is fetched";
        let problem = Diagnostic::error(Code::NoEffect, refresh.span, message);
        cx.diagnostics.push(problem.help("files are read again when they change"));
    }
    if let Some(ca) = config.ca.as_ref().filter(|_| url.is_none()) {
        let message = "ca has no effect: only a JWK set at a URL is fetched";
        cx.diagnostics.push(Diagnostic::error(Code::NoEffect, ca.span, message));
    }
    let mut keys = match (&config.secret, &config.jwks, &config.public_key) {
        (Some(secret), None, None) => match Key::secret(&secret.value.0) {
            Ok(key) => vec![key],
            Err(reason) => {
                cx.diagnostics.push(Diagnostic::error(Code::BadValue, secret.span, reason));
                return Keys::Given(Vec::new());
            }
        },
        (None, Some(Spanned { value: KeySet::File(file), span }), None) => {
            from_set(&Spanned::new(file.clone(), *span), cx)
        }
        (None, Some(Spanned { value: KeySet::Url(url), .. }), None) => return from_url(url, config, cx),
        (None, None, Some(file)) => {
            // A PEM file may hold comments in any encoding.
            let content = cx.world.files.read(file);
            from_file(file, content, |pem| Key::pem(pem, &file.0), cx).into_iter().collect()
        }
        _ => {
            let message = "jwt takes its keys from exactly one of secret, jwks and public_key";
            let problem = Diagnostic::error(Code::MissingKey, cx.span, message);
            cx.diagnostics.push(problem.help("{ jwks: issuer.jwks.json } reads an issuer's public keys"));
            return Keys::Given(Vec::new());
        }
    };
    pin(&config.algorithms, &mut keys, cx);
    Keys::Given(keys)
}

fn from_url(url: &Url, config: &Config, cx: &mut Context<'_>) -> Keys {
    if let Some(refresh) = config.refresh.as_ref().filter(|refresh| refresh.get().is_zero()) {
        let message = "without a pause it would be fetched all the time";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, refresh.span, message));
    }
    for algorithm in config.algorithms.iter().filter(|algorithm| algorithm.is_of_secret()) {
        let message = format!("no key here is for {algorithm}: a set holds public keys");
        cx.diagnostics.push(Diagnostic::error(Code::NoEffect, algorithm.span, message));
    }
    let refresh = config.refresh.as_ref().map_or(REFRESH, |refresh| refresh.get());
    let authorities = cx.authorities(config.ca.as_ref(), url);
    let calls = &cx.world.calls;
    let source = Source { url: url.clone(), authorities };
    Keys::Fetched(calls.jwks.find(source, refresh, &calls.caller))
}

/// Leaves the keys what is pinned; an algorithm that no key is for would do nothing.
fn pin(pinned: &OneOrMany<Spanned<Algorithm>>, keys: &mut [Key], cx: &mut Context<'_>) {
    if pinned.0.is_empty() || keys.is_empty() {
        return;
    }
    for algorithm in pinned.iter() {
        if !keys.iter().any(|key| key.algorithms.contains(&algorithm.value)) {
            let message = format!("no key here is for {algorithm}");
            let mut there: Vec<String> = Vec::new();
            for name in keys.iter().flat_map(|key| &key.algorithms).map(Algorithm::to_string) {
                if !there.contains(&name) {
                    there.push(name);
                }
            }
            let problem = Diagnostic::error(Code::NoEffect, algorithm.span, message);
            cx.diagnostics.push(problem.help(format!("what they are for: {}", there.join(", "))));
        }
    }
    for key in keys {
        key.algorithms.retain(|algorithm| pinned.iter().any(|one| one.value == *algorithm));
    }
}

/// The keys of a set in a file. It is a copy of what an issuer publishes, so a key that cannot be used is ignored as in a
/// set that is fetched. A private key or a secret in it is a mistake of whoever wrote the file.
fn from_set(file: &Spanned<FilePath>, cx: &mut Context<'_>) -> Vec<Key> {
    let text = cx.world.files.text(file);
    let Some(set) = from_file(file, text, Key::set, cx) else { return Vec::new() };
    for ignored in set.ignored.iter().take(key::MOST_SHOWN) {
        let severity = if ignored.is_secret() { Diagnostic::error } else { Diagnostic::warning };
        let message = format!("a key in {} cannot be used", file.0.display());
        let problem = severity(Code::BadValue, file.span, message.as_str()).reason(ignored.to_string());
        cx.diagnostics.push(match ignored.is_secret() {
            true => problem,
            false => problem.help("the other keys of the set are used"),
        });
    }
    set.keys
}

fn from_file<T>(
    file: &Spanned<FilePath>,
    content: Option<impl AsRef<[u8]>>,
    read: impl FnOnce(&[u8]) -> Result<T, String>,
    cx: &mut Context<'_>,
) -> Option<T> {
    let content = content?;
    let problem = |reason: String| {
        let message = format!("{} cannot be used", file.0.display());
        Diagnostic::error(Code::BadValue, file.span, message).reason(reason)
    };
    read(content.as_ref()).map_err(|reason| cx.diagnostics.push(problem(reason))).ok()
}

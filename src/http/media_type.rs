//! Media types: of files, by their names' endings, and of messages, by what they say.

use std::path::Path;

use http::{HeaderMap, header};

pub const PLAIN: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";
pub const JSON: &str = "application/json";

const TYPES: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", HTML),
    ("html", HTML),
    ("ico", "image/vnd.microsoft.icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", JSON),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", PLAIN),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
];

/// The type of a file with this name; text where nothing is known of it.
pub fn of(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let known = ending.and_then(|ending| TYPES.iter().find(|(known, _)| **known == *ending));
    known.map_or(PLAIN, |(_, media_type)| media_type)
}

/// The type that a message says its body has, without parameters. What cannot be read is one that nothing is of: of
/// two lines nobody can tell which holds.
pub fn said_by(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, others) = (lines.next()?, lines.next());
    let text = first.to_str().ok().filter(|_| others.is_none()).unwrap_or_default();
    Some(text.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell_types() {
        for (name, media_type) in
            [("a/b.HTML", HTML), ("x.json", JSON), ("x", PLAIN), ("x.html.unknown", PLAIN)]
        {
            assert_eq!(of(Path::new(name)), media_type, "{name}");
        }
    }
}

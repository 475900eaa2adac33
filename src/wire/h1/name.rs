//! Reads field names: those that most messages have are recognised as they are usually written, at a tenth of the cost.

use http::{HeaderName, header, header::InvalidHeaderName};

/// Reads a field name in whatever case.
pub fn read(name: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    match usual(name) {
        Some(name) => Ok(name),
        None => HeaderName::from_bytes(name),
    }
}

/// Compares only with the names of the same length.
macro_rules! usual {
    ($name:ident: $($length:literal => [$($text:literal $known:ident),+])+) => {
        match $name.len() {
            $($length => {
                $(if $name == $text { return Some(header::$known); })+
                None
            })+
            _ => None,
        }
    };
}

fn usual(name: &[u8]) -> Option<HeaderName> {
    usual! { name:
        2 => [b"TE" TE]
        3 => [b"Age" AGE, b"Via" VIA]
        4 => [b"Host" HOST, b"Date" DATE, b"ETag" ETAG, b"Vary" VARY, b"Etag" ETAG, b"Link" LINK]
        5 => [b"Range" RANGE, b"Allow" ALLOW]
        6 => [b"Accept" ACCEPT, b"Server" SERVER, b"Cookie" COOKIE, b"Origin" ORIGIN, b"Expect" EXPECT, b"Pragma" PRAGMA]
        7 => [b"Alt-Svc" ALT_SVC, b"Expires" EXPIRES, b"Referer" REFERER, b"Upgrade" UPGRADE]
        8 => [b"Location" LOCATION, b"If-Range" IF_RANGE]
        10 => [b"Connection" CONNECTION, b"User-Agent" USER_AGENT, b"Set-Cookie" SET_COOKIE]
        12 => [b"Content-Type" CONTENT_TYPE]
        13 => [b"Accept-Ranges" ACCEPT_RANGES, b"Authorization" AUTHORIZATION, b"Cache-Control" CACHE_CONTROL, b"Content-Range" CONTENT_RANGE, b"Last-Modified" LAST_MODIFIED, b"If-None-Match" IF_NONE_MATCH]
        14 => [b"Content-Length" CONTENT_LENGTH]
        15 => [b"Accept-Encoding" ACCEPT_ENCODING, b"Accept-Language" ACCEPT_LANGUAGE, b"X-Frame-Options" X_FRAME_OPTIONS, b"Referrer-Policy" REFERRER_POLICY]
        16 => [b"Content-Encoding" CONTENT_ENCODING]
        17 => [b"Transfer-Encoding" TRANSFER_ENCODING, b"If-Modified-Since" IF_MODIFIED_SINCE]
        22 => [b"X-Content-Type-Options" X_CONTENT_TYPE_OPTIONS]
        23 => [b"Content-Security-Policy" CONTENT_SECURITY_POLICY]
        25 => [b"Strict-Transport-Security" STRICT_TRANSPORT_SECURITY, b"Upgrade-Insecure-Requests" UPGRADE_INSECURE_REQUESTS]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRITTEN: &str = "TE Age Via Host Date ETag Etag Vary Link Range Allow Accept Server Cookie Origin Expect Pragma \
        Alt-Svc Expires Referer Upgrade Location If-Range Connection User-Agent Set-Cookie Content-Type Accept-Ranges \
        Authorization Cache-Control Content-Range Last-Modified If-None-Match Content-Length Accept-Encoding \
        Accept-Language X-Frame-Options Referrer-Policy Content-Encoding Transfer-Encoding If-Modified-Since \
        X-Content-Type-Options Content-Security-Policy Strict-Transport-Security Upgrade-Insecure-Requests";

    fn agree(name: &[u8]) -> bool {
        read(name).ok() == HeaderName::from_bytes(name).ok()
    }

    #[test]
    fn usual_names_are_found_and_read_as_all_others_are() {
        for name in WRITTEN.split_whitespace() {
            assert!(usual(name.as_bytes()).is_some(), "{name} is not found");
            assert!(agree(name.as_bytes()) && agree(name.to_ascii_lowercase().as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_are_read_as_the_library_reads_them(name in prop::collection::vec(any::<u8>(), 0..30), at: usize) {
            prop_assert!(agree(&name));
            let written: Vec<_> = WRITTEN.split_whitespace().collect();
            let mut changed = written[at % written.len()].as_bytes().to_vec();
            changed[0] = name.first().copied().unwrap_or(b' ');
            prop_assert!(agree(&changed));
        }
    }
}

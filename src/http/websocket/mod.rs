//! WebSocket's opening handshake: by an upgrade of HTTP/1.1 (RFC 6455 section 4), by extended CONNECT of HTTP/2 and
//! HTTP/3 (RFC 8441, RFC 9220). And where its frames end.

mod frames;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    request,
};
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::{SecureRandom, SystemRandom},
};

pub use frames::{Frames, going_away, going_away_masked};

/// The protocol's name in Upgrade and in `:protocol`.
pub const NAME: &str = "websocket";

/// Stands among the extensions of a head that came as extended CONNECT, and says what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// To all behind, the head is a GET, as that of an upgrade is.
    WebSocket,
    /// Something that is not spoken here.
    Other,
}

/// Reads the `:protocol` of an extended CONNECT.
pub fn read_connect(head: &mut request::Parts, protocol: &str) {
    let connect = match protocol.eq_ignore_ascii_case(NAME) {
        true => Connect::WebSocket,
        false => Connect::Other,
    };
    if connect == Connect::WebSocket {
        head.method = Method::GET;
        // What follows is a tunnel's. A length would be one of a body to those who read the GET.
        head.headers.remove(CONTENT_LENGTH);
    }
    head.extensions.insert(connect);
}

/// What the head asks for by extended CONNECT, if it came as one.
pub fn connect(head: &request::Parts) -> Option<Connect> {
    head.extensions.get().copied()
}

/// Puts a fresh key on a request; says what is to be answered to it.
pub fn ask(headers: &mut HeaderMap) -> HeaderValue {
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).expect("the system has a source of random numbers");
    let key = value(STANDARD.encode(nonce));
    let accept = accept_of(key.as_bytes());
    headers.insert(SEC_WEBSOCKET_KEY, key);
    headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    accept
}

/// Whether Upgrade names WebSocket and nothing else.
pub fn is_named(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(NAME.as_bytes()))
}

/// What is to be answered to an upgrade, where it is a right one to WebSocket (RFC 6455 section 4.2.1).
pub fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let is_key = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    (is_offered(headers) && is_key).then(|| accept_of(key.as_bytes()))
}

/// Whether it is among the protocols that a client offers (RFC 6455 section 4.2.1).
fn is_offered(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(UPGRADE).iter();
    let mut offered = lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    offered.any(|name| name.eq_ignore_ascii_case(NAME.as_bytes()))
}

/// Whether a 101 goes over to WebSocket with this acceptance (RFC 6455 section 4.1).
pub fn is_accepted(headers: &HeaderMap, accept: &HeaderValue) -> bool {
    is_named(headers) && headers.get(SEC_WEBSOCKET_ACCEPT) == Some(accept)
}

fn accept_of(key: &[u8]) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    value(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat())))
}

fn value(base64: String) -> HeaderValue {
    HeaderValue::from_str(&base64).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(protocol: &'static str, key: &'static str) -> HeaderMap {
        let fields = [(UPGRADE, protocol), (SEC_WEBSOCKET_KEY, key)];
        fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let accept = accept(&upgrade("WebSocket", "dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn it_may_be_one_of_several_that_are_offered() {
        for (offered, found) in
            [("websocket, tcp", true), ("tcp,WebSocket", true), ("websockets", false), ("", false)]
        {
            assert_eq!(accept(&upgrade(offered, "dGhlIHNhbXBsZSBub25jZQ==")).is_some(), found, "{offered}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_answered() {
        for (protocol, key) in
            [("websocket", "c2hvcnQ="), ("websocket", "?"), ("tcp", "dGhlIHNhbXBsZSBub25jZQ==")]
        {
            assert_eq!(accept(&upgrade(protocol, key)), None, "{protocol} {key}");
        }
        let mut twice = upgrade("websocket", "dGhlIHNhbXBsZSBub25jZQ==");
        twice.append(SEC_WEBSOCKET_KEY, twice[SEC_WEBSOCKET_KEY].clone());
        assert_eq!(accept(&twice), None);
    }

    #[test]
    fn a_fresh_key_is_accepted_with_its_own_value_alone() {
        let (mut one, mut other) = (HeaderMap::new(), HeaderMap::new());
        let (first, second) = (ask(&mut one), ask(&mut other));
        assert_ne!(first, second);
        let answer: HeaderMap =
            [(UPGRADE, HeaderValue::from_static("websocket")), (SEC_WEBSOCKET_ACCEPT, first.clone())]
                .into_iter()
                .collect();
        assert!(is_accepted(&answer, &first) && !is_accepted(&answer, &second));
        assert_eq!(one[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn an_extended_connect_becomes_a_get_without_a_length() {
        let mut head =
            http::Request::connect("https://a.test/ws").header(CONTENT_LENGTH, "5").body(()).unwrap();
        *head.version_mut() = http::Version::HTTP_2;
        let mut head = head.into_parts().0;
        read_connect(&mut head, "connect-udp");
        assert_eq!((connect(&head), &head.method), (Some(Connect::Other), &Method::CONNECT));
        read_connect(&mut head, "websocket");
        assert_eq!((connect(&head), &head.method), (Some(Connect::WebSocket), &Method::GET));
        assert!(head.headers.is_empty());
    }
}

//! Makes the head of an HTTP/2 or HTTP/3 request what an HTTP/1 one is to everything behind: a target in origin or absolute
//! form, a Host, one Cookie. The rest of RFC 9113 section 8 and of RFC 9114 section 4 (pseudo-fields, fields that mean a connection,
//! lengths that do not agree) has been checked before.

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST},
    request::Parts,
    response,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{
    error::Reason,
    http::{authority, hop_by_hop, target, websocket},
    snapshot::settings::Limits,
};

/// The longest method, in bytes. Longer ones are rejected with 501 (RFC 9112 section 3).
pub(super) const MOST_METHOD: usize = 128;

/// Makes the head what goes on, or says why it does not.
pub(super) fn read(parts: &mut Parts, limits: &Limits) -> Result<(), Reason> {
    restore_target(parts)?;
    check_limits(parts, limits)?;
    let [has_length, expects, has_host, has_cookie] =
        hop_by_hop::which(&parts.headers, [&CONTENT_LENGTH, &EXPECT, &HOST, &COOKIE]);
    check_form(parts)?;
    if has_length && !is_one_length(&parts.headers) {
        return Err(Reason::AmbiguousFraming);
    }
    if expects && !parts.headers.get_all(EXPECT).iter().all(asks_to_continue) {
        return Err(Reason::ExpectationFailed);
    }
    make_room(&mut parts.headers);
    set_host(parts, has_host)?;
    if has_cookie {
        join_cookies(&mut parts.headers);
    }
    if let Some(protocol) = parts.extensions.remove::<Protocol>() {
        websocket::read_connect(parts, protocol.as_str());
    }
    if parts.method != Method::CONNECT && !names_target_uri(&parts.uri) {
        parts.uri = origin_form(&parts.uri)?;
    }
    Ok(())
}

/// About as many fields are added to a head before it goes on.
const ADDED: usize = 8;
/// So many are moved for less than it costs to grow the map that they are in.
const FEW: usize = 4;

/// Once for all that are added: a map that grows hashes again what it has.
fn make_room(headers: &mut HeaderMap) {
    if headers.len() > FEW {
        return headers.reserve(ADDED);
    }
    let mut roomy = HeaderMap::with_capacity(headers.len() + ADDED);
    roomy.extend(std::mem::take(headers));
    *headers = roomy;
}

/// A target that h2 was given in stand-ins.
fn restore_target(parts: &mut Parts) -> Result<(), Reason> {
    let Some(target) =
        parts.uri.path_and_query().map(PathAndQuery::as_str).filter(|target| !target.is_ascii())
    else {
        return Ok(());
    };
    let (target, raw) = target::read(target::restored(target)).ok_or(Reason::MalformedRequest)?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(target);
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::MalformedRequest)?;
    if let Some(raw) = raw {
        parts.extensions.insert(raw);
    }
    Ok(())
}

fn check_limits(parts: &Parts, limits: &Limits) -> Result<(), Reason> {
    if parts.method.as_str().len() > MOST_METHOD {
        return Err(Reason::MethodTooLong);
    }
    if target::of(parts).len() > limits.uri {
        return Err(Reason::UriTooLong);
    }
    // As the same section would measure in HTTP/1: name, colon, space, value, line end.
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    match parts.headers.len() > limits.headers || fields.sum::<usize>() > limits.header_size {
        true => Err(Reason::HeaderTooLarge),
        false => Ok(()),
    }
}

/// What h2 lets pass and what cannot be said in HTTP/1, or would be read otherwise there.
fn check_form(parts: &Parts) -> Result<(), Reason> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let has_scheme =
        parts.uri.authority().is_none() || parts.uri.scheme_str().is_some_and(|scheme| !scheme.is_empty());
    let is_target = match (&parts.method, target) {
        (&Method::CONNECT, _) => true,
        (method, "*") => *method == Method::OPTIONS,
        _ => has_scheme && target.bytes().all(|byte| byte.is_ascii_graphic()),
    };
    // RFC 9113 section 8.2.1.
    match is_target && !parts.headers.values().any(is_padded) {
        true => Ok(()),
        false => Err(Reason::MalformedRequest),
    }
}

/// What h2 compares with the body is the first.
fn is_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number =
        |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

fn is_padded(value: &HeaderValue) -> bool {
    let is_white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_white(value.as_bytes().first()) || is_white(value.as_bytes().last())
}

fn asks_to_continue(expectation: &HeaderValue) -> bool {
    expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// `:authority` is the host; a Host beside it must name the same entity, in whatever spelling (RFC 9113 section 8.3.1, RFC
/// 9114 section 4.3.1).
fn set_host(parts: &mut Parts, has_host: bool) -> Result<(), Reason> {
    let mut hosts = has_host.then(|| parts.headers.get_all(HOST).iter()).into_iter().flatten();
    let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) | (None, None, _) => return Err(Reason::BadHost),
        (None, Some(_), None) => return Ok(()),
        (Some(authority), None, None) => without_user(authority)?,
        (Some(authority), Some(host), None) => {
            let host = host.to_str().map_err(|_| Reason::BadHost)?;
            // CONNECT has no scheme, unless it opens a WebSocket.
            if !authority::are_the_same(host, authority.as_str(), parts.uri.scheme_str()) {
                return Err(Reason::BadHost);
            }
            without_user(authority)?
        }
    };
    parts.headers.insert(HOST, host);
    Ok(())
}

fn without_user(authority: &Authority) -> Result<HeaderValue, Reason> {
    match authority.as_str().contains('@') {
        true => Err(Reason::BadHost),
        false => HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadHost),
    }
}

/// A Cookie may come in crumbs; everything else knows one line (RFC 9113 section 8.2.3, RFC 9114 section 4.2.1).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("values joined by \"; \" make a value");
    headers.insert(COOKIE, joined);
}

/// Whether it is the same as a target in absolute form: by `:scheme`, clients name to a proxy what it is to ask (RFC 9113
/// section 8.3.1). One of https is asked by CONNECT.
fn names_target_uri(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTP) && uri.authority().is_some()
}

fn origin_form(uri: &Uri) -> Result<Uri, Reason> {
    let target = uri.path_and_query().cloned().ok_or(Reason::MalformedRequest)?;
    Ok(Uri::from(target))
}

/// What a request says of its body's length; where it says several, it has been refused. Nothing is 0, as h2 has it.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    match headers.get(CONTENT_LENGTH)?.to_str().ok()? {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

/// Whether the client waits to be asked for the body.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Takes from a response's head what the protocol has no place for. Says whether no body follows; `end` says that there
/// is none, `head_only` that none was asked for.
pub(super) fn finish_response(head: &mut response::Parts, end: bool, head_only: bool) -> bool {
    hop_by_hop::strip(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    end || head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn limits() -> Limits {
        crate::snapshot::settings::Listener::for_tests("web").limits
    }

    fn read(mut parts: Parts, limits: &Limits) -> Result<Parts, Reason> {
        super::read(&mut parts, limits).map(|()| parts)
    }

    fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri).version(http::Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_authority_becomes_the_host_and_the_target_a_path() {
        let read = read(head("https://a.test:8443/x?y=1", &[]), &limits()).unwrap();
        assert_eq!(read.uri, "/x?y=1");
        assert!(read.uri.authority().is_none());
        assert_eq!(read.headers[HOST], "a.test:8443");
    }

    #[test]
    fn a_target_of_http_stays_a_uri() {
        let target = |uri| read(head(uri, &[("host", "a.test")]), &limits()).unwrap().uri.to_string();
        assert_eq!(target("http://a.test/x?y=1"), "http://a.test/x?y=1");
        assert_eq!(target("https://a.test/x?y=1"), "/x?y=1");
        assert_eq!(target("/x"), "/x", "no :authority is that of an origin form");
    }

    #[test]
    fn host_and_authority_say_the_same_or_are_refused() {
        for (uri, host) in [
            ("https://a.test/", "A.test"),
            ("https://a.test/", "a.test:443"),
            ("https://a.test:443/", "a.test."),
            ("http://a.test:80/", "a.test:"),
        ] {
            assert!(read(head(uri, &[("host", host)]), &limits()).is_ok(), "{uri} {host}");
        }
        assert_eq!(read(head("/", &[("host", "b.test")]), &limits()).unwrap().headers[HOST], "b.test");
        let wrong = [
            head("https://a.test/", &[("host", "b.test")]),
            head("https://a.test/", &[("host", "a.test:80")]),
            head("http://a.test/", &[("host", "a.test:443")]),
            head("https://a.test/", &[("host", "a.test"), ("host", "a.test")]),
            head("https://u@a.test/", &[]),
            head("/", &[]),
        ];
        for head in wrong {
            assert_eq!(read(head, &limits()).unwrap_err(), Reason::BadHost);
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        let read = read(head("https://a.test/", &crumbs), &limits()).unwrap();
        assert_eq!(read.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn extended_connect_is_for_websocket_alone() {
        let connect = |protocol: &'static str| {
            let mut head = head("https://a.test/ws?x", &[("content-length", "5")]);
            head.method = Method::CONNECT;
            head.extensions.insert(Protocol::from_static(protocol));
            read(head, &limits()).unwrap()
        };
        let head = connect("websocket");
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("GET", "/ws?x"));
        assert_eq!(websocket::connect(&head), Some(websocket::Connect::WebSocket));
        assert_eq!(websocket::connect(&connect("connect-udp")), Some(websocket::Connect::Other));
    }

    #[test]
    fn limits_have_their_own_statuses() {
        let mut method = head("https://a.test/", &[]);
        method.method = Method::from_bytes(&[b'A'; MOST_METHOD + 1]).unwrap();
        assert_eq!(read(method, &limits()).unwrap_err(), Reason::MethodTooLong);
        let long = format!("https://a.test/{}", "x".repeat(9000));
        assert_eq!(read(head(&long, &[]), &limits()).unwrap_err(), Reason::UriTooLong);
        let many = vec![("x", "y"); 129];
        assert_eq!(read(head("https://a.test/", &many), &limits()).unwrap_err(), Reason::HeaderTooLarge);
        let large = "x".repeat(65536);
        let large = [("x", large.as_str())];
        assert_eq!(read(head("https://a.test/", &large), &limits()).unwrap_err(), Reason::HeaderTooLarge);
    }
}

//! Who may ask. The socket is for programs of this machine; a browser that runs here fetches what any page
//! tells it to, so it is told from them: by the host that it asks for, as a page's name may be made to point here
//! (DNS rebinding), and by the page that it asks for.

use std::net::IpAddr;

use http::{Method, Request, header};

use crate::{http::authority::Authority, value::Bind};

/// Says why the request is not answered. Where a token is asked for, which no page knows, the host may have any name.
pub(super) fn check<B>(request: &Request<B>, local: &Bind, by_token: bool) -> Result<(), &'static str> {
    let from_page = request.headers().contains_key(header::ORIGIN)
        || request.headers().get("sec-fetch-site").is_some_and(|site| site != "none");
    if from_page {
        return Err("pages of the web are not answered");
    }
    // What changes something is not done for an address that was typed or a link that was followed either.
    if request.method() == Method::POST && request.headers().contains_key("sec-fetch-site") {
        return Err("browsers change nothing here");
    }
    match local {
        _ if by_token => Ok(()),
        Bind::Unix(_) => Ok(()),
        Bind::Any(_) | Bind::Tcp(_) if is_meant(request, local) => Ok(()),
        Bind::Any(_) | Bind::Tcp(_) => Err("the request's Host is not this machine"),
    }
}

/// Whether the host asked for is this machine, by an address or by `localhost`: names are anybody's. The port is
/// not looked at, as it may be forwarded.
fn is_meant<B>(request: &Request<B>, local: &Bind) -> bool {
    let field = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(asked) = request.uri().authority().map(|authority| authority.as_str()).or(field) else {
        return false;
    };
    let Ok(authority) = Authority::parse(asked) else { return false };
    let host = authority.host.trim_start_matches('[').trim_end_matches(']');
    let bound = local.socket_addr().map(|address| address.ip());
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || Some(ip) == bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: &str, fields: &[(&str, &str)], local: &str) -> bool {
        let mut request = Request::builder().method(method).uri("/status");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), &local.parse().unwrap(), false).is_ok()
    }

    #[test]
    fn names_that_may_be_anybodys_are_not_answered() {
        for host in ["127.0.0.1:9901", "localhost", "LOCALHOST:80", "[::1]:9901", "127.0.0.7"] {
            assert!(allowed("GET", &[("host", host)], "127.0.0.1:9901"), "{host}");
        }
        for host in ["evil.example", "evil.example:9901", "localhost.evil.example", "10.0.0.1", "", "a b"] {
            assert!(!allowed("GET", &[("host", host)], "127.0.0.1:9901"), "{host}");
        }
        assert!(!allowed("GET", &[], "127.0.0.1:9901"));
        assert!(allowed("GET", &[("host", "portolan")], "unix:/run/a.sock"));
    }

    #[test]
    fn pages_are_not_answered_whatever_they_ask() {
        for local in ["127.0.0.1:9901", "unix:/run/a.sock"] {
            let host = ("host", "127.0.0.1:9901");
            assert!(allowed("POST", &[host], local));
            assert!(allowed("GET", &[host, ("sec-fetch-site", "none")], local));
            for field in
                [("origin", "null"), ("origin", "http://127.0.0.1:9901"), ("sec-fetch-site", "cross-site")]
            {
                assert!(!allowed("POST", &[host, field], local), "{field:?}");
                assert!(!allowed("GET", &[host, field], local), "{field:?}");
            }
            assert!(!allowed("POST", &[host, ("sec-fetch-site", "none")], local));
        }
    }
}

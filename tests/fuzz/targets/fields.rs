//! Any value of the fields that decisions are taken by is read to an end, and what is read of it is fit to go on.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Method, Version, header};
use libfuzzer_sys::fuzz_target;
use portolan::{
    http::{
        accept::Accept,
        authority::Authority,
        coding::Coding,
        cors,
        forwarded::{self, Field, Hop, Trust, X_FORWARDED_FOR, X_FORWARDED_PROTO},
        hop_by_hop,
    },
    middleware::conceal,
};

fuzz_target!(|values: (&[u8], &[u8])| {
    let (first, second) = values;
    let (Ok(one), Ok(other)) = (HeaderValue::from_bytes(first), HeaderValue::from_bytes(second)) else { return };
    let mut headers = HeaderMap::new();
    for name in [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::FORWARDED,
        X_FORWARDED_FOR,
        X_FORWARDED_PROTO,
        header::CONNECTION,
        header::TE,
        header::ORIGIN,
        header::ACCESS_CONTROL_REQUEST_METHOD,
    ] {
        headers.append(name.clone(), one.clone());
        headers.append(name, other.clone());
    }
    assert!(Accept::of(&headers).choose(&["text/html", "application/json"]) < 2);
    Coding::wanted(&headers, &[Coding::Zstd, Coding::Br, Coding::Gzip]);
    cors::preflight(&Method::OPTIONS, &headers);
    if let Ok(text) = one.to_str() {
        if let Ok(authority) = Authority::parse(text) {
            assert_eq!(Authority::parse(&authority.host).map(|again| again.host), Ok(authority.host.clone()));
        }
    }
    assert!(conceal(first, &["key".into()]).len() <= first.len() + 3 * 256);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for field in [Field::XForwardedFor, Field::Forwarded] {
        let from = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
        let trust = Trust { from: from.into(), field };
        let client = forwarded::client(peer, "http", &headers, Some(&trust));
        assert!(client.peer_is_trusted);
        let mut onwards = headers.clone();
        hop_by_hop::strip(&mut onwards);
        assert!(!onwards.contains_key(header::CONNECTION));
        forwarded::tell(&mut onwards, Version::HTTP_11, &client, &Hop::new(peer), Some(&trust));
        assert!(onwards.contains_key(X_FORWARDED_FOR) && onwards.contains_key(header::VIA));
    }
});

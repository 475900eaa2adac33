//! Any body is one gRPC message or none, and any fields have a status or none: what is framed reads the same again.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portolan::http::grpc;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = grpc::message(bytes) {
        assert_eq!(&grpc::framed(message)[..], bytes);
    }
    assert_eq!(grpc::message(&grpc::framed(bytes)), Ok(bytes));
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let fields = HeaderMap::from_iter([(grpc::STATUS, value.clone())]);
        assert!(grpc::Status::of(&fields).is_some_and(|status| !status.to_string().is_empty()));
        let _ = grpc::is_grpc(&HeaderMap::from_iter([(http::header::CONTENT_TYPE, value)]));
    }
});

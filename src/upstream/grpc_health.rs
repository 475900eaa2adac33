//! The gRPC health checking protocol (grpc.health.v1.Health/Check): the request, and what an answer says of the endpoint.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request};
use prost::Message;

use super::exchange::Trailers;
use crate::http::grpc;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// An answer is a number; fields of later versions may stand beside it.
pub const MOST_BODY: usize = 4 << 10;
/// Of a longer explanation only the beginning is shown.
const MOST_EXPLANATION: usize = 200;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The message that asks for a service; "" is the whole server.
pub fn question(service: &str) -> Bytes {
    grpc::framed(&HealthCheckRequest { service: service.to_owned() }.encode_to_vec())
}

/// The head that goes before it.
pub fn complete(head: &mut request::Parts) {
    head.method = Method::POST;
    head.uri = Uri::from_static(METHOD);
    head.headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Whether the endpoint is healthy, or why not.
pub fn verdict(response: &Response<Bytes>) -> Result<(), String> {
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status().as_u16()));
    }
    if !grpc::is_grpc(response.headers()) {
        return Err("the response is not gRPC".to_owned());
    }
    let trailers = response.extensions().get::<Trailers>().map(|Trailers(trailers)| trailers);
    let fields = [trailers, Some(response.headers())].into_iter().flatten();
    let Some((status, fields)) = fields.filter_map(|fields| Some((grpc::Status::of(fields)?, fields))).next()
    else {
        return Err("the response has no grpc-status".to_owned());
    };
    if status != grpc::Status::OK {
        return Err(format!("grpc-status {status}{}", explanation(fields)));
    }
    let message = grpc::message(response.body())?;
    let answer = HealthCheckResponse::decode(message)
        .map_err(|error| format!("the response's message cannot be decoded: {error}"))?;
    match answer.status {
        1 => Ok(()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("serving status {other}")),
    }
}

fn explanation(fields: &HeaderMap) -> String {
    let text = fields.get(grpc::MESSAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.get(..text.len().min(MOST_EXPLANATION)) {
        None | Some("") => String::new(),
        Some(text) => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: &[u8], trailers: &[(&'static str, &'static str)]) -> Response<Bytes> {
        let mut response = Response::new(grpc::framed(message));
        response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
        let fields = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        response.extensions_mut().insert(Trailers(fields.collect()));
        response
    }

    #[test]
    fn a_service_is_asked_for() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
    }

    #[test]
    fn only_serving_is_healthy() {
        let ok = [("grpc-status", "0")];
        let of = |message: &[u8]| verdict(&answer(message, &ok));
        assert_eq!(of(b"\x08\x01"), Ok(()));
        // Fields of later versions.
        assert_eq!(of(b"\x12\x01x\x08\x01"), Ok(()));
        for (message, why) in [
            (&b""[..], "UNKNOWN"),
            (b"\x08\x02", "NOT_SERVING"),
            (b"\x08\x03", "SERVICE_UNKNOWN"),
            (b"\x08\x07", "serving status 7"),
        ] {
            assert_eq!(of(message), Err(why.to_owned()));
        }
        assert!(of(b"\x08").unwrap_err().starts_with("the response's message cannot be decoded"));
    }

    #[test]
    fn a_call_that_fails_is_unhealthy_whatever_its_message() {
        let failed = answer(b"\x08\x01", &[("grpc-status", "14"), ("grpc-message", "starting")]);
        assert_eq!(verdict(&failed), Err("grpc-status UNAVAILABLE (14): starting".to_owned()));
        assert_eq!(verdict(&answer(b"\x08\x01", &[])), Err("the response has no grpc-status".to_owned()));
        let mut in_head = Response::new(Bytes::new());
        in_head.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
        in_head.headers_mut().insert(grpc::STATUS, HeaderValue::from_static("12"));
        assert_eq!(verdict(&in_head), Err("grpc-status UNIMPLEMENTED (12)".to_owned()));
        let mut page = Response::new(Bytes::from_static(b"<html>"));
        assert_eq!(verdict(&page), Err("the response is not gRPC".to_owned()));
        *page.status_mut() = StatusCode::NOT_FOUND;
        assert_eq!(verdict(&page), Err("status 404".to_owned()));
    }
}

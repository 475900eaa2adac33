//! OTLP 1 (<https://opentelemetry.io/docs/specs/otlp/>), as far as an exporter of spans speaks it: what is sent, and
//! what the answer means. Connections, HTTP and TLS are those of all requests of ours.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{InstrumentationScope, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use super::{config::Protocol, recording::attribute};
use crate::{upstream::Trailers, value::Url};

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub cause: String,
    /// Whether they may be taken another time.
    pub may_pass: bool,
}

const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Where the URL says nothing else.
const HTTP: &str = "/v1/traces";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What stands before a message: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;
/// CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS: what the specification has tried again.
const PASSING: [&str; 6] = ["1", "4", "10", "11", "14", "15"];

/// The message that holds these spans.
pub fn message(spans: Vec<Span>, service_name: &str) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    let attributes = vec![text("service.name", service_name), text("service.version", &version)];
    let scope = InstrumentationScope { name: "portolan".to_owned(), version, ..Default::default() };
    let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let resource = Resource { attributes, ..Resource::default() };
    let spans = ResourceSpans { resource: Some(resource), scope_spans: vec![spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

/// The request that carries a message.
pub fn request(
    message: &ExportTraceServiceRequest,
    protocol: Protocol,
    url: &Url,
    fields: &[(HeaderName, HeaderValue)],
) -> Request<Bytes> {
    let body = match protocol {
        Protocol::Http => message.encode_to_vec().into(),
        Protocol::Grpc => framed(message),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = match (protocol, url.path().as_str()) {
        (Protocol::Grpc, _) => Uri::from_static(GRPC),
        (Protocol::Http, "/") => Uri::from_static(HTTP),
        (Protocol::Http, _) => url.path().clone().into(),
    };
    let headers = request.headers_mut();
    headers.extend(fields.iter().cloned());
    let agent = concat!("portolan/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    match protocol {
        Protocol::Http => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        }
        Protocol::Grpc => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    request
}

fn framed(message: &ExportTraceServiceRequest) -> Bytes {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(GRPC_PREFIX + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).expect("a batch is bounded far below that"));
    message.encode(&mut body).expect("a buffer that grows takes every message");
    body.freeze()
}

/// How many spans of a message the collector rejected, where it took the message.
pub fn outcome(response: &Response<Bytes>, protocol: Protocol) -> Result<u64, Failure> {
    let status = response.status();
    if !status.is_success() {
        let may_pass = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        return Err(Failure { cause: format!("it answers {}", status.as_u16()), may_pass });
    }
    let body = match protocol {
        Protocol::Http => &response.body()[..],
        Protocol::Grpc => {
            grpc_status(response)?;
            response.body().get(GRPC_PREFIX..).unwrap_or_default()
        }
    };
    // It took them: what it says beyond that need not be understood.
    let said = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = said.partial_success.map_or(0, |partial| partial.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or_default())
}

fn grpc_status(response: &Response<Bytes>) -> Result<(), Failure> {
    let trailers = response.extensions().get::<Trailers>().map(|Trailers(trailers)| trailers);
    let said = |name: &HeaderName| -> Option<String> {
        let of = |headers: &HeaderMap| Some(headers.get(name)?.to_str().ok()?.to_owned());
        trailers.and_then(of).or_else(|| of(response.headers()))
    };
    match said(&GRPC_STATUS).as_deref() {
        Some("0") => Ok(()),
        Some(code) => {
            let message = said(&GRPC_MESSAGE).unwrap_or_default();
            Err(Failure {
                cause: format!("its gRPC status is {code}: {message}"),
                may_pass: PASSING.contains(&code),
            })
        }
        None => {
            let cause = "it speaks no gRPC: OTLP/HTTP is `protocol: http`".to_owned();
            Err(Failure { cause, may_pass: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answer(status: StatusCode, grpc: Option<&'static str>, body: &'static [u8]) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(body));
        *response.status_mut() = status;
        if let Some(grpc) = grpc {
            let trailers = [(GRPC_STATUS, HeaderValue::from_static(grpc))].into_iter().collect();
            response.extensions_mut().insert(Trailers(trailers));
        }
        response
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let passes = |response, protocol| outcome(&response, protocol).map_err(|failure| failure.may_pass);
        for (status, expected) in [(200, Ok(0)), (400, Err(false)), (429, Err(true)), (503, Err(true))] {
            let response = answer(StatusCode::from_u16(status).unwrap(), None, b"");
            assert_eq!(passes(response, Protocol::Http), expected, "{status}");
        }
        for (code, expected) in [("0", Ok(0)), ("14", Err(true)), ("16", Err(false)), ("8", Err(false))] {
            assert_eq!(passes(answer(StatusCode::OK, Some(code), b""), Protocol::Grpc), expected, "{code}");
        }
        assert_eq!(passes(answer(StatusCode::OK, None, b""), Protocol::Grpc), Err(false));
    }

    #[test]
    fn what_was_rejected_is_counted() {
        // partial_success { rejected_spans: 3 }
        assert_eq!(outcome(&answer(StatusCode::OK, None, b"\x0a\x02\x08\x03"), Protocol::Http), Ok(3));
        let framed = answer(StatusCode::OK, Some("0"), b"\0\0\0\0\x04\x0a\x02\x08\x03");
        assert_eq!(outcome(&framed, Protocol::Grpc), Ok(3));
        assert_eq!(outcome(&answer(StatusCode::OK, None, b"\xff"), Protocol::Http), Ok(0));
    }
}

//! OTLP 1 (<https://opentelemetry.io/docs/specs/otlp/>), as far as an exporter of spans speaks it: what is sent, and
//! what the answer means. Connections, HTTP and TLS are those of all requests of ours.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{InstrumentationScope, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use super::{config::Protocol, recording::attribute};
use crate::{http::grpc, upstream::Trailers, value::Url};

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
        Protocol::Grpc => grpc::framed(&message.encode_to_vec()),
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
            headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    request
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
            grpc::message(response.body()).unwrap_or_default()
        }
    };
    // It took them: what it says beyond that need not be understood.
    let said = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = said.partial_success.map_or(0, |partial| partial.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or_default())
}

fn grpc_status(response: &Response<Bytes>) -> Result<(), Failure> {
    let trailers = response.extensions().get::<Trailers>().map(|Trailers(trailers)| trailers);
    let said = |fields: &HeaderMap| {
        let status = grpc::Status::of(fields)?;
        let message = fields.get(grpc::MESSAGE).and_then(|message| message.to_str().ok());
        Some((status, message.unwrap_or_default().to_owned()))
    };
    match trailers.and_then(said).or_else(|| said(response.headers())) {
        Some((grpc::Status::OK, _)) => Ok(()),
        Some((status, message)) => {
            let cause = format!("its gRPC status is {status}: {message}");
            Err(Failure { cause, may_pass: status.may_pass() })
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

    fn answer(status: StatusCode, code: Option<&'static str>, body: &'static [u8]) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(body));
        *response.status_mut() = status;
        if let Some(code) = code {
            let trailers = [(grpc::STATUS, HeaderValue::from_static(code))].into_iter().collect();
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

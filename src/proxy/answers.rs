//! Answers that Portolan makes itself: errors in the route's form, OPTIONS, and what each must carry.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, response};

use crate::{
    error::{RETRY_AFTER, Reason},
    http::errors::{Errors, Occurrence, Page, Violation},
    middleware::{Exchange, Refusal},
    routing::Allow,
};

/// An answer to a request that is refused or that failed.
pub(super) fn refusal(
    reason: Reason,
    allow: Option<&Allow>,
    errors: &Errors,
    exchange: &Exchange,
) -> Response<Bytes> {
    let answer = error(reason.status(), reason.code(), reason.message(), errors, exchange);
    explain(answer, reason, allow)
}

/// An answer to a request that is refused for some time.
pub(super) fn refusal_for(
    after: Duration,
    reason: Reason,
    errors: &Errors,
    exchange: &Exchange,
) -> Response<Bytes> {
    let mut answer = refusal(reason, None, errors, exchange);
    // Whole seconds, and not too early.
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    answer
}

fn explain(mut answer: Response<Bytes>, reason: Reason, allow: Option<&Allow>) -> Response<Bytes> {
    let status = answer.status();
    let headers = answer.headers_mut();
    // RFC 9209 section 2.
    let proxy_status = format!("portolan; error={}; details=\"{}\"", reason.proxy_error(), reason.code());
    headers.insert("proxy-status", value(proxy_status));
    if let Some(allow) = allow {
        headers.insert(header::ALLOW, value(allow.to_string()));
    } else if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 section 15.5.6: there must be one, and for CONNECT there is nothing to name.
        headers.insert(header::ALLOW, HeaderValue::from_static(""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    }
    answer
}

/// An answer to a request that a part of its chain refused.
pub(super) fn refused(refusal: Refusal, errors: &Errors, exchange: &Exchange) -> Response<Bytes> {
    let Refusal { reason, status, page, fields, violations, cause: _ } = refusal;
    let status = status.unwrap_or_else(|| reason.status());
    let answer = match page {
        Some(page) => shown(status, page),
        None => said(status, reason.code(), reason.message(), &violations, errors, exchange),
    };
    let mut answer = explain(answer, reason, None);
    for name in fields.keys() {
        answer.headers_mut().remove(name);
    }
    for (name, value) in &fields {
        answer.headers_mut().append(name.clone(), value.clone());
    }
    answer
}

/// An error of this status in the route's form.
pub(super) fn error(
    status: StatusCode,
    code: &str,
    message: &str,
    errors: &Errors,
    exchange: &Exchange,
) -> Response<Bytes> {
    said(status, code, message, &[], errors, exchange)
}

fn said(
    status: StatusCode,
    code: &str,
    message: &str,
    violations: &[Violation],
    errors: &Errors,
    exchange: &Exchange,
) -> Response<Bytes> {
    let occurrence = Occurrence {
        status,
        error: code,
        message,
        violations,
        request_id: exchange.request_id.as_ref().and_then(|id| id.to_str().ok()),
        at: SystemTime::now(),
        accept: exchange.accept.as_deref(),
    };
    let mut answer = shown(status, errors.page(&occurrence));
    if errors.negotiate() {
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    answer
}

fn shown(status: StatusCode, page: Page) -> Response<Bytes> {
    let mut answer = Response::new(page.body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    answer
}

/// RFC 9110 section 9.3.7.
pub(super) fn options(allow: Option<&Allow>) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, value(allow.to_string()));
    }
    answer
}

/// Completes the head of an answer of ours: says its length.
pub(super) fn complete(head: &mut response::Parts, body: &Bytes) {
    let bodiless = matches!(head.status.as_u16(), 204 | 205 | 304);
    if !bodiless {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("words of ours and methods are visible ASCII")
}

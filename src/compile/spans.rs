//! Which requests are traced, and where their spans go.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};

use super::context::Context;
use crate::{
    diagnostic::{Code, Diagnostic},
    trace::{
        Settings, Tracer,
        config::{Config, Hidden, Protocol},
    },
    upstream::Authorities,
    value::{Entry, FieldName, FilePath, Percent, Spanned},
};

const SERVICE_NAME: &str = "portolan";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where OTLP/HTTP is by custom.
const HTTP_PORT: u16 = 4318;

/// What the exporter writes by itself, or what frames its messages.
const OURS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];

pub(super) fn compile(cx: &Context<'_>) -> Option<Arc<Tracer>> {
    let config = cx.document.tracing.as_ref()?;
    let settings = Settings {
        protocol: protocol(cx, config),
        url: config.otlp.value.clone(),
        authorities: authorities(cx, config),
        service_name: service_name(cx, config),
        headers: config.headers.iter().filter_map(|line| field(cx, line)).collect(),
        timeout: timeout(cx, config),
    };
    let sample = config.sample.map_or(Percent(100), |sample| sample.value);
    let trust = config.trust.is_none_or(|trust| trust.value);
    if let Some(written) = config.sample.filter(|_| sample == Percent(0) && !trust) {
        let message = "nothing is traced: no trace begins here, and none that began elsewhere is continued";
        cx.report.push(Diagnostic::error(Code::NoEffect, written.span, message));
    }
    let exporter = cx.registries.spans.find(settings, cx.registries.upstreams.caller());
    Some(Arc::new(Tracer { sample, trust, exporter }))
}

fn authorities(cx: &Context<'_>, config: &Config) -> Option<Authorities> {
    let read = |file: &Spanned<FilePath>| cx.read(file);
    cx.report.collect(|out| Authorities::for_url(config.ca.as_ref(), &config.otlp, read, out))
}

fn protocol(cx: &Context<'_>, config: &Config) -> Protocol {
    let url = &config.otlp;
    let has_path = url.path().as_str() != "/";
    let Some(written) = &config.protocol else {
        return if has_path || url.port() == HTTP_PORT { Protocol::Http } else { Protocol::Grpc };
    };
    if written.value == Protocol::Grpc && has_path {
        let message = "gRPC has a path of its own";
        let problem = Diagnostic::error(Code::NoEffect, url.span, message);
        cx.report
            .push(problem.label(written.span, "gRPC is asked for here").help("the URL ends with the port"));
    }
    written.value
}

fn service_name(cx: &Context<'_>, config: &Config) -> String {
    let Some(written) = &config.service_name else { return SERVICE_NAME.to_owned() };
    if written.trim().is_empty() {
        cx.report.push(Diagnostic::error(Code::BadValue, written.span, "a service has a name"));
    }
    written.value.clone()
}

fn timeout(cx: &Context<'_>, config: &Config) -> Duration {
    let Some(written) = config.timeout else { return TIMEOUT };
    if written.get().is_zero() {
        let message = "no collector answers in no time";
        cx.report.push(Diagnostic::error(Code::BadValue, written.span, message));
    }
    written.get()
}

fn field(
    cx: &Context<'_>,
    Entry { name, value }: &Entry<FieldName, Spanned<Hidden>>,
) -> Option<(HeaderName, HeaderValue)> {
    let field = &name.value.0;
    if OURS.contains(field) {
        let message = format!("{field} is written by the exporter itself");
        cx.report.push(Diagnostic::error(Code::NoEffect, name.span, message));
    }
    // Metadata of gRPC is ASCII.
    let text = HeaderValue::from_str(&value.value.0).ok().filter(|_| value.value.0.is_ascii());
    let Some(mut text) = text else {
        let message = format!("{field} cannot have this value");
        let help = "a field's value is visible ASCII, spaces and tabs";
        cx.report.push(Diagnostic::error(Code::BadValue, value.span, message).help(help));
        return None;
    };
    text.set_sensitive(true);
    Some((field.clone(), text))
}

//! The access record of a request, written when it is over.

use http::{HeaderName, HeaderValue, Version};

use super::{asked::Asked, call::Call, downstream::Downstream, engine::NOTHING_SENT, session::Session};
use crate::{
    middleware::conceal,
    snapshot::Route,
    telemetry::{access_log::Record, metrics::Outcome},
    trace::Trace,
};

/// How a request ended.
pub(super) fn outcome<S: Session>(downstream: &Downstream<S>) -> Outcome {
    let exchange = &downstream.exchange;
    let (received, sent) = downstream.session.bytes();
    Outcome {
        status: exchange.status.unwrap_or(NOTHING_SENT),
        reason: exchange.reason,
        received,
        sent,
        duration: exchange.started.elapsed(),
    }
}

/// Writes the record to the route's log, where it has one.
pub(super) fn write<S: Session>(
    downstream: &Downstream<S>,
    ended: &Outcome,
    route: &Route,
    call: Option<&Call>,
    asked: Option<Box<Asked>>,
) {
    let (Some(log), Some(mut asked)) = (&route.access_log, asked) else { return };
    let Some(chosen) = asked.chosen else { return };
    if !log.selection().takes(chosen, ended.status, ended.reason, ended.duration) {
        return;
    }
    let exchange = &downstream.exchange;
    let secrets = downstream.chain.secret_parameters();
    blot_out(&mut asked.fields, log.fields(), downstream.chain.secret_fields());
    let target = asked.target().map(|target| conceal(target, secrets));
    let referer = asked.referer.as_ref().map(|value| conceal(value.as_bytes(), secrets));
    let endpoint = call.as_ref().and_then(|call| call.endpoint());
    let trace_id = exchange.trace.as_ref().map(Trace::id);
    log.write(&Record {
        time: asked.at,
        request_id: exchange.request_id.as_ref().and_then(|id| id.to_str().ok()),
        trace_id: trace_id.as_ref().map(|id| id as &dyn std::fmt::Display),
        client_ip: exchange.client_ip,
        user: exchange.user_name(),
        method: asked.method.as_ref(),
        scheme: exchange.scheme,
        authority: asked.authority.as_ref().map(|value| value.as_bytes()),
        target: target.as_deref(),
        protocol: asked.version.map(protocol),
        status: ended.status.as_u16(),
        received: ended.received,
        sent: ended.sent,
        duration: ended.duration,
        first_byte: call.as_ref().and_then(|call| call.first_byte_after),
        connect: call.as_ref().and_then(|call| call.connected_after),
        queued: call.as_ref().and_then(|call| call.queued_for()),
        listener: &exchange.connection.listener,
        host: route.names.host.as_ref(),
        tenant: route.names.tenant.as_ref(),
        route: route.names.host.as_ref().map(|_| &route.names.route),
        upstream: call.as_ref().and_then(|call| call.upstream()).map(|upstream| &upstream.name),
        split: call.as_ref().and_then(|call| call.split.as_ref()).map(|side| side.name()),
        endpoint: endpoint.as_deref(),
        attempts: call.as_ref().map_or(0, |call| call.attempts),
        hedges: call.as_ref().map_or(0, |call| call.hedges()),
        circuit: call.as_ref().and_then(|call| call.circuit()),
        sticky: call.as_ref().and_then(|call| call.sticky()),
        reason: ended.reason.map(crate::error::Reason::code),
        cause: exchange.cause,
        observed: &exchange.observed,
        referer: referer.as_deref(),
        user_agent: asked.user_agent.as_ref().map(|value| value.as_bytes()),
        tls_version: exchange.connection.tls.as_ref().map(|tls| tls.version),
        fields: &asked.fields,
        variables: exchange,
    });
}

fn blot_out(values: &mut [Option<HeaderValue>], names: &[HeaderName], secrets: &[HeaderName]) {
    for (value, name) in values.iter_mut().zip(names) {
        if value.is_some() && secrets.contains(name) {
            *value = Some(HeaderValue::from_static("***"));
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

//! Edits of header fields, shared by `request_headers` and `response_headers`: removes, then sets, then adds.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, Exchange};
use crate::{
    diagnostic::{Code, Diagnostic},
    value::{FieldName, Map, Span, Spanned, Template},
};

/// Compiled edits.
#[derive(Debug)]
pub(super) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

#[derive(Debug)]
enum Value {
    Fixed(HeaderValue),
    Template(Template),
}

/// Fields that frame a message or end a connection: they are the proxy's own business.
const OURS: [HeaderName; 4] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

impl Edits {
    pub(super) fn compile(
        set: &Map<FieldName, Spanned<String>>,
        add: &Map<FieldName, Spanned<String>>,
        remove: &[Spanned<FieldName>],
        cx: &mut Context<'_>,
    ) -> Self {
        let names = set.iter().chain(add).map(|line| (&line.name.value, line.name.span));
        for (name, span) in names.chain(remove.iter().map(|name| (&name.value, name.span))) {
            refuse_ours(name, span, cx);
        }
        Self {
            remove: remove.iter().map(|name| name.value.0.clone()).collect(),
            set: compile_lines(set, cx),
            add: compile_lines(add, cx),
        }
    }

    /// The fields with their values for this exchange.
    pub(super) fn apply(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            match value.of(exchange) {
                Some(value) => drop(headers.insert(name.clone(), value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.of(exchange) {
                headers.append(name.clone(), value);
            }
        }
    }
}

impl Value {
    /// `None` where what a variable holds cannot stand in a field.
    fn of(&self, exchange: &Exchange) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Template(template) => {
                let mut text = String::new();
                template.render(exchange, &mut text);
                HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
            }
        }
    }
}

fn compile_lines(lines: &Map<FieldName, Spanned<String>>, cx: &mut Context<'_>) -> Vec<(HeaderName, Value)> {
    let mut compiled = Vec::new();
    for line in lines {
        if let Some(value) = compile_value(&line.value, cx) {
            compiled.push((line.name.value.0.clone(), value));
        }
    }
    compiled
}

fn compile_value(text: &Spanned<String>, cx: &mut Context<'_>) -> Option<Value> {
    let template = match Template::parse(&text.value, cx.captures) {
        Ok(template) => template,
        Err(error) => {
            cx.diagnostics.push(Diagnostic::bad_template(text.span, &error));
            return None;
        }
    };
    let Some(literal) = template.literal() else { return Some(Value::Template(template)) };
    let value = HeaderValue::from_str(literal).ok();
    if value.is_none() {
        let message = "a field's value holds characters that must not stand in one (RFC 9110 section 5.5)";
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, text.span, message));
    }
    value.map(Value::Fixed)
}

pub(super) fn refuse_ours(name: &FieldName, span: Span, cx: &mut Context<'_>) {
    if OURS.contains(&name.0) {
        let message = format!("{} frames the message or its connection and cannot be edited", name.0);
        cx.diagnostics.push(
            Diagnostic::error(Code::NoEffect, span, message)
                .help("Portolan writes it by itself, as the protocol of each side needs it"),
        );
    }
}

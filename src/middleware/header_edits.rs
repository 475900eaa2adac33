//! Edits of header fields, shared by `request_headers` and `response_headers`: removes, then sets, then adds.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, Exchange};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::{
        authority,
        field_name::{Field, alike},
    },
    value::{FieldName, Map, Span, Spanned, Template},
};

/// Compiled edits.
#[derive(Debug)]
pub(super) struct Edits {
    remove: Vec<Field>,
    set: Vec<(Field, Value)>,
    add: Vec<(Field, Value)>,
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
            remove: remove.iter().map(|name| Field::new(name.value.0.clone())).collect(),
            set: compile_lines(set, cx),
            add: compile_lines(add, cx),
        }
    }

    /// Edits the request: a server may read what the client sent in another spelling for the same field.
    pub(super) fn apply_to_request(&self, exchange: &mut Exchange) {
        let mut headers = std::mem::take(&mut exchange.head.headers);
        let mut lookalikes = exchange.lookalikes;
        for field in &self.remove {
            field.remove(&mut headers, lookalikes);
        }
        for (field, value) in &self.set {
            match value.of(exchange) {
                Some(value) => field.set(&mut headers, value, lookalikes),
                None => field.remove(&mut headers, lookalikes),
            }
            lookalikes.added(field);
        }
        for (field, value) in &self.add {
            field.remove_lookalikes(&mut headers, lookalikes);
            if let Some(value) = value.of(exchange) {
                headers.append(field.name().clone(), value);
            }
            lookalikes.added(field);
        }
        (exchange.head.headers, exchange.lookalikes) = (headers, lookalikes);
    }

    /// Edits a response: clients read names as they are.
    pub(super) fn apply_to_response(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        for field in &self.remove {
            headers.remove(field.name());
        }
        for (field, value) in &self.set {
            match value.of(exchange) {
                Some(value) => drop(headers.insert(field.name().clone(), value)),
                None => drop(headers.remove(field.name())),
            }
        }
        for (field, value) in &self.add {
            if let Some(value) = value.of(exchange) {
                headers.append(field.name().clone(), value);
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
                // A URI of a host that the request does not name.
                if !template.fills_authority(exchange) || !authority::names_host(&text) {
                    return None;
                }
                HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
            }
        }
    }
}

fn compile_lines(lines: &Map<FieldName, Spanned<String>>, cx: &mut Context<'_>) -> Vec<(Field, Value)> {
    let mut compiled = Vec::new();
    for line in lines {
        if let Some(value) = compile_value(&line.value, cx) {
            compiled.push((Field::new(line.name.value.0.clone()), value));
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

/// Of two fields that servers read as one, the second would remove the first.
pub(super) fn refuse_lookalikes(
    set: &Map<FieldName, Spanned<String>>,
    add: &Map<FieldName, Spanned<String>>,
    cx: &mut Context<'_>,
) {
    let lines: Vec<_> = set.iter().chain(add).map(|line| &line.name).collect();
    for (place, name) in lines.iter().enumerate() {
        let is_other_spelling = |first: &&&Spanned<FieldName>| {
            first.value != name.value && alike(first.value.0.as_str(), name.value.0.as_str())
        };
        if let Some(first) = lines[..place].iter().find(is_other_spelling) {
            let message = format!("servers may read {} and {} as one field", first.value.0, name.value.0);
            let problem = Diagnostic::error(Code::NoEffect, name.span, message);
            cx.diagnostics.push(problem.label(first.span, "the other spelling").help("keep one of them"));
        }
    }
}

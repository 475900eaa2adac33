//! A line as a template says: its text as it stands, values escaped so that none can end a line.

use std::{cell::RefCell, ops::Range};

use http::{HeaderName, Method, header};

use super::{escaped, put, record::Record};
use crate::value::{Name, Piece, TemplateError, Variable, meant, pieces};

/// A parsed template of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece<Value>]>,
    fields: Vec<HeaderName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// What every template can say.
    Variable(Variable),
    /// What only the log knows.
    Logged(Logged),
    Referer,
    UserAgent,
    /// The field of the request at this place of the template's fields.
    Field(usize),
}

macro_rules! logged {
    ($($variant:ident = $name:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Logged { $($variant,)* }

        impl Logged {
            const ALL: &'static [(&'static str, Logged)] = &[$(($name, Logged::$variant),)*];
        }
    };
}

logged! {
    Time = "time";
    User = "user";
    Target = "request.target";
    Authority = "request.authority";
    Protocol = "request.protocol";
    Status = "response.status";
    Received = "received";
    Sent = "sent";
    Duration = "duration_ms";
    FirstByte = "first_byte_ms";
    Connect = "connect_ms";
    Queued = "queued_ms";
    Listener = "listener";
    Host = "host";
    Tenant = "tenant";
    Route = "route";
    Upstream = "upstream";
    Split = "split";
    Endpoint = "endpoint";
    Attempts = "attempts";
    Hedges = "hedges";
    Circuit = "circuit";
    Sticky = "sticky";
    TraceId = "trace_id";
    Reason = "reason";
    Cause = "cause";
    Observed = "observed";
}

/// What a request's fields are called by.
const FIELD: &str = "request.header.";

/// Names of nginx, HAProxy, Envoy and Caddy, and what they are called here.
const HABITS: &[(&str, &str)] = &[
    ("remote_addr", "client.ip"),
    ("remote_user", "user"),
    ("remote_ip", "client.ip"),
    ("time_local", "time"),
    ("time_iso8601", "time"),
    ("request_method", "request.method"),
    ("request_uri", "request.target"),
    ("uri", "request.target"),
    ("args", "request.query"),
    ("query_string", "request.query"),
    ("scheme", "request.scheme"),
    ("server_protocol", "request.protocol"),
    ("proto", "request.protocol"),
    ("status", "response.status"),
    ("body_bytes_sent", "sent"),
    ("bytes_sent", "sent"),
    ("request_length", "received"),
    ("request_time", "duration_ms"),
    ("upstream_addr", "endpoint"),
    ("upstream_response_time", "first_byte_ms"),
    ("upstream_connect_time", "connect_ms"),
    ("http_referer", "request.header.referer"),
    ("http_user_agent", "request.header.user-agent"),
    ("http_host", "request.authority"),
    ("ssl_protocol", "tls.version"),
    ("request_id", "request.id"),
];

/// Fields that hold secrets: they are in no log.
const SECRETS: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

thread_local! {
    /// A value before it is escaped, so that making a line allocates nothing.
    static VALUE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut fields = Vec::new();
        let pieces = pieces(text, |name, range| value(name, range, &mut fields))?;
        for piece in &pieces {
            if let Piece::Literal(literal) = piece
                && literal.contains(|c: char| c.is_control() && c != '\t')
            {
                return Err(TemplateError::new(
                    0..text.len(),
                    "a line is one line: it holds no control characters",
                    None,
                ));
            }
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Placeholder(_))) {
            let said = "it says the same of every request: there is no placeholder in it";
            let mut words = ["json", "combined"].into_iter();
            let near = words.find(|word| strsim::damerau_levenshtein(text, word) <= 2);
            return Err(TemplateError::new(0..text.len(), said, near.map(str::to_owned)));
        }
        Ok(Self { pieces, fields })
    }

    /// The fields of the request that it needs, in the order that a record has them.
    pub fn fields(&self) -> &[HeaderName] {
        &self.fields
    }

    pub(super) fn write(&self, line: &mut Vec<u8>, record: &Record<'_>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => line.extend_from_slice(text.as_bytes()),
                Piece::Placeholder(value) => {
                    let before = line.len();
                    value.write(line, record);
                    if line.len() == before {
                        line.push(b'-');
                    }
                }
            }
        }
    }
}

fn value(name: &str, range: Range<usize>, fields: &mut Vec<HeaderName>) -> Result<Value, TemplateError> {
    if let Some(field) = name.strip_prefix(FIELD) {
        return self::field(field, range, fields);
    }
    if let Some((_, logged)) = Logged::ALL.iter().find(|(known, _)| *known == name) {
        return Ok(Value::Logged(*logged));
    }
    if let Some(variable) = Variable::ALL.iter().find(|variable| variable.name() == name) {
        return Ok(Value::Variable(*variable));
    }
    let variables = Variable::ALL.iter().map(|variable| variable.name());
    let known = Logged::ALL.iter().map(|(name, _)| *name).chain(variables);
    let reason = match name {
        "" => "a placeholder has no name".to_owned(),
        name => format!("the access log has no {{{name}}}"),
    };
    let habit = HABITS.iter().find(|(word, _)| *word == name).map(|(_, known)| format!("{{{known}}}"));
    let list = || {
        let names: Vec<&str> = known.clone().collect();
        format!("the placeholders are {}, {FIELD}NAME", names.join(", "))
    };
    match habit.or_else(|| meant(name, known.clone())) {
        Some(near) => Err(TemplateError::new(range, reason, Some(near))),
        None if name.is_empty() => Err(TemplateError::new(range, reason, None)),
        None => Err(TemplateError::new(range, format!("{reason}: {}", list()), None)),
    }
}

fn field(name: &str, range: Range<usize>, fields: &mut Vec<HeaderName>) -> Result<Value, TemplateError> {
    let Ok(name) = name.parse::<HeaderName>() else {
        return Err(TemplateError::new(range, format!("{name:?} is no header field name"), None));
    };
    if SECRETS.contains(&name) {
        return Err(TemplateError::new(range, format!("{name} holds secrets: it is in no log"), None));
    }
    Ok(match name {
        header::REFERER => Value::Referer,
        header::USER_AGENT => Value::UserAgent,
        name => Value::Field(fields.iter().position(|known| *known == name).unwrap_or_else(|| {
            fields.push(name);
            fields.len() - 1
        })),
    })
}

impl Value {
    fn write(self, line: &mut Vec<u8>, record: &Record<'_>) {
        match self {
            Self::Logged(logged) => logged.write(line, record),
            Self::Referer => escaped(line, record.referer.unwrap_or_default()),
            Self::UserAgent => escaped(line, record.user_agent.unwrap_or_default()),
            Self::Field(place) => {
                let field = record.fields.get(place).and_then(Option::as_ref);
                escaped(line, field.map_or(&[], |value| value.as_bytes()));
            }
            Self::Variable(Variable::RequestMethod) => {
                escaped(line, record.method.map_or("", Method::as_str).as_bytes());
            }
            // The record's own has no secrets in it.
            Self::Variable(Variable::RequestQuery) => {
                escaped(line, record.path_and_query().1.unwrap_or_default());
            }
            Self::Variable(variable) => VALUE.with_borrow_mut(|value| {
                value.clear();
                record.variables.variable(variable, value);
                escaped(line, value.as_bytes());
            }),
        }
    }
}

impl Logged {
    fn write(self, line: &mut Vec<u8>, record: &Record<'_>) {
        let mut text = |text: Option<&str>| escaped(line, text.unwrap_or_default().as_bytes());
        match self {
            Self::Protocol => text(record.protocol),
            Self::Listener => text(Some(record.listener.as_str())),
            Self::Host => text(record.host.map(Name::as_str)),
            Self::Tenant => text(record.tenant.map(Name::as_str)),
            Self::Route => text(record.route.map(Name::as_str)),
            Self::Upstream => text(record.upstream.map(Name::as_str)),
            Self::Split => text(record.split.map(Name::as_str)),
            Self::Endpoint => text(record.endpoint),
            Self::Reason => text(record.reason),
            Self::Cause => text(record.cause),
            Self::TraceId => record.trace_id.into_iter().for_each(|id| put::text(line, format_args!("{id}"))),
            Self::User => escaped(line, record.user.unwrap_or_default()),
            Self::Target => escaped(line, record.target.unwrap_or_default()),
            Self::Authority => escaped(line, record.authority.unwrap_or_default()),
            Self::Time => put::time(line, record.time),
            Self::Status => put::number(line, record.status.into()),
            Self::Received => put::number(line, record.received),
            Self::Sent => put::number(line, record.sent),
            Self::Attempts => put::number(line, record.attempts.into()),
            Self::Hedges if record.hedges == 0 => {}
            Self::Hedges => put::number(line, record.hedges.into()),
            Self::Circuit => text(record.circuit),
            Self::Sticky => text(record.sticky),
            Self::Duration => put::milliseconds(line, record.duration),
            Self::FirstByte => record.first_byte.into_iter().for_each(|time| put::milliseconds(line, time)),
            Self::Connect => record.connect.into_iter().for_each(|time| put::milliseconds(line, time)),
            Self::Queued => record.queued.into_iter().for_each(|time| put::milliseconds(line, time)),
            Self::Observed => {
                for (nth, reason) in record.observed.iter().enumerate() {
                    put::text(line, format_args!("{}{}", if nth > 0 { "," } else { "" }, reason.code()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn line(template: &str, record: &Record<'_>) -> String {
        let mut line = Vec::new();
        Template::parse(template).unwrap().write(&mut line, record);
        String::from_utf8(line).unwrap()
    }

    fn refused(template: &str) -> TemplateError {
        Template::parse(template).unwrap_err()
    }

    #[test]
    fn a_line_says_what_the_template_asks_for() {
        let record = Record::for_tests();
        let template = "{client.ip} {request.method} {request.path} {response.status} {duration_ms} {request.id} \
                        {route} {upstream} \"{request.header.user-agent}\"";
        let said = "<client.ip> GET <request.path> 200 1234.567 <request.id> all origin \"curl/8\"";
        assert_eq!(line(template, &record), said);
        assert_eq!(line("{time}\t{{{sent}}}", &record), "2023-11-14T22:13:20.123Z\t{5}");
        assert_eq!(line("{request.target} {request.query}", &record), "/a/b?c=d c=d");
        assert_eq!(line("{tenant} {connect_ms} {reason}", &record), "- - -");
    }

    #[test]
    fn every_name_is_written() {
        let names = Logged::ALL.iter().map(|(name, _)| *name);
        for name in names.chain(Variable::ALL.iter().map(|variable| variable.name())) {
            assert!(!line(&format!("{{{name}}}"), &Record::for_tests()).is_empty(), "{name}");
        }
    }

    #[test]
    fn fields_are_asked_for_once() {
        let template =
            Template::parse("{request.header.X-A} {request.header.x-b} {request.header.x-a}").unwrap();
        assert_eq!(template.fields(), ["x-a", "x-b"]);
        let fields = [Some(HeaderValue::from_static("1")), None];
        let record = Record { fields: &fields, ..Record::for_tests() };
        assert_eq!(line("{request.header.x-a} {request.header.x-b} {request.header.x-a}", &record), "1 - 1");
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_was_meant() {
        assert_eq!(refused("{upstraem}").suggestion.as_deref(), Some("{upstream}"));
        assert_eq!(refused("{status}").suggestion.as_deref(), Some("{response.status}"));
        assert_eq!(refused("{request.hots} {x}").range, 0..14);
        assert_eq!(refused("jsno").suggestion.as_deref(), Some("json"));
        assert_eq!(refused("nothing").suggestion, None);
        assert_eq!(refused("{request.header.}").reason, "\"\" is no header field name");
        assert!(refused("{request.header.Cookie}").reason.contains("secrets"));
        assert!(refused("{route}\n").reason.contains("one line"));
    }

    proptest! {
        #[test]
        fn no_value_ends_a_line_or_its_quotes(agent in prop::collection::vec(any::<u8>(), 0..60)) {
            let record = Record { user_agent: Some(&agent), ..Record::for_tests() };
            let line = line("\"{request.header.user-agent}\"", &record);
            prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            let inside = &line[1..line.len() - 1];
            let mut escaped = false;
            for byte in inside.bytes() {
                prop_assert!(escaped || byte != b'"');
                escaped = !escaped && byte == b'\\';
            }
            prop_assert!(!escaped);
        }
    }
}

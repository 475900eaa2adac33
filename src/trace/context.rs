//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): what ties a request to the one that caused it and to
//! those that it causes.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::hop_by_hop;

/// Names a trace: all that one request at its beginning has caused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// Names a span of a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

/// A place in a trace: what is caused there says that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    pub span: SpanId,
    flags: Flags,
}

/// Whether the trace is recorded, and whether its id is random (level 2, section 3.2.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags(u8);

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;
/// What a field of version 00 has (section 3.2.2); one of a later version may go on after a "-".
const LENGTH: usize = 55;

// === impl Context ===

impl Context {
    /// The beginning of a trace.
    pub fn root(trace: TraceId, is_sampled: bool) -> Self {
        Self { trace, span: SpanId::random(), flags: Flags(u8::from(is_sampled)) }
    }

    /// The place that a request says it was caused at. Two fields, or one that is malformed, are none (section 4.3).
    pub fn given(headers: &HeaderMap) -> Option<Self> {
        if !hop_by_hop::has_rare(headers, &TRACEPARENT) {
            return None;
        }
        let mut fields = headers.get_all(TRACEPARENT).iter();
        match (fields.next(), fields.next()) {
            (Some(field), None) => Self::parse(field.as_bytes()),
            _ => None,
        }
    }

    /// Another place in the same trace.
    pub fn with_span(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    pub fn is_sampled(&self) -> bool {
        self.flags.0 & SAMPLED != 0
    }

    /// The flags as exported spans carry them.
    pub(super) fn flags(&self) -> u32 {
        self.flags.0.into()
    }

    /// As a request says it that is caused there.
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-................................-................-..";
        write_hex(&mut text[3..35], self.trace.0.get());
        write_hex(&mut text[36..52], self.span.0.get().into());
        write_hex(&mut text[53..], self.flags.0.into());
        let mut value = HeaderValue::from_bytes(&text).expect("digits and hyphens are a field value");
        // HPACK leaves it out of its table then, where what never comes again displaces what does.
        value.set_sensitive(true);
        value
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let (version, rest) = part(known, 2)?;
        let (trace, rest) = part(rest, 32)?;
        let (span, rest) = part(rest, 16)?;
        let flags = hex(rest)?;
        let goes_on = match hex(version)? {
            0xff => return None,
            0 => more.is_empty(),
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let flags = Flags(u8::try_from(flags).ok()? & (SAMPLED | RANDOM));
        let trace = TraceId(NonZeroU128::new(hex(trace)?)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(hex(span)?).ok()?)?);
        goes_on.then_some(Self { trace, span, flags })
    }
}

/// Takes away what a request says of its trace.
pub(super) fn take_away(headers: &mut HeaderMap) {
    for name in [TRACEPARENT, TRACESTATE] {
        if hop_by_hop::has_rare(headers, &name) {
            headers.remove(name);
        }
    }
}

/// So many digits, and what follows the hyphen after them.
fn part(text: &[u8], digits: usize) -> Option<(&[u8], &[u8])> {
    let (part, rest) = text.split_at_checked(digits)?;
    Some((part, rest.strip_prefix(b"-")?))
}

/// Lower-case digits alone (section 3.2.2).
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn write_hex(text: &mut [u8], mut number: u128) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

// === impl TraceId ===

impl TraceId {
    pub fn random() -> Self {
        Self(NonZeroU128::new(fastrand::u128(1..)).expect("the range begins with 1"))
    }

    /// As OpenTelemetry's TraceIdRatioBased has it: whoever samples the same share of traces takes the same ones.
    pub fn is_among(self, percent: u8) -> bool {
        // The lower half without its last bit: below that share of 2^63.
        let place = (self.0.get() & u128::from(u64::MAX)) >> 1;
        place < (u128::from(percent) << 63) / 100
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.get().to_be_bytes().to_vec()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl SpanId ===

impl SpanId {
    pub fn random() -> Self {
        Self(NonZeroU64::new(fastrand::u64(1..)).expect("the range begins with 1"))
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.get().to_be_bytes().to_vec()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (TRACEPARENT, HeaderValue::from_str(field).unwrap())).collect()
    }

    #[test]
    fn what_was_given_is_written_as_it_came() {
        let given = Context::given(&headers(&[GIVEN])).unwrap();
        assert!(given.is_sampled());
        assert_eq!(given.traceparent(), GIVEN);
        let trace = given.trace.to_string();
        assert_eq!((trace.as_str(), given.span.to_string().as_str()), (&GIVEN[3..35], &GIVEN[36..52]));
        let child = given.with_span(SpanId::random());
        assert_eq!((child.trace, child.flags), (given.trace, given.flags));
        assert_ne!(child.span, given.span);
    }

    #[test]
    fn only_flags_that_are_known_go_on() {
        let flags = |flags: &str| {
            let given = Context::given(&headers(&[&format!("{}{flags}", &GIVEN[..53])])).unwrap();
            (given.is_sampled(), given.flags.0)
        };
        assert_eq!([flags("00"), flags("ff"), flags("fc")], [(false, 0), (true, 3), (false, 0)]);
    }

    #[test]
    fn later_versions_may_say_more() {
        for more in ["", "-", "-what-the-future-will-be-like"] {
            let given = Context::given(&headers(&[&format!("cc{}{more}", &GIVEN[2..])]));
            assert_eq!(given.unwrap().traceparent(), GIVEN);
        }
    }

    #[test]
    fn what_is_malformed_or_stands_twice_is_nothing() {
        for wrong in [
            "",
            "00",
            &GIVEN[..54],
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
        ] {
            assert_eq!(Context::given(&headers(&[wrong])), None, "{wrong:?}");
        }
        assert_eq!(Context::given(&headers(&[GIVEN, GIVEN])), None);
        assert_eq!(Context::given(&headers(&[])), None);
    }

    #[test]
    fn a_share_of_the_traces_is_taken() {
        let taken = (0..2000).filter(|_| TraceId::random().is_among(25)).count();
        assert!((350..650).contains(&taken), "{taken}");
        assert!((0..100).all(|_| TraceId::random().is_among(100) && !TraceId::random().is_among(0)));
    }
}

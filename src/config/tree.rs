//! One spanned tree, whatever the files' syntax: what includes, overrides, substitution, validation and
//! decoding work on. A map's keys stand once, in the order written.

use crate::value::Span;

/// A value with the place that it was written at.
#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A text as written: what it means is said by where it stands.
#[derive(Clone, Debug)]
pub struct Scalar {
    pub text: Box<str>,
    pub style: Style,
    /// The reference as written where the text came from `${file:…}`; the text is then never shown.
    pub secret: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Quoted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: Box<str>,
    pub span: Span,
}

// === impl Node ===

impl Node {
    pub fn null(span: Span) -> Self {
        Self { span, kind: Kind::Null }
    }

    pub fn map(span: Span, entries: Vec<(Key, Self)>) -> Self {
        Self { span, kind: Kind::Map(entries) }
    }

    pub fn scalar(span: Span, text: impl Into<Box<str>>, style: Style) -> Self {
        Self { span, kind: Kind::Scalar(Scalar { text: text.into(), style, secret: None }) }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&[(Key, Self)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.iter().find(|(k, _)| *k.text == *key).map(|(_, value)| value)
    }

    /// What people call a node of this kind.
    pub fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

// === impl Scalar ===

impl Scalar {
    /// What may be shown: the reference where the text is a secret.
    pub fn shown(&self) -> &str {
        self.secret.as_deref().unwrap_or(&self.text)
    }
}

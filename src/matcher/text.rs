//! What the text of a field, parameter or cookie must be.

use std::fmt;

use regex::bytes::Regex;

use super::{Condition, ConditionMap};
use crate::value::{Spanned, TextOr};

/// A test of a text that may be missing.
#[derive(Clone, Debug)]
pub enum Test {
    Equals(Box<str>),
    Present,
    Absent,
    /// Matches somewhere in the value.
    Regex(Regex),
}

impl Test {
    /// An invalid regular expression comes back as its place and what is wrong with it.
    pub fn compile(condition: &Condition) -> Result<Self, Spanned<String>> {
        Ok(match condition {
            TextOr::Text(text) => Self::Equals(text.as_str().into()),
            TextOr::Map(ConditionMap::Present(true)) => Self::Present,
            TextOr::Map(ConditionMap::Present(false)) => Self::Absent,
            TextOr::Map(ConditionMap::Regex(regex)) => Self::Regex(
                Regex::new(&regex.value).map_err(|error| Spanned::new(error.to_string(), regex.span))?,
            ),
        })
    }

    pub fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Equals(text), Some(value)) => text.as_bytes() == value,
            (Self::Regex(regex), Some(value)) => regex.is_match(value),
            (Self::Present, value) => value.is_some(),
            (Self::Absent, value) => value.is_none(),
            (Self::Equals(_) | Self::Regex(_), None) => false,
        }
    }

    /// Whether no value can pass both.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => false,
            (Self::Absent, _) | (_, Self::Absent) => true,
            (Self::Equals(a), Self::Equals(b)) => a != b,
            (Self::Equals(text), Self::Regex(regex)) | (Self::Regex(regex), Self::Equals(text)) => {
                !regex.is_match(text.as_bytes())
            }
            _ => false,
        }
    }
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Equals(a), Self::Equals(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(text) => write!(f, "is {text:?}"),
            Self::Present => f.write_str("is present"),
            Self::Absent => f.write_str("is absent"),
            Self::Regex(regex) => write!(f, "matches /{regex}/"),
        }
    }
}

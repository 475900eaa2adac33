//! Percentages and ranges of status codes.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A share written as a whole percentage, `0%` to `100%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// A whole percentage above all: `101%` to `10000%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PercentAbove(pub u32);

/// One status code, or a range of them: `200`, `200-299`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRange(pub RangeInclusive<u16>);

super::text_value!(Percent, "percent", "A whole percentage.", "50%");
super::text_value!(PercentAbove, "percent-above", "A whole percentage above 100%.", "125%", "300%");
super::text_value!(StatusRange, "status-range", "A status code or a range of them.", "200", "200-299");

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        percentage(text, 0..=100).map(|value| Self(value as u8))
    }
}

impl FromStr for PercentAbove {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        percentage(text, 101..=10_000).map(Self)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (status(low), status(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Self(low..=high)),
            _ => Err(format!("{text:?} is no status code (100 to 599) or range of them, as 200-299")),
        }
    }
}

fn percentage(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, String> {
    let number =
        text.strip_suffix('%').ok_or_else(|| format!("a percentage is written with its sign, as {text}%"))?;
    let value = number.parse().ok().filter(|value| !number.starts_with('+') && allowed.contains(value));
    value.ok_or_else(|| format!("{text:?} is no percentage from {}% to {}%", allowed.start(), allowed.end()))
}

fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|code| digits && (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_above_all_are_read() {
        assert_eq!("125%".parse::<PercentAbove>().unwrap(), PercentAbove(125));
        for wrong in ["100%", "10001%", "1.25", "+200%"] {
            assert!(wrong.parse::<PercentAbove>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn shares_and_ranges_are_read() {
        assert_eq!("50%".parse::<Percent>().unwrap(), Percent(50));
        assert_eq!("200-299".parse::<StatusRange>().unwrap().0, 200..=299);
        for wrong in ["50", "101%", "+5%", "%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong:?} was read");
        }
        for wrong in ["", "99", "600", "299-200", "2xx"] {
            assert!(wrong.parse::<StatusRange>().is_err(), "{wrong:?} was read");
        }
    }
}

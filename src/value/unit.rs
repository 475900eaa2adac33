//! Quantities with their units written: `30s`, `64KiB`, `100/s`.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// A span of time: a whole number and one of ms, s, m, h, d; several may follow each other (`1h30m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

/// A count of bytes: a whole number and one of B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Bytes in a second: a size, and /s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bandwidth(pub NonZeroU64);

/// The least bytes per second, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeastRate {
    Off,
    Rate(Bandwidth),
}

/// A count in a time: a whole number from 1 and /s, /m or /h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub count: NonZeroU64,
    pub per: RatePeriod,
}

/// The time that a [`Rate`] counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RatePeriod {
    Second,
    Minute,
    Hour,
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

super::text_value!(Duration, "duration", "A time with its unit: ms, s, m, h or d.", "250ms", "30s", "10m");
super::text_value!(
    Size,
    "size",
    "A number of bytes with its unit: B, KB, MB, GB, KiB, MiB or GiB.",
    "64KiB",
    "10MB"
);
super::text_value!(Rate, "rate", "A number in a time: per second, minute or hour.", "100/s", "6000/m");

super::text_value!(
    Bandwidth,
    "bandwidth",
    "A number of bytes in a second, with its unit: B/s, KB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s.",
    "64KiB/s",
    "50MiB/s"
);

super::text_value!(
    LeastRate,
    "least-rate",
    "A number of bytes per second, with its unit: B/s, KB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s; off for none.",
    "240B/s",
    "off"
);

// === impl Duration ===

impl Duration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let mut millis = 0u64;
        if rest.is_empty() {
            return Err("a duration is a number with its unit, as 30s".into());
        }
        while !rest.is_empty() {
            let (number, unit, after) = quantity(rest)?;
            let factor = factor(&DURATION_UNITS, number, unit, "duration")?;
            millis = number
                .checked_mul(factor)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(|| format!("{text} is too long a duration"))?;
            rest = after;
        }
        Ok(Self(std::time::Duration::from_millis(millis)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write_in(f, millis, &DURATION_UNITS)
    }
}

// === impl Size ===

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit, rest) = quantity(text)?;
        if !rest.is_empty() {
            return Err(format!("{rest:?} is left over after {number}{unit}"));
        }
        let factor = factor(&SIZE_UNITS, number, unit, "size")?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("{text} is too large a size"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in(f, self.0, &SIZE_UNITS)
    }
}

// === impl Bandwidth ===

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = match text.split_once('/') {
            Some((size, "s")) => size,
            Some((_, unit)) => {
                return Err(format!("{unit:?} is no time of a bandwidth: it is in a second, /s"));
            }
            None => return Err(format!("a bandwidth needs its time: as 64KiB/s, not {text}")),
        };
        let size = size.parse::<Size>()?;
        NonZeroU64::new(size.0)
            .map(Self)
            .ok_or_else(|| format!("{text} is no bandwidth: it is 1B/s at the least"))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size(self.0.get()))
    }
}

// === impl LeastRate ===

impl FromStr for LeastRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::Rate),
        }
    }
}

impl fmt::Display for LeastRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Rate(rate) => rate.fmt(f),
        }
    }
}

// === impl Rate ===

impl RatePeriod {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((number, unit)) = text.split_once('/') else {
            return Err(format!("a rate needs its time: {text}/s, {text}/m or {text}/h"));
        };
        let per = RatePeriod::ALL.into_iter().find(|per| per.unit() == unit);
        let per = per.ok_or_else(|| format!("{unit:?} is no time of a rate: one of s, m, h"))?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let count = number.parse().ok().filter(|_| digits);
        count
            .map(|count| Self { count, per })
            .ok_or_else(|| format!("{number:?} is no whole number from 1 to {}", u64::MAX))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.unit())
    }
}

// === helpers ===

/// Splits `12ms…` into 12, `ms` and what follows.
fn quantity(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let letters = text[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
    let (number, rest) = text.split_at(digits);
    let (unit, rest) = rest.split_at(letters);
    if number.is_empty() {
        return Err(format!("{text:?} does not start with a whole number"));
    }
    let number = number.parse().map_err(|_| format!("{number} is too large a number"))?;
    Ok((number, unit, rest))
}

fn factor(units: &[(&str, u64)], number: u64, unit: &str, kind: &str) -> Result<u64, String> {
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        return Err(format!("a {kind} needs its unit: {number} and one of {}", names()));
    }
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
        .ok_or_else(|| format!("{unit:?} is no unit of a {kind}: one of {}", names()))
}

/// Writes the value in the largest unit that divides it.
fn write_in(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .filter(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor)
        .unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_unit() {
        assert_eq!("250ms".parse::<Duration>().unwrap().0.as_millis(), 250);
        assert_eq!("1h30m".parse::<Duration>().unwrap().0.as_secs(), 5400);
        assert_eq!("365d".parse::<Duration>().unwrap().0.as_secs(), 365 * 86400);
        for wrong in ["", "30", "s", "3 s", "1.5s", "-1s", "3y", "99999999999999999999s", "10s5"] {
            assert!(wrong.parse::<Duration>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn sizes_are_read_in_their_unit() {
        assert_eq!("64KiB".parse::<Size>().unwrap().0, 65536);
        assert_eq!("10MB".parse::<Size>().unwrap().0, 10_000_000);
        for wrong in ["", "64", "64kib", "1KiB2", "99999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn rates_are_read_with_their_time() {
        let rate: Rate = "6000/m".parse().unwrap();
        assert_eq!((rate.count.get(), rate.per.seconds(), rate.to_string()), (6000, 60, "6000/m".into()));
        for wrong in
            ["", "100", "100/", "/s", "0/s", "1.5/s", "+1/s", "1/d", "1 /s", "99999999999999999999/s"]
        {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn bandwidths_are_bytes_in_a_second() {
        let bandwidth: Bandwidth = "50MiB/s".parse().unwrap();
        assert_eq!((bandwidth.0.get(), bandwidth.to_string()), (50 << 20, "50MiB/s".into()));
        for wrong in ["", "50", "50MiB", "50/s", "50MiB/m", "50Mbit/s", "0KiB/s", "/s", "1MiB/s/s"] {
            assert!(wrong.parse::<Bandwidth>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn a_quantity_is_shown_in_its_largest_unit() {
        assert_eq!("60s".parse::<Duration>().unwrap().to_string(), "1m");
        assert_eq!("64KiB".parse::<Size>().unwrap().to_string(), "64KiB");
        assert_eq!("0s".parse::<Duration>().unwrap().to_string(), "0ms");
    }
}

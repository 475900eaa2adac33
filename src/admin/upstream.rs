//! Orders for an endpoint of an upstream: to drain it, to use it again, to change its weight.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::value::{Address, Name};

/// What is to be done with an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub upstream: Name,
    pub endpoint: Address,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets no new requests but those of its sticky clients.
    Drain,
    /// It gets no new requests.
    DrainAll,
    /// It gets requests again.
    Undrain,
    /// Its weight is another; `None`: the configuration's again.
    Weight(Option<u16>),
}

/// The largest weight, as in the configuration.
pub const HEAVIEST: u16 = 1000;

impl Order {
    /// Reads the query of a request.
    pub fn parse(query: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(key, _)| *key == name).ok_or(format!("the query lacks {name}"))?;
            let value = percent_decode_str(value).decode_utf8();
            value.map(String::from).map_err(|_| format!("{name} is not UTF-8"))
        };
        let upstream = value("upstream")?;
        let endpoint = value("endpoint")?;
        let change = match value("change")?.as_str() {
            "drain" => Change::Drain,
            "drain-all" => Change::DrainAll,
            "undrain" => Change::Undrain,
            "weight" => Change::Weight(match value("weight")?.as_str() {
                "configured" => None,
                weight => Some(self::weight(weight)?),
            }),
            other => {
                return Err(format!("change must be drain, drain-all, undrain or weight (got {other:?})"));
            }
        };
        Ok(Self {
            upstream: upstream.parse().map_err(|error| format!("upstream: {error}"))?,
            endpoint: endpoint.parse().map_err(|error| format!("endpoint: {error}"))?,
            change,
        })
    }

    /// The query that says it.
    pub fn query(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let change = match self.change {
            Change::Drain => "drain".to_owned(),
            Change::DrainAll => "drain-all".to_owned(),
            Change::Undrain => "undrain".to_owned(),
            Change::Weight(None) => "weight&weight=configured".to_owned(),
            Change::Weight(Some(weight)) => format!("weight&weight={weight}"),
        };
        let endpoint = encoded(&self.endpoint.to_string());
        format!("upstream={}&endpoint={endpoint}&change={change}", encoded(self.upstream.as_str()))
    }
}

/// A weight as it is written.
pub fn weight(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(weight @ 1..=HEAVIEST) => Ok(weight),
        Ok(0) => Err("weight must be from 1 to 1000 (got 0); drain the endpoint instead".to_owned()),
        _ => Err(format!("weight must be from 1 to {HEAVIEST} (got {text:?})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        for endpoint in ["10.0.0.1:80", "[::1]:80", "unix:/run/a b&c.sock"] {
            for change in [
                Change::Drain,
                Change::DrainAll,
                Change::Undrain,
                Change::Weight(Some(7)),
                Change::Weight(None),
            ] {
                let order =
                    Order { upstream: "app".parse().unwrap(), endpoint: endpoint.parse().unwrap(), change };
                assert_eq!(Order::parse(&order.query()), Ok(order));
            }
        }
        for wrong in [
            "",
            "upstream=a&endpoint=10.0.0.1:80",
            "upstream=a&endpoint=10.0.0.1:80&change=stop",
            "upstream=a&endpoint=10.0.0.1&change=drain",
            "upstream=A!&endpoint=10.0.0.1:80&change=drain",
            "upstream=a&endpoint=10.0.0.1:80&change=weight",
            "upstream=a&endpoint=10.0.0.1:80&change=weight&weight=0",
            "upstream=a&endpoint=10.0.0.1:80&change=weight&weight=1001",
            "upstream=%ff&endpoint=10.0.0.1:80&change=drain",
        ] {
            assert!(Order::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The schema's formats and the parsers behind them: a text is right when the type that it becomes takes it.

use std::{net::IpAddr, str::FromStr};

use crate::{
    middleware::{
        Source,
        jwt::{Algorithm, KeySet},
        limit::KeyText as LimitKey,
        mtls::{DnsPattern, EmailPattern, Fingerprint, UriPattern},
    },
    store,
    upstream::{
        DeniedAddress,
        config::{BalanceKey, EndpointText, InFlightText},
        retry::{
            After,
            config::{Condition, MethodWord},
        },
    },
    value::{
        Address, Bandwidth, Bind, Cidr, CookieName, CookiePath, DnsName, Duration, FieldName, FilePath,
        HostPort, LeastRate, Method, Name, NameServer, Percent, PercentAbove, Rate, Size, Status,
        StatusRange, Subject, Url,
    },
};

/// Says why a text is no value of a format.
pub type Check = fn(&str) -> Result<(), String>;

const FORMATS: &[(&str, Check)] = &[
    ("ip", ip),
    ("portolan:address", parses::<Address>),
    ("portolan:balance-key", parses::<BalanceKey>),
    ("portolan:bandwidth", parses::<Bandwidth>),
    ("portolan:bind", parses::<Bind>),
    ("portolan:cidr", parses::<Cidr>),
    ("portolan:certificate-fingerprint", parses::<Fingerprint>),
    ("portolan:cookie-name", parses::<CookieName>),
    ("portolan:cookie-path", parses::<CookiePath>),
    ("portolan:credential-source", parses::<Source>),
    ("portolan:denied-address", parses::<DeniedAddress>),
    ("portolan:forward-target", parses::<crate::action::forward::Target>),
    ("portolan:dns-name", parses::<DnsName>),
    ("portolan:dns-pattern", parses::<DnsPattern>),
    ("portolan:duration", parses::<Duration>),
    ("portolan:endpoint", parses::<EndpointText>),
    ("portolan:email-pattern", parses::<EmailPattern>),
    ("portolan:field-name", parses::<FieldName>),
    ("portolan:hedge-after", parses::<After>),
    ("portolan:host-port", parses::<HostPort>),
    ("portolan:in-flight-limit", parses::<InFlightText>),
    ("portolan:jwk-set", parses::<KeySet>),
    ("portolan:jwt-algorithm", parses::<Algorithm>),
    ("portolan:least-rate", parses::<LeastRate>),
    ("portolan:limit-key", parses::<LimitKey>),
    ("portolan:method", parses::<Method>),
    ("portolan:name", parses::<Name>),
    ("portolan:name-server", parses::<NameServer>),
    ("portolan:path", parses::<FilePath>),
    ("portolan:percent", parses::<Percent>),
    ("portolan:percent-above", parses::<PercentAbove>),
    ("portolan:rate", parses::<Rate>),
    ("portolan:redis-url", parses::<store::Address>),
    ("portolan:retry-condition", parses::<Condition>),
    ("portolan:retry-methods", parses::<MethodWord>),
    ("portolan:size", parses::<Size>),
    ("portolan:status", parses::<Status>),
    ("portolan:status-range", parses::<StatusRange>),
    ("portolan:subject", parses::<Subject>),
    ("portolan:uri-pattern", parses::<UriPattern>),
    ("portolan:url", parses::<Url>),
];

/// Formats whose values are written with a unit.
pub const WITH_UNIT: &[&str] = &[
    "portolan:bandwidth",
    "portolan:duration",
    "portolan:least-rate",
    "portolan:size",
    "portolan:rate",
    "portolan:percent",
];

/// The check of a format; one without takes any text.
pub fn check_of(format: &str) -> Option<Check> {
    FORMATS.iter().find(|(name, _)| *name == format).map(|(_, check)| *check)
}

fn parses<T: FromStr<Err = String>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop)
}

fn ip(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| format!("{text:?} is no IP address"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn formats(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Array(items) => items.iter().for_each(|item| formats(item, found)),
            Value::Object(object) => {
                found.extend(object.get("format").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| formats(value, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_format_of_the_schema_has_its_parser() {
        let mut found = Vec::new();
        formats(&crate::config::schema::strict(), &mut found);
        let integers = ["uint8", "uint16", "uint32", "uint64", "int32"];
        for format in found.iter().filter(|format| !integers.contains(&format.as_str())) {
            assert!(FORMATS.iter().any(|(name, _)| name == format), "no parser for {format}");
        }
        for format in WITH_UNIT {
            assert!(FORMATS.iter().any(|(name, _)| name == format));
        }
    }
}

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;

use super::{
    Format, file,
    output::{self, Exit, complain, print},
};
use crate::{
    compile::{Explanation, Query, QueryError, explain},
    snapshot::Snapshot,
    value::Name,
};

/// Shows what would become of a request, and which routes nearly took it
#[derive(Debug, Args)]
pub struct Explain {
    /// The request's method
    method: Method,
    /// An absolute URL: scheme and port choose the listener
    url: String,
    /// A header field of the request, NAME: VALUE
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// It is made to a forward proxy, as by `curl --proxy`: the URL is the target's
    #[arg(long)]
    to_proxy: bool,
    /// The listener, where the URL does not say it
    #[arg(long, value_name = "NAME")]
    listener: Option<Name>,
    /// The configuration [default: ./conf.d/portolan.yaml, ./portolan.yaml or /etc/portolan/portolan.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How it is shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Explain {
    pub fn run(mut self) -> Exit {
        let snapshot = match file::snapshot(self.config.take()) {
            Ok((snapshot, _)) => snapshot,
            Err(exit) => return exit,
        };
        match self.explain(&snapshot) {
            Ok(explanation) => {
                match self.format {
                    Format::Text => print(explanation.to_string()),
                    Format::Json => output::json(&json!(explanation)),
                }
                Exit::Success
            }
            Err(error) => {
                complain(error);
                Exit::Usage
            }
        }
    }

    fn explain(&self, snapshot: &Snapshot) -> Result<Explanation, QueryError> {
        let fields: HeaderMap = self.headers.iter().cloned().collect();
        let mut query = Query::new(self.method.clone(), &self.url, fields)?;
        query.client_ip = self.client_ip;
        query.to_proxy = self.to_proxy;
        query.listener = self.listener.clone();
        match explain(snapshot, &query) {
            // Its port may be any, as with ":0" and behind a port mapping: of one listener there is no doubt.
            Err(QueryError::NoListener { .. }) if snapshot.listeners.len() == 1 => {
                query.listener = snapshot.listeners.keys().next().cloned();
                explain(snapshot, &query)
            }
            other => other,
        }
    }
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a field is written NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no field name"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is no field value"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_curl_reads_them() {
        let (name, value) = field("X-Beta: 1:2").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-beta", &b"1:2"[..]));
        for wrong in ["X-Beta", "a b: 1", ": 1", "a: \0"] {
            assert!(field(wrong).is_err(), "{wrong:?}");
        }
    }
}

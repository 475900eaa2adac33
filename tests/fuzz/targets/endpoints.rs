//! Any content of a file of endpoints, and any text where a name or an address is wanted, is read to an end: what is taken
//! reads the same again, and what is refused is told in one line.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portolan::{
    config::endpoints_file,
    upstream::config::EndpointText,
    value::{DnsName, HostPort, NameServer},
};

fuzz_target!(|content: &[u8]| {
    for name in ["endpoints.yaml", "endpoints.json", "endpoints.toml"] {
        match endpoints_file(Path::new(name), Ok(content.into())) {
            Ok(listed) => {
                for (address, weight) in listed {
                    assert!((1..=1000).contains(&weight));
                    assert_eq!(address.to_string().parse(), Ok(address));
                }
            }
            Err(reason) => assert!(!reason.is_empty()),
        }
    }
    let Ok(text) = std::str::from_utf8(content) else { return };
    let _ = text.parse::<EndpointText>();
    let _ = text.parse::<NameServer>();
    if let Ok(name) = text.parse::<DnsName>() {
        assert!(name.as_str().len() <= 254 && name.without_root().is_ascii());
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    if let Ok(place) = text.parse::<HostPort>() {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
});

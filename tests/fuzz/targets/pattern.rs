//! Any text is refused or read as a pattern of hosts or paths; what was read reads the same again, and
//! trying it on a path or host comes to an end within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::{
    http::{
        authority::Authority,
        path::{EncodedSlash, normalise},
    },
    routing::{HostPattern, PathPattern},
};

fuzz_target!(|texts: (&str, &str)| {
    let (pattern, given) = texts;
    if let Ok(read) = pattern.parse::<HostPattern>() {
        assert_eq!(read.to_string().parse::<HostPattern>().as_ref(), Ok(&read));
        if let Ok(authority) = Authority::parse(given) {
            read.matches(&authority.host);
        }
    }
    if let Ok(read) = pattern.parse::<PathPattern>() {
        assert_eq!(read.to_string(), pattern);
        if let Ok(path) = normalise(given, EncodedSlash::Keep) {
            for range in read.matches(&path).into_iter().flatten() {
                assert!(path.get(range.start as usize..range.end as usize).is_some());
            }
        }
    }
});

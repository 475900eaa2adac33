//! Any bytes are a PROXY header, its beginning, something else or malformed; and what they are does not change with what follows
//! or with how they arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::listen::proxy_protocol::header::{First, MOST, read};

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    if let Ok(First::Header(length, told)) = &whole {
        assert!((15..=MOST).contains(length) && *length <= bytes.len());
        assert_eq!(read(&bytes[..*length]), Ok(First::Header(*length, told.clone())));
        assert_eq!(read(&bytes[..length - 1]), Ok(First::More));
    }
    // Once it is decided, it stays decided.
    let first = (0..=bytes.len()).map(|end| read(&bytes[..end])).find(|read| *read != Ok(First::More));
    assert_eq!(first.unwrap_or(Ok(First::More)), whole);
    assert!(whole != Ok(First::More) || bytes.len() < MOST);
});

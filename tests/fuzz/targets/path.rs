//! Any path is refused or normalised, and normalising it again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::http::path::{EncodedSlash, normalise};

fuzz_target!(|raw: &str| {
    for rule in [EncodedSlash::Reject, EncodedSlash::Keep, EncodedSlash::Decode] {
        let Ok(once) = normalise(raw, rule) else { continue };
        assert_eq!(normalise(&once, rule).as_deref(), Ok(&*once));
        assert!(once.starts_with('/') && once.is_ascii() && !once.contains("//"));
        assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
    }
});

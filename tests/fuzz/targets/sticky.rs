//! Any value of a cookie of sticky sessions is read to an end. Only what was signed is valid, and it is written the same again;
//! a cookie that was changed is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::upstream::sticky::Signer;

fuzz_target!(|data: &[u8]| {
    let signer = Signer::with_key(&[7; 32], "app".parse().expect("a name"));
    if let Ok(ticket) = signer.read(data, 0) {
        assert_eq!(signer.write(&ticket).as_bytes(), data);
    }
    let Some((place, rest)) = data.split_first() else { return };
    let Some(change) = rest.first().copied().filter(|change| *change != 0) else { return };
    let address = "10.0.0.1:80".parse().expect("an address");
    let ticket = signer.ticket(&address, 1000);
    let mut value = signer.write(&ticket).into_bytes();
    assert_eq!(signer.read(&value, 999), Ok(ticket));
    let place = usize::from(*place) % value.len();
    value[place] ^= change;
    assert!(signer.read(&value, 999).is_err());
});

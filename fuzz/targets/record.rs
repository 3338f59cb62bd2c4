//! Any bytes as a stored service: no panic, and what is read once is written and read the same for ever.

#![no_main]

use holdfast::record::{decode_service, encode_service};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(service) = decode_service(bytes) else { return };
    let written = encode_service(&service);
    let again = decode_service(&written).expect("what we wrote is a service");
    assert_eq!(again, service);
    assert_eq!(again.digest(), service.digest());
    assert_eq!(encode_service(&again), written);
});

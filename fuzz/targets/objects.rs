//! Any text as Kubernetes objects, in YAML or JSON: no panic, and what is read can be stored and read again.

#![no_main]

use std::path::Path;

use holdfast::{
    record::{decode_service, encode_service},
    source::{EndpointsMode, manifests},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(reading) = manifests::parse(Path::new("objects.yaml"), text.to_vec(), EndpointsMode::default()) else {
        return;
    };
    for service in reading.records.services.values() {
        assert_eq!(decode_service(&encode_service(service)).expect("what was read can be stored"), **service);
    }
});

//! Any text as a Corefile: no panic; what is translated is a configuration.

#![no_main]

use std::path::Path;

use holdfast::corefile::{Options, Surroundings, parse, translate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(file) = parse(Path::new("Corefile"), text, &Surroundings::NONE) else { return };
    let _ = translate(&file, &Options::default());
});

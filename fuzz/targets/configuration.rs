//! Any text as a configuration file, of an agent and of a hub: no panic; what is taken is shown and taken again.

#![no_main]

use std::path::Path;

use holdfast::config::{Flags, Role, load_str};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for role in [Role::Agent, Role::Hub] {
        let _ = load_str(role, (Path::new("agent.yaml"), text), &Flags::default(), |_| None);
    }
});

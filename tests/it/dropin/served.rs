//! A Corefile as it is served, between a client and scripted upstreams.

use std::path::Path;

use holdfast::{
    config::{self, Flags, Role},
    corefile::{self, Surroundings},
};

use crate::{
    forward::world::{World, no_cluster},
    support::upstream::Upstream,
};

/// Serves the first address of `text`, in which `UP1` is the first upstream.
pub fn serve(text: &str, upstreams: &[&Upstream]) -> World {
    let mut filled = text.to_owned();
    for (at, upstream) in upstreams.iter().enumerate() {
        filled = filled.replace(&format!("UP{}", at + 1), &upstream.address.to_string());
    }
    let file = corefile::parse(Path::new("Corefile"), &filled, &Surroundings::NONE).expect("a Corefile");
    let translation = corefile::translate(&file, &corefile::Options::default());
    let yaml = translation.unwrap_or_else(|errors| panic!("{errors:?}\n{filled}")).yaml;
    let loaded = config::load_str(Role::Agent, (Path::new("Corefile"), &yaml), &Flags::default(), |_| None);
    let config = loaded.unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    World::build(&config.forward(), no_cluster())
}

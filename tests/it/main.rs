//! Tests of the whole: each module is one area, `support` is what they share.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod apiserver;
mod architecture;
mod battery;
mod control_plane;
mod deploy;
mod documents;
mod dropin;
mod encrypted;
mod forward;
mod guard;
mod hostile;
mod hub;
mod logging;
mod manifests;
mod node;
mod outage;
mod panics;
mod server;
mod signals;
mod store_kill;
mod stream;
mod support;
mod tools;
mod wire;

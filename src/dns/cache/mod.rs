//! Answers of upstreams, ready to be sent.
//!
//! Holds bytes and says how old they are. Never asks anybody, and never decides who may speak for a name.

pub mod encode;
pub mod entry;

pub use entry::{Age, Entry, Kind, Parts, limit};

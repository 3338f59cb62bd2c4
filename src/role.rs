//! The jobs of the binary: each wires modules into one pipeline and sees it through to its end.
//!
//! Owns the order of start and stop. Never decides a rule of DNS, of the store or of the stream.

pub mod agent;
mod base;
pub mod descriptors;
mod disk;
mod election;
mod feed;
pub mod hub;
pub mod memory;
mod process;
mod signals;
mod source;
mod source_log;
mod status;
mod supervisor;

pub use process::{Reread, Why};
pub use signals::Signals;

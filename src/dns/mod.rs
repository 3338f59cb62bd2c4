//! Answers on the node: listeners, the one `answer()` they share, and what asks upstreams.
//!
//! Never reads the disk or the source: all it knows of the cluster comes from the store's snapshot.

mod request;

pub use request::{ForwardRequest, Resolve, Resolved, ServedFrom, Transport};

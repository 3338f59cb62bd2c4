//! The one place records live: memory, written by one [`Writer`] and read by everybody through [`Reader`]s.
//!
//! A writer applies a whole [`Update`], publishes the next [`Snapshot`](crate::record::Snapshot) and wakes the followers
//! (disk, stream). A follower compares the snapshot it handled last with the one that stands now, so a slow one skips
//! states and never holds up the writer or a reader.
//!
//! Invariant: readers never wait and never see half of an update.

mod changed;
pub mod disk;
mod freshness;
pub mod guard;
mod memory;
mod metrics;
mod update;

pub use freshness::{Freshness, SourceState};
pub use memory::{Reader, Writer, open, releasable};
pub use metrics::register_metrics;
pub use update::{Applied, ApplyError, Origin, Records, Rejection, Rejections, Update, Upstream, What};

//! Answers of upstreams, ready to be sent, in memory and on disk.
//!
//! Holds bytes and says how old they are. Never asks anybody, and never decides who may speak for a name.

mod bulk;
mod config;
pub mod encode;
pub mod entry;
mod key;
mod memory;
mod metrics;
mod persist;
mod protected;
mod rotate;
mod worker;

pub use self::{
    bulk::BulkDenials,
    config::{Config, Denials, HOLD, Lifetimes},
    entry::{Age, Entry, Kind, Parts, Ready},
    key::{Key, RouteId},
    memory::{Cache, OVERHEAD_BYTES},
    metrics::Metrics,
    persist::{PersistError, load, save, save_unless},
    protected::{End, Hold, Reason},
    rotate::{lead, prefer, rotate},
    worker::{Probe, WorkerCache},
};

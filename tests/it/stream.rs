//! A hub and its followers over connections in memory, with the clock in hand: who is brought up to date how, and what
//! happens when hubs fall silent, lie, leave or come back older.

mod hubs;
mod network;
mod partitions;
mod rig;
mod simulated;
mod slow;
mod verdicts;

pub use rig::metric;
pub use slow::client_by;

//! Bounds on one client's share: places for connections, and rates of answers.
//!
//! Owns which connection is admitted and which is evicted. Pure: no socket, no clock but the one handed in or tokio's; never
//! closes a connection itself, it tells the connection to close.

mod bytes;
mod connections;
mod rate;
mod seldom;
mod shares;
mod turns;

pub use bytes::{ByteBudget, ReservedBytes};
pub use connections::{Activity, Capacity, ConnectionSlot, ConnectionTable, Origin, Refused};
pub use rate::{RateLimiter, Verdict, is_public};
pub use seldom::Seldom;
pub use shares::{FairShares, Share};
pub use turns::{Turn, Turns};

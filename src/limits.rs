//! Bounds on what one client may take from the others: places for connections, and rates of answers.
//!
//! Owns who is admitted and who has to go. Pure: no socket, no clock but the one handed in or tokio's; never closes a
//! connection itself, it tells the connection to go.

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

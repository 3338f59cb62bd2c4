//! Everything that touches the operating system below the standard library: the clock, and all `unsafe`.
//!
//! No other module contains `unsafe`; it is denied crate-wide and allowed in the files here that need it, each block
//! with its `// SAFETY:` reason.

mod batch;
mod clock;
mod datagram;
mod poll;

pub use batch::Batch;
pub use clock::{Clock, ManualClock, UnixMillis};
pub use datagram::{DatagramSocket, Peer};
pub use poll::{Interest, Poll};

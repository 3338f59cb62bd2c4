//! Everything that touches the operating system below the standard library: the clock, files put in place whole, and all
//! `unsafe`.
//!
//! No other module contains `unsafe`; it is denied crate-wide and allowed in the files here that need it, each block
//! with its `// SAFETY:` reason.

mod batch;
mod clock;
mod cpu;
mod datagram;
mod file;
mod poll;

pub use batch::Batch;
pub use clock::{Clock, ManualClock, UnixMillis};
pub use cpu::{pin, take_turns_of};
pub use datagram::{DatagramSocket, Peer};
pub use file::put_file;
pub use poll::{Interest, Poll};

/// The machine's hostname, which is the node's for a pod in the host's network and the pod's otherwise; `localhost` if the
/// system does not say.
#[must_use]
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.to_owned() }
}

//! Everything below the standard library: the clock, files that are replaced whole or set aside, and all
//! `unsafe`.
//!
//! No other module contains `unsafe`; it is denied crate-wide and allowed in the files here that need it, each block
//! with its `// SAFETY:` reason.

mod address;
mod batch;
mod clock;
mod cpu;
mod datagram;
mod descriptors;
pub mod fdstore;
mod file;
mod heap;
mod labels;
mod lock;
mod panics;
mod poll;
mod proc_net;
mod registrar;
pub mod series;
mod signals;
mod stderr;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

pub use address::parse_address;
pub use batch::Batch;
pub use clock::{Clock, ManualClock, UnixMillis};
pub use cpu::{give_way, pin, take_turns_of};
pub use datagram::{DatagramSocket, Peer};
pub use descriptors::{descriptor_limit, raise_descriptor_limit, unacknowledged_bytes};
pub use fdstore::FdStore;
pub use file::{ASIDE_MAX, files_set_aside, put_file, read_file, set_aside, sync_directory};
pub use heap::{Heap, ResidentMemory, give_free_pages_back, keep_little_resident};
pub(crate) use labels::labels;
pub use lock::Lock;
pub use panics::{abort_on_panic, contained};
pub use poll::{Interest, Poll};
pub use proc_net::{WaitingSocket, waiting_socket, waiting_sockets};
pub use registrar::Registrar;
pub use signals::{SignalFd, reap_others, signal_child};
pub use stderr::{LogQueue, log_lines_lost, write_stderr};

/// The source address of packets to other networks, IPv4 or IPv6; `None` without a route. Sends nothing.
pub fn sends_from(ipv4: bool) -> Option<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849): a machine with a default route has a route there.
    let (any, far): (IpAddr, IpAddr) = if ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // For a datagram socket this looks the route up, and no more.
    socket.connect((far, 53)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// The user this process runs as; `None` without `/proc`.
pub fn own_user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}

/// The machine's hostname, which is the node's for a pod in the host's network and the pod's otherwise; `localhost` if the
/// system does not say.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.to_owned() }
}

//! Interfaces and addresses that are removed from the node, as the kernel tells it.

use std::{
    io,
    os::{fd::AsFd, unix::net},
};

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::net::UnixDatagram;

/// Groups of messages about links and addresses (`RTMGRP_…`, rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Bytes read of a message: its header says what it is.
const READ: usize = 256;

/// Reports nothing where the kernel gives no such socket: the regular looks find the missing parts then.
pub(super) struct Removals(Option<UnixDatagram>);

impl Removals {
    pub(super) fn open() -> Self {
        let open = || -> io::Result<_> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.set_non_blocking(true)?;
            // A socket of datagrams as any other, for what is done with it here.
            UnixDatagram::from_std(net::UnixDatagram::from(socket.as_fd().try_clone_to_owned()?))
        };
        Self(open().ok())
    }

    /// Waits for the next removal on the node, of whatever interface.
    pub(super) async fn next(&self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        let mut message = [0; READ];
        loop {
            match socket.recv(&mut message).await {
                Ok(_) if !is_removal(&message) => {}
                // An error is `ENOBUFS`: more came than there is room for.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The kernel sends each of these messages by itself. A long one is cut off, its header is not.
fn is_removal(message: &[u8]) -> bool {
    [libc::RTM_DELLINK, libc::RTM_DELADDR].contains(&NetlinkBuffer::new(message).message_type())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, NetlinkHeader};

    use super::*;

    #[test]
    fn a_removal_is_told_from_what_is_new() {
        for (kind, removal) in [
            (libc::RTM_NEWLINK, false),
            (libc::RTM_DELLINK, true),
            (libc::RTM_NEWADDR, false),
            (libc::RTM_DELADDR, true),
        ] {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            let mut message = [0; READ];
            header.emit(&mut message);
            assert_eq!(is_removal(&message), removal, "{kind}");
        }
    }
}

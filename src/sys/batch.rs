//! A batch of datagrams and their replies, in memory that is allocated once.
//!
//! Knows nothing of DNS. Never allocates after [`Batch::new`].
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
};

use super::datagram::{Control, DatagramSocket, Name, Peer, SEND_FLAGS};

/// Bytes kept of a received datagram; longer ones are cut.
///
/// Above the 1232 bytes that we advertise (RFC 6891, 6.2.3), which is all a client may send.
const RECEIVE_BYTES: usize = 1280;
/// Bytes of one reply: what an Ethernet frame carries of a v4 datagram.
const SEND_BYTES: usize = 1472;

#[repr(C)]
struct Slot {
    name: Name,
    control: Control,
    read: libc::iovec,
    write: libc::iovec,
    query: [u8; RECEIVE_BYTES],
    reply: [u8; SEND_BYTES],
}

#[repr(C)]
struct Memory {
    received: [libc::mmsghdr; Batch::MAX],
    replies: [libc::mmsghdr; Batch::MAX],
    slots: [Slot; Batch::MAX],
}

/// Memory for one batch of datagrams and their replies.
///
/// [`receive`](Self::receive) fills it; each datagram may get one reply ([`exchange`](Self::exchange), then
/// [`reply`](Self::reply)); [`send`](Self::send) sends the replies in the order they were made.
pub struct Batch {
    /// Owned. A raw pointer, since the headers in it point to its other parts.
    memory: NonNull<Memory>,
    received: usize,
    /// Replies made, and how many of them are dealt with.
    replies: usize,
    sent: usize,
    /// The slot that each reply belongs to.
    order: [u8; Batch::MAX],
    /// Headers from here on are as a receive call needs them, `true` if with room for control messages.
    fresh: Option<(usize, bool)>,
}

// SAFETY: the memory is owned by this value alone and holds no pointer to anything else.
unsafe impl Send for Batch {}

impl Batch {
    /// The most datagrams in one batch. More gain nothing measurable and hold up a worker's other sockets.
    pub const MAX: usize = 64;

    pub fn new() -> Self {
        let layout = Layout::new::<Memory>();
        // SAFETY: the layout has a size. All zeros is a valid `Memory`: integers, and null pointers of zero length.
        #[expect(clippy::cast_ptr_alignment, reason = "allocated with the alignment of `Memory`")]
        let memory = unsafe { alloc_zeroed(layout) }.cast::<Memory>();
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        for index in 0..Self::MAX {
            // SAFETY: the pointer is valid for the whole `Memory`, index is in range, there is no other reference.
            unsafe {
                let slot = &raw mut (*memory.as_ptr()).slots[index];
                (*slot).read = libc::iovec { iov_base: (&raw mut (*slot).query).cast(), iov_len: RECEIVE_BYTES };
                (*slot).write = libc::iovec { iov_base: (&raw mut (*slot).reply).cast(), iov_len: 0 };
                let header = &raw mut (*memory.as_ptr()).received[index].msg_hdr;
                (*header).msg_name = (&raw mut (*slot).name).cast();
                (*header).msg_iov = &raw mut (*slot).read;
                (*header).msg_iovlen = 1;
            }
        }
        Self { memory, received: 0, replies: 0, sent: 0, order: [0; Self::MAX], fresh: None }
    }

    /// Receives what is there, at most [`MAX`](Self::MAX) datagrams, and forgets the batch before. With `block` it
    /// waits for the first one.
    ///
    /// # Errors
    /// The errors of `recvmmsg(2)`; `WouldBlock` if nothing is there.
    pub fn receive(&mut self, socket: &DatagramSocket, block: bool) -> io::Result<usize> {
        self.freshen(socket.is_wildcard());
        (self.received, self.replies, self.sent) = (0, 0, 0);
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let count = libc::c_uint::try_from(Self::MAX).expect("64");
        // SAFETY: the headers were set up by `new` and `freshen`: each points to a name, a vector and a control of its
        // own slot with their true lengths, all in memory that lives as long as `self`.
        let received = unsafe {
            let headers = (&raw mut (*self.memory.as_ptr()).received).cast();
            libc::recvmmsg(socket.as_fd().as_raw_fd(), headers, count, flags as _, ptr::null_mut())
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.received = received;
        self.fresh = Some((received, socket.is_wildcard()));
        Ok(received)
    }

    /// Resets the lengths that the last receive call overwrote.
    fn freshen(&mut self, control: bool) {
        let used = match self.fresh {
            Some((used, same)) if same == control => used,
            _ => Self::MAX,
        };
        for index in 0..used {
            // SAFETY: the pointer is valid, index is in range, there is no other reference.
            unsafe {
                let slot = &raw mut (*self.memory.as_ptr()).slots[index];
                let header = &raw mut (*self.memory.as_ptr()).received[index].msg_hdr;
                (*header).msg_namelen = Name::ROOM;
                (*header).msg_control = if control { (&raw mut (*slot).control).cast() } else { ptr::null_mut() };
                (*header).msg_controllen = if control { Control::ROOM as _ } else { 0 };
            }
        }
        self.fresh = Some((0, control));
    }

    fn slot(&self, index: usize) -> &Slot {
        assert!(index < self.received, "datagram {index} of {}", self.received);
        // SAFETY: in range by the line above; shared for as long as `self` is, and the kernel writes only in `receive`.
        unsafe { &(*self.memory.as_ptr()).slots[index] }
    }

    fn length(&self, index: usize) -> usize {
        // SAFETY: as in `slot`.
        let length = unsafe { (*self.memory.as_ptr()).received[index].msg_len };
        (length as usize).min(RECEIVE_BYTES)
    }

    /// A datagram's bytes, and room for its reply.
    ///
    /// # Panics
    /// If fewer were received.
    pub fn exchange(&mut self, index: usize) -> (&[u8], &mut [u8]) {
        assert!(index < self.received, "datagram {index} of {}", self.received);
        let length = self.length(index);
        // SAFETY: in range by the line above; `self` is borrowed mutably, and the two parts do not overlap.
        let slot = unsafe { &mut (*self.memory.as_ptr()).slots[index] };
        (&slot.query[..length], &mut slot.reply)
    }

    /// Where a datagram came from.
    ///
    /// # Panics
    /// If fewer were received.
    pub fn source(&self, index: usize) -> SocketAddr {
        self.slot(index).name.address()
    }

    /// The peer of a datagram, to reply to it later with [`DatagramSocket::send`].
    ///
    /// # Panics
    /// If fewer were received.
    pub fn peer(&self, index: usize) -> Peer {
        let slot = self.slot(index);
        let mut control = slot.control;
        let control_bytes = control.turn_around(self.control_bytes(index));
        Peer { name: slot.name, control, control_bytes }
    }

    fn control_bytes(&self, index: usize) -> usize {
        // SAFETY: as in `slot`.
        let header = unsafe { &(*self.memory.as_ptr()).received[index].msg_hdr };
        if header.msg_control.is_null() { 0 } else { header.msg_controllen as _ }
    }

    /// Makes the first `length` bytes of a datagram's reply room its reply. Once for a datagram.
    ///
    /// # Panics
    /// If fewer were received, or `length` is more than the room, or more replies were made than datagrams received.
    pub fn reply(&mut self, index: usize, length: usize) {
        assert!(index < self.received && length <= SEND_BYTES && self.replies < self.received, "one reply each");
        let control_bytes = self.control_bytes(index);
        let place = self.replies;
        // SAFETY: index and place are below MAX by the line above; the memory has no other reference. The header written points
        // to parts of the slot with their true lengths.
        unsafe {
            let memory = self.memory.as_ptr();
            let slot = &raw mut (*memory).slots[index];
            let asked = &raw const (*memory).received[index].msg_hdr;
            (*slot).write.iov_len = length;
            let header = &raw mut (*memory).replies[place].msg_hdr;
            (*header).msg_name = (&raw mut (*slot).name).cast();
            (*header).msg_namelen = (*asked).msg_namelen.min(Name::ROOM);
            (*header).msg_iov = &raw mut (*slot).write;
            (*header).msg_iovlen = 1;
            let bytes = if control_bytes == 0 { 0 } else { (*slot).control.turn_around(control_bytes) };
            (*header).msg_control = if bytes == 0 { ptr::null_mut() } else { (&raw mut (*slot).control).cast() };
            (*header).msg_controllen = bytes as _;
        }
        self.order[place] = u8::try_from(index).expect("below 64");
        self.replies += 1;
    }

    /// Replies not yet dealt with.
    pub fn unsent(&self) -> usize {
        self.replies - self.sent
    }

    /// Sends replies with one system call, without waiting, and gives the places of the datagrams that they answer.
    ///
    /// # Errors
    /// The errors of `sendmmsg(2)` for the first reply not yet dealt with, which stays so; `WouldBlock` if the send buffer
    /// is full.
    pub fn send(&mut self, socket: &DatagramSocket) -> io::Result<&[u8]> {
        let first = self.sent;
        let count = libc::c_uint::try_from(self.unsent()).expect("at most 64");
        if count > 0 {
            // SAFETY: the headers from `sent` up to `replies` were set up by `reply` and point into memory that lives as
            // long as `self`; the kernel only reads what they point to.
            let sent = unsafe {
                let headers = (&raw mut (*self.memory.as_ptr()).replies[first]).cast();
                libc::sendmmsg(socket.as_fd().as_raw_fd(), headers, count, SEND_FLAGS as _)
            };
            self.sent += usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(&self.order[first..self.sent])
    }

    /// Gives up the first reply not yet dealt with.
    pub fn skip(&mut self) {
        self.sent = self.replies.min(self.sent + 1);
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and nothing in it needs dropping.
        unsafe { dealloc(self.memory.as_ptr().cast(), Layout::new::<Memory>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::UdpSocket};

    use super::*;

    fn bind(address: &str) -> DatagramSocket {
        DatagramSocket::bind(address.parse().unwrap(), true).unwrap()
    }

    fn client(address: &str) -> UdpSocket {
        UdpSocket::bind(address).unwrap()
    }

    /// Replies to everything received with its own bytes backwards.
    fn reverse(batch: &mut Batch, received: usize) {
        for index in 0..received {
            let (query, reply) = batch.exchange(index);
            let length = query.len();
            reply[..length].copy_from_slice(query);
            reply[..length].reverse();
            batch.reply(index, length);
        }
    }

    #[test]
    fn a_batch_is_received_and_replied_to_with_one_call_each() {
        let server = bind("127.0.0.1:0");
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let clients: Vec<_> = (0..3).map(|_| client("127.0.0.1:0")).collect();
        for round in ["abc", "de"] {
            for client in &clients {
                client.send_to(round.as_bytes(), server.address()).unwrap();
            }
            let received = batch.receive(&server, true).unwrap();
            assert_eq!(received, 3);
            let sources: Vec<_> = (0..3).map(|index| batch.source(index)).collect();
            assert_eq!(sources, clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
            reverse(&mut batch, received);
            assert_eq!(batch.unsent(), 3);
            assert_eq!(batch.send(&server).unwrap(), [0, 1, 2]);
            assert_eq!(batch.unsent(), 0);
            for client in &clients {
                let mut room = [0; 8];
                let (length, from) = client.recv_from(&mut room).unwrap();
                assert_eq!(room[..length].iter().rev().copied().collect::<Vec<_>>(), round.as_bytes());
                assert_eq!(from, server.address());
            }
        }
    }

    #[test]
    fn a_wildcard_replies_from_the_address_asked_at_once_and_later() {
        for (server, asked) in [("0.0.0.0:0", "127.0.0.2"), ("0.0.0.0:0", "127.0.0.3"), ("[::]:0", "::1")] {
            let server = bind(server);
            let asked = SocketAddr::new(asked.parse().unwrap(), server.address().port());
            let client = client(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            client.send_to(b"x", asked).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.receive(&server, true).unwrap(), 1);
            let peer = batch.peer(0);
            assert_eq!(peer.address(), client.local_addr().unwrap());
            reverse(&mut batch, 1);
            assert_eq!(batch.send(&server).unwrap(), [0]);
            server.send(b"later", &peer).unwrap();
            for expected in [1, 5] {
                assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (expected, asked));
            }
        }
    }

    #[test]
    fn one_batch_serves_sockets_with_and_without_a_wildcard_in_turn() {
        let servers = [bind("127.0.0.1:0"), bind("0.0.0.0:0"), bind("[::1]:0")];
        let mut batch = Batch::new();
        for server in servers.iter().cycle().take(9) {
            let ip = if server.address().is_ipv4() { "127.0.0.1" } else { "::1" };
            let asked = SocketAddr::new(ip.parse().unwrap(), server.address().port());
            let client = client(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            client.send_to(b"ab", asked).unwrap();
            let received = batch.receive(server, true).unwrap();
            reverse(&mut batch, received);
            assert_eq!(batch.send(server).unwrap(), [0]);
            assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (2, asked));
        }
    }

    #[test]
    fn a_peer_can_be_made_of_an_address() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = (bind(address), client(address));
            from.send(b"abc", &Peer::new(to.local_addr().unwrap())).unwrap();
            assert_eq!(to.recv_from(&mut [0; 8]).unwrap(), (3, from.address()));
            assert_eq!(Peer::new(from.address()).address(), from.address());
        }
    }

    #[test]
    fn long_messages_are_cut_and_surplus_messages_wait() {
        let server = bind("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        client.send_to(&[7; 4_000], server.address()).unwrap();
        for _ in 0..Batch::MAX {
            client.send_to(b"", server.address()).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server, false).unwrap(), Batch::MAX);
        assert_eq!(batch.exchange(0).0, [7; RECEIVE_BYTES]);
        assert_eq!(batch.exchange(1).0, [0_u8; 0]);
        assert_eq!(batch.receive(&server, false).unwrap(), 1);
    }

    #[test]
    fn a_reply_that_cannot_be_sent_is_skipped_alone() {
        let server = bind("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        let mut batch = Batch::new();
        for _ in 0..3 {
            client.send_to(b"x", server.address()).unwrap();
        }
        assert_eq!(batch.receive(&server, true).unwrap(), 3);
        for index in 0..3 {
            batch.reply(index, 1);
        }
        // SAFETY: the slot is in range and has no other reference. Port 0 cannot be sent to.
        unsafe {
            let slot = &raw mut (*batch.memory.as_ptr()).slots[1];
            (*slot).name = Name::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        assert_eq!(batch.send(&server).unwrap(), [0]);
        assert_eq!(batch.send(&server).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        batch.skip();
        assert_eq!(batch.send(&server).unwrap(), [2]);
        assert_eq!(batch.unsent(), 0);
    }

    #[test]
    fn a_diverted_socket_keeps_what_it_has_and_gets_nothing_new() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let leaving = bind(address);
            let mut asked = leaving.address();
            if asked.ip().is_unspecified() {
                asked.set_ip(if asked.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            let clients: Vec<_> =
                (0..32).map(|_| client(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" })).collect();
            clients[0].send_to(b"early", asked).unwrap();
            let staying = DatagramSocket::bind(leaving.address(), true).unwrap();
            leaving.divert().unwrap();
            for client in &clients {
                client.send_to(b"late", asked).unwrap();
            }
            let mut batch = Batch::new();
            assert_eq!(batch.receive(&staying, false).unwrap(), 32, "{address}");
            assert_eq!(batch.receive(&leaving, false).unwrap(), 1, "{address}");
            reverse(&mut batch, 1);
            assert_eq!(batch.send(&leaving).unwrap(), [0]);
            assert_eq!(clients[0].recv_from(&mut [0; 8]).unwrap(), (5, asked));
        }
    }

    #[test]
    fn a_group_spreads_clients_over_its_sockets() {
        let first = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(DatagramSocket::bind(first.address(), true).is_err());
        first.share().unwrap();
        let second = DatagramSocket::bind(first.address(), true).unwrap();
        assert!(DatagramSocket::bind(first.address(), false).is_err());
        let mut seen = HashSet::new();
        for _ in 0..64 {
            client("127.0.0.1:0").send_to(b"x", first.address()).unwrap();
        }
        for (name, socket) in [("first", &first), ("second", &second)] {
            if Batch::new().receive(socket, false).is_ok_and(|received| received > 0) {
                seen.insert(name);
            }
        }
        assert_eq!(seen.len(), 2);
    }
}

//! Messages to the kernel and its answers, over a blocking netlink socket.
//!
//! Owns framing, acknowledgements and dumps, and not the content of messages.

use std::{io, time::Duration};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{Socket, SocketAddr};

/// Attempts at a dump that changes while it is made.
const DUMPS: usize = 8;
/// Longest wait for one answer of the kernel, which gives it within the system call that asks.
const ANSWER: Duration = Duration::from_secs(1);
/// Bytes a message is padded to a multiple of.
const ALIGN: usize = 4;

/// A message without length and sequence of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The message type, in the protocol of its socket.
    pub kind: u16,
    /// Flags besides those that every request has.
    pub flags: u16,
    pub body: Vec<u8>,
}

impl Message {
    /// A message with the bytes of `body`.
    pub(super) fn new(kind: u16, flags: u16, body: &impl Emitable) -> Self {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        Self { kind, flags, body: bytes }
    }
}

/// A socket to one part of the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket for `protocol`, one of `netlink_sys::protocols`.
    ///
    /// # Errors
    /// The system's; `EPROTONOSUPPORT` if the kernel was built without that part.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket2::SockRef::from(&socket).set_read_timeout(Some(ANSWER))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits until the kernel has done it.
    ///
    /// # Errors
    /// The kernel's, as the error of a system call.
    pub(super) fn request(&mut self, message: &Message) -> io::Result<()> {
        let mut bytes = Vec::new();
        let last = self.frame(message, NLM_F_ACK, &mut bytes);
        self.send(&bytes)?;
        self.acknowledged(last)
    }

    /// Sends several messages in one datagram, framed by `begin` and `end`, and waits until the kernel has done all of
    /// them. It does all or none.
    ///
    /// # Errors
    /// The first thing the kernel says against it.
    pub(super) fn batch(&mut self, begin: &Message, messages: &[Message], end: &Message) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.frame(begin, 0, &mut bytes);
        let mut last = self.sequence;
        for message in messages {
            last = self.frame(message, NLM_F_ACK, &mut bytes);
        }
        self.frame(end, 0, &mut bytes);
        self.send(&bytes)?;
        self.acknowledged(last)
    }

    /// Asks for everything of a kind; returns the answers without their headers.
    ///
    /// # Errors
    /// The kernel's, or `Interrupted` if the dumped table keeps changing.
    pub(super) fn dump(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMPS {
            let mut bytes = Vec::new();
            let sequence = self.frame(message, NLM_F_DUMP, &mut bytes);
            self.send(&bytes)?;
            if let Some(found) = self.dumped(sequence)? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "it changes faster than it can be read"))
    }

    fn dumped(&mut self, sequence: u32) -> io::Result<Option<Vec<Vec<u8>>>> {
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (header, body) in messages(&datagram) {
                if header.sequence_number != sequence {
                    continue;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE => return Ok(whole.then_some(found)),
                    NLMSG_ERROR => return Err(error_of(body).unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
                    NLMSG_NOOP => {}
                    _ => found.push(body.to_vec()),
                }
            }
        }
    }

    fn acknowledged(&mut self, last: u32) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (header, body) in messages(&datagram) {
                if header.message_type != NLMSG_ERROR {
                    continue;
                }
                match error_of(body) {
                    Some(error) => return Err(error),
                    None if header.sequence_number == last => return Ok(()),
                    None => {}
                }
            }
        }
    }

    /// Appends a message with its header, and gives its number.
    fn frame(&mut self, message: &Message, flags: u16, bytes: &mut Vec<u8>) -> u32 {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        let length = header.buffer_len() + message.body.len();
        header.length = u32::try_from(length).expect("messages of a few hundred bytes");
        header.message_type = message.kind;
        header.flags = NLM_F_REQUEST | message.flags | flags;
        header.sequence_number = self.sequence;
        let start = bytes.len();
        bytes.resize(start + header.buffer_len(), 0);
        header.emit(&mut bytes[start..]);
        bytes.extend_from_slice(&message.body);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The messages of a datagram with their bodies, up to the first that does not parse.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(rest).ok()?;
        let mut header = NetlinkHeader::default();
        (header.length, header.message_type, header.flags) = (buffer.length(), buffer.message_type(), buffer.flags());
        header.sequence_number = buffer.sequence_number();
        let length = usize::try_from(header.length).ok()?;
        let body = &rest[header.buffer_len()..length];
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((header, body))
    })
}

/// The error in the body of an answer; none if it is an acknowledgement.
fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = body.first_chunk().map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_its_messages_and_no_further() {
        let mut bytes = Vec::new();
        let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        for body in [&b"abcde"[..], b""] {
            netlink.frame(&Message { kind: 20, flags: 0, body: body.to_vec() }, 0, &mut bytes);
        }
        let whole: Vec<_> = messages(&bytes).map(|(header, body)| (header.sequence_number, body.to_vec())).collect();
        assert_eq!(whole, [(1, b"abcde".to_vec()), (2, Vec::new())]);
        for length in 0..bytes.len() {
            assert!(messages(&bytes[..length]).count() <= 1, "{length}");
        }
    }

    /// Routes are asked for by threads that answer DNS.
    #[test]
    fn no_answer_is_waited_for_without_end() {
        let netlink = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        let waits = socket2::SockRef::from(&netlink.socket).read_timeout().unwrap();
        assert_eq!(waits, Some(ANSWER));
    }

    #[test]
    fn an_error_is_told_from_an_acknowledgement() {
        assert!(error_of(&0_i32.to_ne_bytes()).is_none());
        assert_eq!(error_of(&(-libc::EPERM).to_ne_bytes()).unwrap().raw_os_error(), Some(libc::EPERM));
        assert_eq!(error_of(b"a").unwrap().raw_os_error(), Some(libc::EBADMSG));
        assert!(error_of(&i32::MIN.to_ne_bytes()).is_some());
    }
}

//! UDP sockets that know which of their addresses was asked, and what it takes to reply from there.
//!
//! Knows nothing of DNS. Never blocks.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A UDP socket that any number of threads may use at once.
#[derive(Debug)]
pub struct DatagramSocket {
    fd: OwnedFd,
    address: SocketAddr,
}

impl DatagramSocket {
    /// Binds to `address`. Its family is the socket's: a v6 one never takes v4 traffic.
    ///
    /// With `shared` it joins other sockets of this user that were bound the same way (`SO_REUSEPORT`), and the kernel
    /// spreads clients over them. Bound to a wildcard, it learns the address that each datagram was sent to.
    ///
    /// # Errors
    /// The errors of `bind(2)`.
    pub fn bind(address: SocketAddr, shared: bool) -> io::Result<Self> {
        Self::bind_early(address, shared, false)
    }

    /// The same; with `early` also to an address that no interface has yet (`IP_FREEBIND`).
    ///
    /// # Errors
    /// The errors of `bind(2)`.
    pub fn bind_early(address: SocketAddr, shared: bool, early: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(shared)?;
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(early)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(early)?,
        }
        if early {
            // Answers under way when the address goes leave from it all the same. Takes CAP_NET_ADMIN, and is no must.
            let _ = match address {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
            };
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if address.ip().is_unspecified() {
            let (level, option) = match address {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            switch_on(socket.as_fd(), level, option)?;
        }
        socket.bind(&address.into())?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { fd: socket.into(), address })
    }

    /// A socket that another process bound with [`bind`](Self::bind).
    ///
    /// # Errors
    /// If it is no such socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let address = SockRef::from(&fd).local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd, address })
    }

    /// Lets others of this user bind to its address from now on, and joins them (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The errors of `setsockopt(2)`.
    pub fn share(&self) -> io::Result<()> {
        SockRef::from(&self.fd).set_reuse_port(true)
    }

    /// The address it is bound to, with the port that the kernel chose if 0 was asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether each datagram says which address it was sent to.
    pub(super) fn is_wildcard(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// Asks the kernel for room for `bytes` of datagrams not yet received. It may give less.
    ///
    /// # Errors
    /// The errors of `setsockopt(2)`.
    pub fn set_receive_room(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(&self.fd).set_recv_buffer_size(bytes)
    }

    /// Takes the socket out of the group it shares its port with: from now on only what is already queued is received,
    /// and new datagrams go to the other sockets of the group.
    ///
    /// Linux gives a connected socket only the datagrams of its peer and passes it over when it spreads the others
    /// (`reuseport_select_sock`), so it is connected to itself. Replies to others still leave through it.
    ///
    /// # Errors
    /// The errors of `connect(2)`.
    pub fn divert(&self) -> io::Result<()> {
        let mut itself = self.address;
        if itself.ip().is_unspecified() {
            itself.set_ip(if itself.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        SockRef::from(&self.fd).connect(&itself.into())
    }

    /// The socket as the standard library has it, which does not block.
    ///
    /// # Errors
    /// The errors of `fcntl(2)`.
    pub fn into_std(self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from(self.fd);
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Sends one datagram to `peer`, from the address it asked.
    ///
    /// # Errors
    /// The errors of `sendmsg(2)`; `WouldBlock` if the send buffer is full.
    pub fn send(&self, bytes: &[u8], peer: &Peer) -> io::Result<()> {
        let mut peer = *peer;
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: all zeros is a valid msghdr: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut peer.name).cast();
        header.msg_namelen = peer.name.bytes();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if peer.control_bytes > 0 {
            header.msg_control = ptr::from_mut(&mut peer.control).cast();
            header.msg_controllen = peer.control_bytes as _;
        }
        // SAFETY: name, vector, control and `bytes` outlive the call, their lengths are the ones given, and the kernel
        // only reads them.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, SEND_FLAGS) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

fn switch_on(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = libc::socklen_t::try_from(size_of_val(&on)).expect("four");
    // SAFETY: the value is a c_int that outlives the call, and its size is the one given.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const on).cast(), bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A client, and which of our addresses it asked: what a reply needs. Given by a [`Batch`](super::Batch).
#[derive(Clone, Copy)]
pub struct Peer {
    pub(super) name: Name,
    pub(super) control: Control,
    /// 0 if the socket is bound to one address, which then is the one asked.
    pub(super) control_bytes: usize,
}

impl Peer {
    /// A peer that is sent to from whatever address routing chooses.
    pub fn new(address: SocketAddr) -> Self {
        Self { name: address.into(), control: Control([0; Control::ROOM / 8]), control_bytes: 0 }
    }

    pub fn address(&self) -> SocketAddr {
        self.name.address()
    }
}

/// A socket address of either family as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    pub(super) const ROOM: libc::socklen_t = 28;

    fn family(&self) -> libc::sa_family_t {
        // SAFETY: both variants begin with the family, and every bit pattern is a valid integer.
        unsafe { self.v4.sin_family }
    }

    fn is_v6(&self) -> bool {
        self.family() == FAMILY_V6
    }

    fn bytes(&self) -> libc::socklen_t {
        if self.is_v6() { Self::ROOM } else { 16 }
    }

    pub(super) fn address(&self) -> SocketAddr {
        if self.is_v6() {
            // SAFETY: plain integers, initialised by the kernel or zero.
            let v6 = unsafe { self.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into()
        } else {
            // SAFETY: plain integers, initialised by the kernel or zero.
            let v4 = unsafe { self.v4 };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
        }
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all zeros is a valid address of either family.
        let mut name: Self = unsafe { mem::zeroed() };
        match address {
            SocketAddr::V4(address) => {
                name.v4.sin_family = FAMILY_V4;
                name.v4.sin_port = address.port().to_be();
                name.v4.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            }
            SocketAddr::V6(address) => {
                name.v6.sin6_family = FAMILY_V6;
                name.v6.sin6_port = address.port().to_be();
                name.v6.sin6_flowinfo = address.flowinfo();
                name.v6.sin6_addr.s6_addr = address.ip().octets();
                name.v6.sin6_scope_id = address.scope_id();
            }
        }
        name
    }
}

/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` control message.
#[derive(Clone, Copy)]
pub(super) struct Control([u64; Control::ROOM / 8]);

#[repr(C)]
#[derive(Clone, Copy)]
struct Message<T> {
    header: libc::cmsghdr,
    info: T,
}

impl Control {
    /// The larger of the two, rounded up as `CMSG_SPACE` does.
    pub(super) const ROOM: usize = 40;

    /// Turns what came with a datagram (`bytes` of it) into what its reply carries, and gives the bytes of that.
    ///
    /// The address asked becomes the source. The interface is left to routing, as the way back may be another one,
    /// except for link-local addresses, which mean nothing without it.
    pub(super) fn turn_around(&mut self, bytes: usize) -> usize {
        let header = size_of::<libc::cmsghdr>();
        if bytes < header {
            return 0;
        }
        // SAFETY: `Control` is aligned as and larger than a cmsghdr, whose every bit pattern is valid.
        let found = unsafe { *self.0.as_ptr().cast::<libc::cmsghdr>() };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if bytes >= size_of::<Message<libc::in_pktinfo>>() => {
                // SAFETY: `Control` is aligned for and has room for the message; plain integers follow the header.
                let message = unsafe { &mut *self.0.as_mut_ptr().cast::<Message<libc::in_pktinfo>>() };
                message.info.ipi_ifindex = 0;
                32
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if bytes >= header + size_of::<libc::in6_pktinfo>() => {
                // SAFETY: as above.
                let message = unsafe { &mut *self.0.as_mut_ptr().cast::<Message<libc::in6_pktinfo>>() };
                if !Ipv6Addr::from(message.info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    message.info.ipi6_ifindex = 0;
                }
                40
            }
            _ => 0,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "2")]
const FAMILY_V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "10")]
const FAMILY_V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

const _: () = {
    assert!(size_of::<Name>() == Name::ROOM as usize);
    assert!(size_of::<Message<libc::in_pktinfo>>() <= Control::ROOM);
    assert!(size_of::<Message<libc::in6_pktinfo>>() <= Control::ROOM);
};

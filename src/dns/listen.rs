//! Opens the sockets: all of them before anything is served, and an error that says what to do.
//!
//! Never reads from them.

mod holder;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::holder::{Holder, holder};
use super::{Config, Transport};
use crate::sys::{DatagramSocket, FdStore};

/// Datagrams that may queue in the kernel while a worker is busy, in bytes of its accounting; `net.core.rmem_max` caps
/// it.
const RECEIVE_ROOM_BYTES: usize = 1 << 20;
/// Connections that may queue until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 1_024;
/// Bytes of answers that the kernel holds for a TCP client; it doubles the number. The longest answer has 64 KiB.
const SEND_ROOM_BYTES: usize = 64 << 10;
/// Ports tried until one is free for both UDP and TCP, when any will do.
const TRIES: usize = 64;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The list is empty.
    #[error("no address to listen on: name at least one")]
    NoAddress,
    /// Another socket has the port.
    #[error("cannot listen on {protocol} {address}: the port is taken{}; stop what has it, or listen elsewhere", by(.holder.as_ref()))]
    Taken {
        protocol: &'static str,
        address: SocketAddr,
        /// The process that has it, if that can be seen.
        holder: Option<Holder>,
    },
    #[error(
        "no permission to listen on {protocol} {address}: grant the capability CAP_NET_BIND_SERVICE, or set the sysctl \
         net.ipv4.ip_unprivileged_port_start to {} or less",
        .address.port()
    )]
    Denied { protocol: &'static str, address: SocketAddr },
    /// No interface has the address.
    #[error(
        "cannot listen on {protocol} {address}: no interface of this host has the address; add it, or listen on another"
    )]
    NotHere { protocol: &'static str, address: SocketAddr },
    /// Anything else.
    #[error("cannot listen on {protocol} {address}: {error}")]
    Other { protocol: &'static str, address: SocketAddr, error: io::Error },
}

fn by(holder: Option<&Holder>) -> String {
    // Processes of other containers and users are not seen.
    let unseen = || " by a process that is not seen from here (`ss -lunpt` as root on the node names it)".to_owned();
    holder.map_or_else(unseen, |holder| format!(" by {holder}"))
}

impl BindError {
    pub(super) fn new(protocol: &'static str, address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { protocol, address, holder: holder(protocol, address) },
            io::ErrorKind::PermissionDenied => Self::Denied { protocol, address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { protocol, address },
            _ => Self::Other { protocol, address, error },
        }
    }
}

/// Open sockets, not yet served. Clients already queue.
#[derive(Debug)]
pub struct Bound {
    pub(super) config: Config,
    pub(super) addresses: Vec<SocketAddr>,
    /// A list for each worker, in the order of `addresses`.
    pub(super) workers: Vec<Vec<Arc<DatagramSocket>>>,
    /// In the order of `addresses`.
    pub(super) listeners: Vec<TcpListener>,
    #[cfg(feature = "encrypted")]
    pub(super) encrypted: super::encrypted::Bound,
}

impl Bound {
    /// The addresses listened on, in the order asked, each with its true port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of encrypted transports, each with its true port.
    pub fn encrypted_addresses(&self) -> Vec<(Transport, SocketAddr)> {
        #[cfg(feature = "encrypted")]
        return self.encrypted.addresses().collect();
        #[cfg(not(feature = "encrypted"))]
        Vec::new()
    }
}

/// Opens every socket that `config` asks for.
///
/// # Errors
/// The first address that cannot be listened on; nothing stays open then.
pub fn bind(config: Config) -> Result<Bound, BindError> {
    if config.listen.is_empty() {
        return Err(BindError::NoAddress);
    }
    let mut bound = Bound {
        addresses: Vec::with_capacity(config.listen.len()),
        workers: vec![Vec::new(); config.workers.max(1)],
        listeners: Vec::new(),
        #[cfg(feature = "encrypted")]
        encrypted: super::encrypted::bind(&config.encrypted, config.join, config.early)?,
        config,
    };
    for asked in bound.config.listen.clone() {
        let (join, early) = (bound.config.join, bound.config.early);
        let inherited = Inherited::of(asked);
        // Sockets of the process before share the port.
        let (first, listener) = match inherited.pair() {
            Some(pair) => pair,
            None => open_pair(asked, join, early)?,
        };
        let address = first.address();
        let mut first = Some(first);
        for (number, worker) in bound.workers.iter_mut().enumerate() {
            let socket = match first.take().or_else(|| inherited.udp(number)) {
                Some(socket) => socket,
                None => DatagramSocket::bind_early(address, true, early)
                    .map_err(|error| BindError::new("udp", address, error))?,
            };
            // Less room only means that a burst is dropped sooner, which the kernel counts.
            let _ = socket.set_receive_room(RECEIVE_ROOM_BYTES);
            inherited.keep(&format!("udp {number}"), socket.as_fd());
            worker.push(Arc::new(socket));
        }
        inherited.keep("tcp", listener.as_fd());
        bound.addresses.push(address);
        bound.listeners.push(listener);
    }
    Ok(bound)
}

/// The sockets of one configured address that a parent process keeps, if there is one.
struct Inherited {
    store: Option<&'static FdStore>,
    /// As configured: port 0 is one port for as long as the parent lives.
    asked: SocketAddr,
}

impl Inherited {
    fn of(asked: SocketAddr) -> Self {
        Self { store: FdStore::inherited(), asked }
    }

    /// The socket of the first worker and the listener; both or none.
    fn pair(&self) -> Option<(DatagramSocket, TcpListener)> {
        let (udp, tcp) = (self.udp(0), self.store?.take(&self.label("tcp")));
        Some((udp?, tcp?.into()))
    }

    fn udp(&self, worker: usize) -> Option<DatagramSocket> {
        DatagramSocket::from_fd(self.store?.take(&self.label(&format!("udp {worker}")))?).ok()
    }

    fn keep(&self, what: &str, socket: BorrowedFd<'_>) {
        if let Some(store) = self.store {
            store.keep(&self.label(what), socket);
        }
    }

    fn label(&self, what: &str) -> String {
        format!("{what} {}", self.asked)
    }
}

/// A datagram socket and a listener on one port, both ready to be joined by others of this user.
fn open_pair(asked: SocketAddr, join: bool, early: bool) -> Result<(DatagramSocket, TcpListener), BindError> {
    let mut tries = TRIES;
    loop {
        let socket = open_udp(asked, join, early).map_err(|error| BindError::new("udp", asked, error))?;
        let address = socket.address();
        match open_tcp(address, join, early) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if asked.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tries > 0 => tries -= 1,
            Err(error) => return Err(BindError::new("tcp", address, error)),
        }
    }
}

/// Unless joining, the port is taken alone first, so that one in use is found out even if its owner would share it (and
/// so that the kernel does not choose such a one for port 0), and opened to others then.
pub(super) fn open_udp(address: SocketAddr, join: bool, early: bool) -> io::Result<DatagramSocket> {
    let socket = DatagramSocket::bind_early(address, join, early)?;
    socket.share()?;
    Ok(socket)
}

pub(super) fn open_tcp(address: SocketAddr, join: bool, early: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections that linger in TIME_WAIT must not keep a restart from its port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(join)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(early)?;
    } else {
        socket.set_freebind_v4(early)?;
    }
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    // Connections inherit it. Less room only means that an answer is sent in more steps.
    let _ = socket.set_send_buffer_size(SEND_ROOM_BYTES);
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn config(listen: &[&str]) -> Config {
        Config {
            listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
            workers: 3,
            ..Config::default()
        }
    }

    #[test]
    fn port_0_is_one_port_for_udp_and_tcp_and_all_workers() {
        let bound = bind(config(&["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"])).unwrap();
        assert_eq!(bound.addresses().len(), 4);
        for (place, &address) in bound.addresses().iter().enumerate() {
            assert_ne!(address.port(), 0);
            assert_eq!(bound.listeners[place].local_addr().unwrap(), address);
            for worker in &bound.workers {
                assert_eq!(worker[place].address(), address);
            }
        }
    }

    #[test]
    fn what_the_kernel_said_is_said_once() {
        let error = BindError::new("tcp", "127.0.0.1:53".parse().unwrap(), io::Error::from_raw_os_error(24));
        assert_eq!(error.to_string(), "cannot listen on tcp 127.0.0.1:53: Too many open files (os error 24)");
        assert!(std::error::Error::source(&error).is_none(), "who prints causes would say it again");
    }

    #[test]
    fn a_taken_port_names_who_has_it() {
        let me = format!("(pid {})", std::process::id());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap().to_string();
        let error = bind(config(&[&address])).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on udp {address}: the port is taken by ")), "{error}");
        assert!(error.contains(&me), "{error}");

        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        let error = bind(config(&[&address])).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on tcp {address}: the port is taken by ")), "{error}");
        assert!(error.contains(&me), "{error}");
    }

    #[test]
    fn a_port_that_would_be_shared_is_taken_unless_we_join() {
        let first = bind(config(&["127.0.0.1:0"])).unwrap();
        let address = first.addresses()[0].to_string();
        assert!(matches!(bind(config(&[&address])), Err(BindError::Taken { protocol: "udp", .. })));
        let joined = bind(Config { join: true, ..config(&[&address]) }).unwrap();
        assert_eq!(joined.addresses(), first.addresses());
    }

    #[test]
    fn an_address_may_come_later_where_that_is_said() {
        // TEST-NET-1 (RFC 5737) and its like for v6 (RFC 3849) are on no host.
        let asked = config(&["192.0.2.1:0", "[2001:db8::1]:0"]);
        assert!(matches!(bind(asked.clone()), Err(BindError::NotHere { .. })));
        assert_eq!(bind(Config { early: true, ..asked }).unwrap().addresses().len(), 2);
    }

    #[test]
    fn what_cannot_be_bound_says_what_to_do() {
        // TEST-NET-1 (RFC 5737) is on no host.
        let error = bind(config(&["192.0.2.1:5353"])).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot listen on udp 192.0.2.1:5353: no interface of this host has the address; add it, or listen on another"
        );
        assert_eq!(bind(config(&[])).unwrap_err().to_string(), "no address to listen on: name at least one");
        let denied = BindError::new("udp", "0.0.0.0:53".parse().unwrap(), io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            denied.to_string(),
            "no permission to listen on udp 0.0.0.0:53: grant the capability CAP_NET_BIND_SERVICE, or set the sysctl \
             net.ipv4.ip_unprivileged_port_start to 53 or less"
        );
    }
}

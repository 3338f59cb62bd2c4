//! Sockets of this network namespace, from `/proc/net`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A socket that waits for clients: a TCP listener, or an unconnected UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingSocket {
    pub local: SocketAddr,
    pub inode: String,
}

/// The waiting sockets of `protocol` (`udp` or `tcp`), IPv4 before IPv6.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn waiting_sockets(protocol: &str) -> io::Result<Vec<WaitingSocket>> {
    let table = |family| fs::read_to_string(format!("/proc/net/{protocol}{family}"));
    // A kernel without IPv6 has no such table.
    let (v4, v6) = (table("")?, table("6").unwrap_or_default());
    Ok([v4, v6].iter().flat_map(|table| table.lines().skip(1).filter_map(waiting_socket)).collect())
}

/// The socket on a line of `/proc/net/{udp,tcp}{,6}`, if it waits.
pub fn waiting_socket(line: &str) -> Option<WaitingSocket> {
    let mut columns = line.split_ascii_whitespace();
    let (local, state) = (columns.nth(1)?, columns.nth(1)?);
    let (ip, port) = local.split_once(':')?;
    let local = SocketAddr::new(read_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    let inode = columns.nth(5)?.to_owned();
    // 0A is LISTEN, 07 is what an unconnected datagram socket shows.
    matches!(state, "0A" | "07").then_some(WaitingSocket { local, inode })
}

/// An address as the kernel prints it there: 32-bit words in the order of the machine.
fn read_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for place in 0..4 {
                octets[place * 4..place * 4 + 4].copy_from_slice(&word(place * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

//! Finds out which process has a port, for an error message. Reads `/proc`, and gives up quietly where that says nothing.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name, as `ps` shows it.
    pub name: String,
    pub pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name.escape_default(), self.pid)
    }
}

/// Who has a socket on `address`, or on a wildcard of its port.
pub(super) fn holder(protocol: &str, address: SocketAddr) -> Option<Holder> {
    // A v6 wildcard may hold a v4 port too.
    let inode = ["", "6"].iter().find_map(|family| {
        let table = fs::read_to_string(format!("/proc/net/{protocol}{family}")).ok()?;
        table.lines().skip(1).find_map(|line| inode_on(line, address).map(str::to_owned))
    })?;
    owner(&format!("socket:[{inode}]"))
}

/// The inode of the socket on this line of `/proc/net/{udp,tcp}{,6}`, if it is in the way of `address`.
fn inode_on(line: &str, address: SocketAddr) -> Option<&str> {
    let mut columns = line.split_ascii_whitespace();
    let (local, state) = (columns.nth(1)?, columns.nth(1)?);
    let (ip, port) = local.split_once(':')?;
    let ip = read_ip(ip)?;
    let in_the_way = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    // 0A is LISTEN, 07 is what an unconnected datagram socket shows.
    let waits = matches!(state, "0A" | "07");
    let inode = columns.nth(5)?;
    (u16::from_str_radix(port, 16) == Ok(address.port()) && in_the_way && waits).then_some(inode)
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

/// The process with a file descriptor that links to `socket`. Only those of this user can be seen without privileges.
fn owner(socket: &str) -> Option<Holder> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.filter_map(Result::ok).any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder { name: name.trim_end().to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let listening = "   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 20345 1 0 100 0";
        let wildcard = "   1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0 0";
        let connected =
            "   2: 0100007F:0035 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000   101        0 20346 1 0";
        for (line, address, expected) in [
            (listening, "127.0.0.1:53", Some("20345")),
            (listening, "0.0.0.0:53", Some("20345")),
            (listening, "127.0.0.2:53", None),
            (listening, "127.0.0.1:54", None),
            (wildcard, "[::1]:53", Some("777")),
            (wildcard, "10.0.0.1:53", Some("777")),
            (connected, "127.0.0.1:53", None),
            ("  sl  local_address", "127.0.0.1:53", None),
        ] {
            assert_eq!(inode_on(line, address.parse().unwrap()), expected, "{line} {address}");
        }
    }
}

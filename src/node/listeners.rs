//! Which processes listen at the node's addresses, as `/proc` tells it.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Of `ips`, those at which another process listens for DNS over UDP on `port`. A process that listens at all addresses listens
/// at each.
pub fn used_by_others(ips: &[IpAddr], port: u16) -> Vec<IpAddr> {
    let own = own_sockets();
    let mut found = Vec::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let others = text.lines().skip(1).filter_map(socket).filter(|socket| socket.port == port);
        for other in others.filter(|socket| !own.contains(&socket.inode)) {
            // A v6 wildcard may take v4 as well.
            let takes =
                |ip: &&IpAddr| **ip == other.ip || (other.ip.is_unspecified() && (ip.is_ipv4() || other.ip.is_ipv6()));
            found.extend(ips.iter().filter(takes));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    ip: IpAddr,
    port: u16,
    inode: String,
}

/// The inodes of the sockets of this process.
fn own_sockets() -> HashSet<String> {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok();
    open.filter_map(target).filter_map(|to| Some(to.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// An unconnected socket on a line of `/proc/net/udp{,6}`.
fn socket(line: &str) -> Option<Socket> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = columns.get(1)?.split_once(':')?;
    // 07 is what an unconnected datagram socket shows.
    (*columns.get(3)? == "07").then_some(())?;
    Some(Socket { ip: read_ip(ip)?, port: u16::from_str_radix(port, 16).ok()?, inode: (*columns.get(9)?).to_owned() })
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            "  12: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 20345 2 0 0";
        let read = socket(line).unwrap();
        assert_eq!((read.ip, read.port, read.inode.as_str()), ("127.0.0.1".parse().unwrap(), 53, "20345"));
        assert_eq!(socket(&line.replace(" 07 ", " 01 ")), None, "connected");
        for bad in ["", "x", "  sl  local_address rem_address   st", "0: 0100007F 0 07"] {
            assert_eq!(socket(bad), None, "{bad}");
        }
    }

    #[test]
    fn own_sockets_are_no_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        assert!(used_by_others(&[at.ip()], at.port()).is_empty());
    }
}

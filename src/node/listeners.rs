//! Which processes listen at the node's addresses, as `/proc` tells it.

use std::{collections::HashSet, fs, net::IpAddr};

use crate::sys;

/// Of `ips`, those at which another process listens for DNS over UDP on `port`. A process that listens at all addresses listens
/// at each.
pub fn used_by_others(ips: &[IpAddr], port: u16) -> Vec<IpAddr> {
    let own = own_sockets();
    let sockets = sys::waiting_sockets("udp").into_iter();
    let mut found = Vec::new();
    for other in sockets.filter(|socket| socket.local.port() == port && !own.contains(&socket.inode)) {
        let at = other.local.ip();
        // An IPv6 wildcard may take IPv4 as well.
        let takes = |ip: &&IpAddr| **ip == at || (at.is_unspecified() && (ip.is_ipv4() || at.is_ipv6()));
        found.extend(ips.iter().filter(takes));
    }
    found.sort();
    found.dedup();
    found
}

/// The inodes of the sockets of this process.
fn own_sockets() -> HashSet<String> {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok();
    open.filter_map(target).filter_map(|to| Some(to.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::waiting_socket as socket;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            "  12: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 20345 2 0 0";
        let read = socket(line).unwrap();
        assert_eq!((read.local, read.inode.as_str()), ("127.0.0.1:53".parse().unwrap(), "20345"));
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

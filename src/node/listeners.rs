//! Which processes listen at the node's addresses, as `/proc` tells it.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
};

use crate::sys;

/// Of `ips`, those at which another process listens for DNS over UDP on `port`. A process that listens at all addresses listens
/// at each.
pub fn used_by_others(ips: &[IpAddr], port: u16) -> Vec<IpAddr> {
    let own = own_sockets();
    let sockets = sys::waiting_sockets("udp").unwrap_or_default().into_iter();
    let mut found = Vec::new();
    for other in sockets.filter(|socket| !own.contains(&socket.inode)) {
        found.extend(ips.iter().filter(|ip| takes(other.local, (**ip, port).into())));
    }
    found.sort();
    found.dedup();
    found
}

/// Whether no process listens for DNS over UDP at `address`. False if the kernel does not say.
pub(super) fn is_closed(address: SocketAddr) -> bool {
    sys::waiting_sockets("udp").is_ok_and(|sockets| !sockets.iter().any(|socket| takes(socket.local, address)))
}

/// Whether a socket at `local` gets packets to `address`. An IPv6 wildcard may take IPv4 as well.
fn takes(local: SocketAddr, address: SocketAddr) -> bool {
    let at = local.ip();
    let wildcard = at.is_unspecified() && (address.is_ipv4() || at.is_ipv6());
    local.port() == address.port() && (at == address.ip() || wildcard)
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
    fn a_port_at_which_no_process_listens_is_closed() {
        for (local, address, takes) in [
            ("169.254.20.10:53", "169.254.20.10:53", true),
            ("169.254.20.10:54", "169.254.20.10:53", false),
            ("10.96.0.10:53", "169.254.20.10:53", false),
            ("0.0.0.0:53", "169.254.20.10:53", true),
            ("[::]:53", "169.254.20.10:53", true),
            ("[::]:53", "[fd00::10]:53", true),
            ("0.0.0.0:53", "[fd00::10]:53", false),
        ] {
            assert_eq!(super::takes(local.parse().unwrap(), address.parse().unwrap()), takes, "{local} {address}");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        assert!(!is_closed(at));
        assert!(is_closed("127.0.0.1:1".parse().unwrap()), "tcpmux, over UDP");
    }

    #[test]
    fn own_sockets_are_no_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        assert!(used_by_others(&[at.ip()], at.port()).is_empty());
    }
}

//! Finds the process that has a port, for an error message. Reads `/proc`; without an entry there it finds none.

use std::{fmt, fs, net::SocketAddr};

use crate::sys;

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

/// The process with a socket on `address`, or on a wildcard of its port; `None` if it is not seen from here.
pub fn holder(protocol: &str, address: SocketAddr) -> Option<Holder> {
    let socket =
        sys::waiting_sockets(protocol).ok()?.into_iter().find(|socket| is_in_the_way(socket.local, address))?;
    owner(&format!("socket:[{}]", socket.inode))
}

/// True if a socket at `local` keeps another from `address`. An IPv6 wildcard may hold an IPv4 port too.
fn is_in_the_way(local: SocketAddr, address: SocketAddr) -> bool {
    let ips = local.ip() == address.ip() || local.ip().is_unspecified() || address.ip().is_unspecified();
    local.port() == address.port() && ips
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
            let address = address.parse().unwrap();
            let inode = sys::waiting_socket(line).filter(|socket| is_in_the_way(socket.local, address));
            assert_eq!(inode.map(|socket| socket.inode).as_deref(), expected, "{line} {address}");
        }
    }
}

//! File descriptors: as many as the system gives, and limits that fit into them.
//!
//! A process without a descriptor left can neither accept nor ask an upstream nor write its store, so what clients can take is
//! bounded below the limit, and the rest is kept for probes, the admin socket and the disk.

use tracing::{info, warn};

use crate::{dns, stream, sys};

/// Descriptors that clients never get: three listeners of probes, metrics and the admin socket with some 200 connections each,
/// and some 60 for the disk, the runtime and DNS sockets.
const RESERVED: usize = 660;
/// The least that stays for clients, however low the limit.
const CLIENTS_MIN: usize = 32;

/// Raises the soft limit to the hard one, and says so.
pub fn raise() {
    match sys::raise_descriptor_limit() {
        Ok(before) if before.current != before.maximum => {
            info!(from = before.current, to = before.maximum, "raised the limit of open files");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of open files; connections may be refused earlier"),
    }
}

/// Descriptors that clients may take.
fn for_clients() -> usize {
    usize::try_from(sys::descriptor_limit().current.unwrap_or(u64::MAX))
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED)
        .max(CLIENTS_MIN)
}

/// Lowers the limits of an agent's listeners to the open files of the system.
pub(super) fn fit_dns(config: &mut dns::Config) {
    // Half stays for sockets to upstreams.
    let room = for_clients() / 2;
    if config.tcp.connections_max > room {
        warn!(
            wanted = config.tcp.connections_max,
            used = room,
            "the limit of open files is too low for tcp.max_connections: raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
        config.tcp.connections_max = room;
    }
    dns::forward::limit_sockets(room);
}

/// Lowers the limits of a hub's stream to the open files of the system.
pub(super) fn fit_stream(config: &mut stream::Config) {
    let room = for_clients();
    let wanted = config.connections_max + config.unfinished_max;
    if wanted > room {
        config.unfinished_max = config.unfinished_max.min(room / 4);
        config.connections_max = config.connections_max.min(room - config.unfinished_max);
        warn!(
            wanted,
            agents = config.connections_max,
            "the limit of open files is too low for a large fleet: raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_reserve_fit_into_the_limit() {
        let limit = usize::try_from(sys::descriptor_limit().current.unwrap()).unwrap();
        let mut stream = stream::Config { connections_max: usize::MAX / 2, ..stream::Config::default() };
        fit_stream(&mut stream);
        assert_eq!(stream.connections_max + stream.unfinished_max, for_clients());
        assert!(for_clients() == CLIENTS_MIN || for_clients() + RESERVED == limit);
        let mut dns = dns::Config::default();
        dns.tcp.connections_max = usize::MAX;
        fit_dns(&mut dns);
        assert_eq!(dns.tcp.connections_max, for_clients() / 2);
    }
}

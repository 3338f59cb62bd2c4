//! The clients that may ask, by listening address.
//!
//! Owns the decision; the networks of this node are handed in. If the system does not tell them, every client may ask:
//! a node without DNS is worse than a stranger with it.

use std::{
    collections::HashSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tracing::error;

use crate::{limits::is_public, sys::Lock};

/// The least time between two looks at what is local to the node. A pod is plugged in longer than that before it asks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// This node and the pods on it.
    NodeLocal,
    /// Every client in a network.
    Net(IpNet),
}

/// Tells the networks of this node and its pods.
pub type NodeLocal = fn() -> io::Result<Vec<IpNet>>;

/// The allowed clients. Empty: all.
#[derive(Clone, Default)]
pub struct Access {
    /// At every address, if there are any.
    pub allow: Vec<Allow>,
    /// Addresses where only this node and its pods may ask, as long as `allow` is empty.
    pub node_local_at: Vec<IpAddr>,
    pub node_local: Option<NodeLocal>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("allow", &self.allow)
            .field("node_local_at", &self.node_local_at)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// The listeners open to every network: wildcards and public addresses without an `allow` list.
    pub fn open(&self, listen: &[SocketAddr]) -> Vec<SocketAddr> {
        let anybody = |address: &&SocketAddr| self.allow.is_empty() && !self.node_local_at.contains(&address.ip());
        let reached = |address: &&SocketAddr| address.ip().is_unspecified() || is_public(address.ip());
        listen.iter().filter(anybody).filter(reached).copied().collect()
    }

    /// The guards of these listeners, in their order; none where every client may ask.
    pub(super) fn guards(&self, listen: &[SocketAddr]) -> Vec<Option<Arc<Guard>>> {
        let neighbours = self.node_local.map(|look| Arc::new(Neighbours::new(look)));
        let nets = self.allow.iter().filter_map(|allow| if let Allow::Net(net) = allow { Some(*net) } else { None });
        let guard = |nets: Vec<IpNet>, local: bool| {
            let neighbours = if local { neighbours.clone() } else { None };
            Arc::new(Guard { nets, neighbours })
        };
        let given = guard(nets.collect(), self.allow.contains(&Allow::NodeLocal));
        let local = guard(Vec::new(), true);
        let of = |address: &SocketAddr| {
            if !self.allow.is_empty() {
                Some(Arc::clone(&given))
            } else if self.node_local_at.contains(&address.ip()) && local.neighbours.is_some() {
                Some(Arc::clone(&local))
            } else {
                None
            }
        };
        listen.iter().map(of).collect()
    }
}

/// The clients that may ask at an address.
#[derive(Debug)]
pub(super) struct Guard {
    nets: Vec<IpNet>,
    neighbours: Option<Arc<Neighbours>>,
}

impl Guard {
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&client))
            || self.neighbours.as_ref().is_some_and(|neighbours| neighbours.contain(client))
    }
}

/// Networks as they are asked about: most pods have a route of their own.
#[derive(Debug, Default)]
struct Networks {
    hosts: HashSet<IpAddr>,
    nets: Vec<IpNet>,
    /// The system did not tell.
    all: bool,
}

impl Networks {
    fn of(told: io::Result<Vec<IpNet>>) -> Self {
        let Ok(told) = told else { return Self { all: true, ..Self::default() } };
        let (hosts, nets): (Vec<IpNet>, Vec<IpNet>) =
            told.into_iter().partition(|net| net.prefix_len() == net.max_prefix_len());
        Self { hosts: hosts.into_iter().map(|net| net.addr()).collect(), nets, all: false }
    }

    fn contain(&self, client: IpAddr) -> bool {
        self.all || self.hosts.contains(&client) || self.nets.iter().any(|net| net.contains(&client))
    }
}

/// This node and its pods, looked at again when an unknown client asks.
#[derive(Debug)]
struct Neighbours {
    told: NodeLocal,
    seen: ArcSwap<Networks>,
    looked: Lock<Option<Instant>>,
}

impl Neighbours {
    fn new(look: NodeLocal) -> Self {
        Self { told: look, seen: ArcSwap::default(), looked: Lock::default() }
    }

    fn contain(&self, client: IpAddr) -> bool {
        self.seen.load().contain(client) || {
            self.look();
            self.seen.load().contain(client)
        }
    }

    /// Looks at the networks again, unless this or another thread did just now.
    fn look(&self) {
        let mut looked = self.looked.lock();
        if looked.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return;
        }
        let told = (self.told)();
        if let Err(error) = &told
            && !self.seen.load().all
        {
            error!(%error, "cannot read the routing tables: allow is not applied, all clients are answered");
        }
        self.seen.store(Arc::new(Networks::of(told)));
        *looked = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it has the type of one that may fail")]
    fn look() -> io::Result<Vec<IpNet>> {
        Ok(vec!["10.244.1.5/32".parse().unwrap(), "10.1.0.0/16".parse().unwrap()])
    }

    fn guards(access: &Access) -> Vec<Option<Arc<Guard>>> {
        access.guards(&["169.254.20.10:53".parse().unwrap(), "10.0.0.7:53".parse().unwrap()])
    }

    fn allowed(guard: Option<&Guard>) -> Vec<bool> {
        ["10.244.1.5", "10.1.2.3", "192.0.2.1", "fd00::1"]
            .map(|client| guard.is_none_or(|guard| guard.allows(client.parse().unwrap())))
            .into()
    }

    #[test]
    fn pods_alone_may_ask_at_the_addresses_of_the_node_and_anybody_elsewhere() {
        let node_local_at = vec!["169.254.20.10".parse().unwrap()];
        let access = Access { node_local_at, node_local: Some(look), allow: vec![] };
        let guards = guards(&access);
        assert_eq!(allowed(guards[0].as_deref()), [true, true, false, false]);
        assert!(guards[1].is_none());
    }

    #[test]
    fn a_wildcard_or_public_address_without_allow_is_open() {
        let listen: Vec<SocketAddr> = ["0.0.0.0:53", "192.0.2.1:53", "10.0.0.7:53", "169.254.20.10:53", "[::1]:53"]
            .map(|address| address.parse().unwrap())
            .into();
        assert_eq!(Access::default().open(&listen), listen[..2]);
        let allow = vec![Allow::NodeLocal];
        assert!(Access { allow, ..Access::default() }.open(&listen).is_empty());
    }

    #[test]
    fn who_is_named_may_ask_everywhere_and_nobody_else() {
        let allow = vec![Allow::Net("192.0.2.0/24".parse().unwrap())];
        let access = Access { allow: allow.clone(), node_local: Some(look), node_local_at: vec![] };
        for guard in guards(&access) {
            assert_eq!(allowed(guard.as_deref()), [false, false, true, false]);
        }
        let both = Access { allow: [allow, vec![Allow::NodeLocal]].concat(), ..access };
        for guard in guards(&both) {
            assert_eq!(allowed(guard.as_deref()), [true, true, true, false]);
        }
    }

    #[test]
    fn the_first_to_ask_may_do_so_at_the_same_time() {
        let access = Access { allow: vec![Allow::NodeLocal], node_local: Some(look), node_local_at: vec![] };
        let client = "10.244.1.5".parse().unwrap();
        for _ in 0..50 {
            let guard = guards(&access)[0].clone().unwrap();
            let gate = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        gate.wait();
                        assert!(guard.allows(client));
                    });
                }
            });
        }
    }

    #[test]
    fn anybody_may_ask_while_the_system_does_not_tell() {
        let broken = || Err(io::ErrorKind::Other.into());
        let access = Access { allow: vec![Allow::NodeLocal], node_local: Some(broken), node_local_at: vec![] };
        assert_eq!(allowed(guards(&access)[0].as_deref()), [true; 4]);
        assert!(guards(&Access::default()).iter().all(Option::is_none));
    }
}

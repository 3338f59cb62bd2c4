//! The node itself: the interface with the addresses that pods ask, the rules that keep the kernel from tracking their
//! queries, and what the process may do.
//!
//! Owns [`Config`], the errors of a setup and their counter. Never answers a query and never reads a record.

mod error;
mod hosts_file;
mod interface;
mod listeners;
mod metrics;
mod netlink;
mod nft;
pub mod parent;
pub mod privileges;
mod routes;
mod setup;
pub mod status;
pub mod watch;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64;

pub use error::{ErrorType, SetupError};
pub use hosts_file::{HostsBlock, HostsError, put_block};
pub use interface::addresses_of;
pub use listeners::used_by_others;
pub use metrics::Metrics;
pub use routes::{node_local, own_addresses};
pub use setup::{Goal, Outcome, Step, approach, check, is_released, reach, was_set_up};

/// The parts of the node to set up.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    pub interface: String,
    /// Make the interface, and again if somebody removes it.
    pub setup_interface: bool,
    /// Make the rules, and again if somebody removes them.
    pub setup_notrack: bool,
    /// The addresses of the interface and of the rules.
    pub local_ips: Vec<IpAddr>,
    pub dns_port: u16,
    /// Where health is asked for; tracked no more than DNS if that is one of `local_ips`.
    pub health: Option<SocketAddr>,
    /// How long nothing may be answered before the cluster's DNS gets the queries; `None` for ever.
    pub intercept_failsafe: Option<Duration>,
    /// The addresses that the cluster's DNS has too.
    pub failsafe_ips: Vec<IpAddr>,
    /// Leave everything in place at an orderly end.
    pub skip_teardown: bool,
    /// The cluster's zone: `kubernetes.default.svc` of it is asked for, to see whether DNS is answered.
    pub zone: String,
    /// The cluster's DNS, at an address that is not one of `local_ips`.
    pub fallback: Vec<SocketAddr>,
    /// The name of the agent with these addresses, see [`agent_name`].
    pub agent: Option<String>,
    /// The hosts file of the node with a block of ours, which goes when the node is torn down by hand.
    pub hosts_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interface: "nodelocaldns".into(),
            setup_interface: false,
            setup_notrack: false,
            local_ips: Vec::new(),
            dns_port: 53,
            health: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            intercept_failsafe: Some(Duration::from_secs(3)),
            failsafe_ips: Vec::new(),
            skip_teardown: true,
            zone: "cluster.local".into(),
            fallback: Vec::new(),
            agent: None,
            hosts_file: None,
        }
    }
}

impl Config {
    /// Whether there is anything to set up.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.setup_interface || self.setup_notrack
    }

    /// The name for which one watch at a time keeps these addresses.
    fn seat(&self) -> String {
        let mut ips: Vec<String> = self.local_ips.iter().map(ToString::to_string).collect();
        ips.sort();
        format!("{}-{:016x}", self.interface, xxh3_64(ips.join(",").as_bytes()))
    }
}

/// The name under which an agent that listens at these addresses is found in its network namespace, whatever it sees of the
/// file system: of an abstract unix socket. None for ports that the kernel chooses.
pub fn agent_name(listen: &[SocketAddr]) -> Option<String> {
    if listen.is_empty() || listen.iter().any(|address| address.port() == 0) {
        return None;
    }
    let mut listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    listen.sort();
    Some(format!("holdfast-agent-{:016x}", xxh3_64(listen.join(",").as_bytes())))
}

/// Whether an address means something on its own link only (RFC 3927; RFC 4291, 2.5.6), so that nobody else can have it
/// in the meantime.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

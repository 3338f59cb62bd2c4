//! The node itself: the interface with the addresses that pods ask, the rules that keep the kernel from tracking their
//! queries, and what the process may do.
//!
//! Owns [`Config`], the errors of a setup and their counter. Never answers a query and never reads a record.

mod error;
mod interface;
mod metrics;
mod netlink;
mod nft;
pub mod privileges;
mod routes;
mod setup;
pub mod watch;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use error::{ErrorType, SetupError};
pub use interface::addresses_of;
pub use metrics::Metrics;
pub use routes::{node_local, own_addresses};
pub use setup::{Goal, Outcome, Step, check, is_released, reach};

/// What is to be set up on the node.
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
    /// How long nothing may be answered before `failsafe_ips` are given back; `None` for ever.
    pub intercept_failsafe: Option<Duration>,
    /// The addresses given back then.
    pub failsafe_ips: Vec<IpAddr>,
    /// Leave everything in place at an orderly end.
    pub skip_teardown: bool,
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
            intercept_failsafe: None,
            failsafe_ips: Vec::new(),
            skip_teardown: true,
        }
    }
}

impl Config {
    /// Whether there is anything to set up.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.setup_interface || self.setup_notrack
    }
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

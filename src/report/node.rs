//! The row of the node: the interface an agent sets up, which process keeps it, and how often the answering process died.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Time;
use crate::sys::labels;

labels! {
    /// The kind of process that keeps interface and rules.
    #[derive(Serialize, Deserialize)]
    #[cfg_attr(test, derive(schemars::JsonSchema))]
    #[serde(rename_all = "snake_case")]
    pub enum KeeperKind {
        /// The watch that an agent started.
        Agent = "agent",
        /// `holdfast node watch`: a container or a unit of its own.
        Resident = "resident",
    }
}

labels! {
    /// `taken`: answered by this agent; `waiting`: not yet; `released`: given to the cluster's DNS.
    #[derive(Default, Serialize, Deserialize)]
    #[cfg_attr(test, derive(schemars::JsonSchema))]
    #[serde(rename_all = "snake_case")]
    pub enum AddressState {
        /// Not taken yet: this agent cannot answer as well as the cluster's DNS.
        #[default]
        Waiting = "waiting",
        /// This agent answers at all of them.
        Taken = "taken",
        /// Given to the cluster's DNS, as the agent did not answer.
        Released = "released",
    }
}

/// The one process that keeps these addresses, and the rules for them, on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Keeper {
    pub kind: KeeperKind,
    /// Its process ID, in its own process namespace.
    pub pid: u32,
    /// Start of its keeping.
    #[serde(alias = "since_ms")]
    pub since: Time,
    pub interface: String,
    pub addresses: Vec<IpAddr>,
    /// Its version.
    pub holdfast: String,
}

impl Keeper {
    /// As in `the watch of an agent (pid 42, 0.1.0) for 3h2m (since 09:12:44 UTC)`.
    pub fn words(&self, now: Time) -> String {
        let Self { kind, pid, since, holdfast, .. } = self;
        let kind = match kind {
            KeeperKind::Agent => "the watch of an agent",
            KeeperKind::Resident => "`holdfast node watch`",
        };
        format!("{kind} (pid {pid}, {holdfast}) for {}", since.lasting(now))
    }
}

/// The interface and its addresses, of an agent that sets them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InterfaceStatus {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub state: AddressState,
    /// Start of the present state.
    #[serde(alias = "since_ms")]
    pub since: Time,
    /// Why the addresses are not answered here; null if they are.
    pub reason: Option<String>,
    /// Another process keeps interface and rules.
    pub kept_elsewhere: bool,
    /// The process that keeps interface and rules; null if it is not known.
    #[serde(default)]
    pub keeper: Option<Keeper>,
}

/// How often the answering process died. The file beside the admin socket has the same, while no process answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deaths {
    pub count: u64,
    /// When it last died.
    #[serde(alias = "last_at_ms")]
    pub last_at: Time,
    /// As in `was killed by signal 9`.
    pub how: String,
    /// The last error line of the process; null if it left none.
    pub error: Option<String>,
    /// The answering process runs again.
    pub running: bool,
}

/// The file beside the admin socket of an agent that waits until another process leaves its ports or its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub since: Time,
    pub reason: String,
    /// The port that the other process has, if that is the reason.
    pub port: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// Deaths of the answering process under its present parent; null if it never died.
    pub deaths: Option<Deaths>,
    pub interface: Option<InterfaceStatus>,
}

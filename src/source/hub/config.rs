//! The settings and the surroundings of a follower.

use std::time::Duration;

use tokio::sync::watch;

use super::{Dial, Metrics, Status};
use crate::{source::Learnt, store::Reader, sys::Clock};

#[derive(Clone, Debug)]
pub struct Config {
    /// HOST:PORT of hubs, as configured.
    pub addresses: Vec<String>,
    /// This node's name; unique among hubs if it is one.
    pub node: String,
    /// HOST:PORT where this node serves the stream itself; empty for agents.
    pub serves: String,
    /// Silence after which a hub counts as gone.
    pub silence: Duration,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    pub retry_max: Duration,
    /// Age of records after which another hub is looked for.
    pub stale_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            node: String::new(),
            serves: String::new(),
            silence: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            retry_max: Duration::from_secs(10),
            stale_after: Duration::from_secs(60),
        }
    }
}

/// The inputs of a follower.
pub struct Parts {
    /// The store that takes the updates.
    pub reader: Reader,
    pub clock: Clock,
    pub metrics: Metrics,
    pub dial: Dial,
    pub learnt: Learnt,
    /// Told where the follower stands.
    pub status: watch::Sender<Status>,
}

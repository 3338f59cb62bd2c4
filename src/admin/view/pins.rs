//! A pin, as the tools print it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::dns::pins::Pin;

/// A name that an operator pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PinDoc {
    /// The name, with its final dot.
    pub name: String,
    /// The addresses of A and AAAA answers.
    pub addresses: Vec<IpAddr>,
    /// TTL of the answers, in seconds.
    pub ttl: u32,
    /// Since when.
    pub since: Time,
    /// The end of the pin; null for no end.
    pub until: Option<Time>,
    /// The reason that the operator gave.
    pub reason: Option<String>,
}

impl From<Pin> for PinDoc {
    fn from(Pin { name, addresses, ttl, since, until, reason }: Pin) -> Self {
        Self { name, addresses, ttl, since: Time(since), until: until.map(Time), reason }
    }
}

//! The row of the queries that an agent received in the last minute.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Counts of the last minute; of less, if the process started later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QueriesStatus {
    /// The time that was counted, in seconds: 60, or less after a start.
    pub seconds: u64,
    /// Queries received.
    pub received: u64,
    /// Answers with SERVFAIL.
    pub servfail: u64,
    /// Queries dropped, by reason, as in `holdfast_dns_drops_total`.
    pub dropped: BTreeMap<String, u64>,
    /// Queries answered SERVFAIL because too many queries of their client wait for upstreams.
    pub over_share: u64,
    /// TCP and QUIC connections closed at once, by reason, as in `holdfast_dns_tcp_refused_total`.
    pub connections_refused: BTreeMap<String, u64>,
    /// The client that was refused most, of those queries and connections.
    pub most_refused: Option<IpAddr>,
}

//! The probe: one small question that tells whether the server is there, and whether it is the one we know.

use super::{
    decode, request,
    server::{Failure, Server},
};
use crate::source::Metrics;

/// Largest answer, in bytes: the metadata of one namespace.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// The version the cluster is at, if it is a number.
    pub(super) version: Option<u64>,
    pub(super) cluster: Option<String>,
}

/// Asks.
///
/// Of a server that was out of reach, first whether it takes a TCP connection: that costs it next to nothing. A server that
/// answers is not knocked at, for it would log a handshake that never came.
pub(super) async fn probe(
    server: Server,
    metrics: Metrics,
    out_of_reach: bool,
    answer: std::time::Duration,
) -> Result<Probed, Failure> {
    if out_of_reach {
        server.knock().await?;
    }
    let body = server.send(request::probe(), answer, &metrics).await?.whole(ANSWER_BYTES_MAX, answer).await?;
    let (cluster, version) = decode::probe(&body).map_err(Failure::Garbage)?;
    Ok(Probed { version: version.and_then(|version| version.parse().ok()), cluster })
}

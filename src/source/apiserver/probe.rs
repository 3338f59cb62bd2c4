//! The probe: one small request that tells whether the server is there, and whether it is the one we know.

use super::{
    decode, request,
    server::{Failure, Server},
};

/// Largest answer, in bytes: the metadata of one namespace.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// The version the cluster is at, if it is a number.
    pub(super) version: Option<u64>,
    pub(super) cluster: Option<String>,
}

pub(super) async fn probe(server: Server) -> Result<Probed, Failure> {
    let patience = server.patience();
    let body = server.send(request::probe(), patience).await?.whole(ANSWER_BYTES_MAX, patience).await?;
    let (cluster, version) = decode::probe(&body).map_err(Failure::Garbage)?;
    Ok(Probed { version: version.and_then(|version| version.parse().ok()), cluster })
}

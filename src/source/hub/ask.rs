//! Asks a hub for its version and age, without a stream.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    dial::{Dial, connect},
    last_read::LastRead,
};
use crate::{
    proto::{self, RecordsClient, StateRequest},
    record::Version,
    sys::UnixMillis,
};

/// Longest wait for an answer, connecting included.
const ANSWER: Duration = Duration::from_secs(4);
/// Largest answer, in bytes: a version and a few names.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The state a hub reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubState {
    pub version: Version,
    /// When the source last confirmed the records, by the clock of the asker.
    pub as_of: UnixMillis,
    /// Why its source is out of reach.
    pub lost: Option<String>,
    /// The hub and those it follows, the nearest first.
    pub path: Vec<String>,
    /// HOST:PORT where it serves, if it knows.
    pub serves: Option<String>,
}

/// The hub or agent that asks.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    pub node: String,
    /// HOST:PORT where it serves the stream itself; empty for agents.
    pub serves: String,
}

/// Asks the hub at `address`; `now` is the clock its times are translated to.
///
/// # Errors
/// If it gives no answer in time, in one line.
pub async fn ask(dial: &Dial, address: &str, who: &Asks, now: UnixMillis) -> Result<HubState, String> {
    let answer = async {
        let channel = connect(dial, address, LastRead::now()).await?;
        let mut client = RecordsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let request = StateRequest { protocol: proto::PROTOCOL, node: who.node.clone(), serves: who.serves.clone() };
        client.state(request).await.map_err(|status| status.message().to_owned())
    };
    let reply = timeout(ANSWER, answer).await.map_err(|_| format!("no answer in {ANSWER:?}"))??.into_inner();
    let age = UnixMillis(reply.as_of_ms).age(UnixMillis(reply.now_ms));
    Ok(HubState {
        version: proto::record_version(reply.version.as_ref()),
        as_of: now.minus(age),
        lost: Some(reply.lost).filter(|lost| !lost.is_empty()),
        path: reply.path,
        serves: Some(reply.serves).filter(|serves| !serves.is_empty()),
    })
}

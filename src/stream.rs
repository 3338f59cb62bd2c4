//! The hub's side of the stream: one store in, thousands of followers out.
//!
//! Owns the listeners, the history every follower reads from, and the decision how each is brought up to date. Never
//! changes a record, and never waits for a follower: a slow one costs its socket and nothing else.
//!
//! # A stream
//!
//! gRPC over HTTP/2 over mutual TLS ([`crate::tls`] admits peers); one call, `Follow`, in `src/proto/holdfast.proto`.
//!
//! ```text
//!   follower                                  hub
//!      │ ── Hello {have, 256 digests} ────────▶ │
//!      │                                        │ what it holds is in the history? ── DELTA
//!      │                                        │ same cluster, some buckets differ? ─ REPAIR
//!      │                                        │ nothing usable? ─────────────────── SNAPSHOT
//!      │                                        │ it is ahead of us, or we are empty? ─ WAIT
//!      │ ◀──────────── Welcome {mode} ───────── │
//!      │ ◀──────────── Part ─────────────────── │  (repair, snapshot) these buckets hold exactly these records
//!      │ ◀──────────── Part ─────────────────── │
//!      │ ◀──────────── Mark ─────────────────── │  what you must hold now: version, root digest, as of when
//!      │ ◀──────────── Batch {changes, mark} ── │  on every change
//!      │ ◀──────────── Mark ─────────────────── │  every 5 s without one
//!      │                                        │ (so slow that the history no longer reaches back)
//!      │ ◀──────────── Welcome {REPAIR} ─────── │  and Parts, and a Mark, on the same stream
//!      │ ◀──────────── Drain {hubs} ─────────── │  the hub leaves: go elsewhere within the window
//! ```
//!
//! A follower builds aside and counts nothing before the mark's root digest agrees with its own; if it does not agree, it
//! says `Hello` again with what it holds, on the same connection, and is repaired. 15 s of silence mean the hub is gone.
//!
//! # How it stays cheap
//!
//! - Each batch is encoded once. What subscribers are handed is one `Bytes`, gRPC header included, so thousands of them
//!   share one allocation up to the TLS record. The single buckets of repairs and the snapshot are kept the same way.
//! - Batching is clocked by the subscribers: a change goes out at once if they are idle; while they are waking for the
//!   last frame, what happens gathers in the store and goes out as one batch.
//! - A subscriber is a number: its place in the history ([`Config::ring_bytes_max`], [`Config::ring_age_max`]).
//! - Handshakes are admitted at a rate, and only so many at once; the rest wait in the system's backlog. Snapshots and large
//!   repairs are capped, and followers that wait get heartbeats. The window that marks announce grows with the number of followers.
//!
//! # Rule of upgrades
//!
//! Hubs first. A field or a kind of frame that an older reader may skip is just added; readers skip what they do not know.
//! A change that they could misread raises [`crate::proto::PROTOCOL`]: a client says the newest it speaks, the hub answers in that or
//! lower and serves the one before for as long as a release that speaks it is supported. Field numbers are never reused.

mod beside;
mod bucket_frames;
mod choose;
mod fanout;
mod metrics;
mod ring;
mod round;
mod server;
mod subscriber;

pub use crate::report::StreamStatus as Status;
pub use beside::Beside;
pub use metrics::Metrics;
pub use server::{Bound, Parts, Server, bind};

use std::{io, net::SocketAddr, time::Duration};

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// This hub's name, unique among hubs.
    pub node: String,
    /// HOST:PORT under which clients reach this hub.
    pub advertise: Vec<String>,
    /// Time between heartbeats when nothing changes.
    pub heartbeat: Duration,
    /// Most bytes of history.
    pub ring_bytes_max: usize,
    pub ring_age_max: Duration,
    /// Most snapshots and large repairs on their way at once.
    pub transfers_max: usize,
    pub handshakes_max: usize,
    /// Most handshakes begun in a second.
    pub handshakes_per_s: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// A connection whose peer acknowledges nothing for this long is given up by the system: heartbeats make sure there is
    /// always something to acknowledge, so one that is open at our end only is found without a timer of ours.
    pub unacknowledged_max: Duration,
    pub connections_max: usize,
    /// Most connections that are not through with their handshake, those that say nothing included; some 10 KB each.
    pub unfinished_max: usize,
    /// Over how long clients are sent elsewhere when the hub stops.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 7443))],
            node: String::new(),
            advertise: Vec::new(),
            heartbeat: Duration::from_secs(5),
            ring_bytes_max: 64 << 20,
            ring_age_max: Duration::from_secs(600),
            transfers_max: 256,
            handshakes_max: 64,
            handshakes_per_s: 2_000,
            handshake_timeout: Duration::from_secs(10),
            unacknowledged_max: Duration::from_secs(20),
            connections_max: 20_000,
            unfinished_max: 4_096,
            drain: Duration::from_secs(4),
        }
    }
}

/// The hubs that a hub follows or knows; changes while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The hubs it follows, the nearest first; empty for one that watches the cluster itself.
    pub path: Vec<String>,
    /// HOST:PORT of other hubs it knows of.
    pub hubs: Vec<String>,
}

/// Why a hub cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, not ours, or not allowed.
    #[error("stream: cannot listen on {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    /// Records in the clear beyond loopback.
    #[error("stream: {0} is not loopback: serving without TLS is for loopback only, give --tls a directory")]
    Insecure(SocketAddr),
}

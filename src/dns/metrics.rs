//! Counters of the listeners. Each UDP worker counts for itself in a [`Shard`], and a scrape adds them up.
//!
//! Every query is counted once when it comes in, and once more as what became of it: a response, a drop, or a forward
//! still in flight. The three add up to the first exactly whenever nothing is under way.

mod collect;
mod shard;
mod striped;

use std::{net::IpAddr, sync::Arc};

use prometheus::{IntCounter, IntGauge, Registry};

pub use self::shard::DropCause;
pub(super) use self::shard::{QuestionType, Shard, Tally};
pub use self::striped::{StripedCounter, StripedCounterVec};
use super::{
    Transport,
    recent::{Majority, Totals},
};
use crate::sys::{Lock, Registrar, labels};

labels! {
    /// Why a TCP connection was closed.
    pub enum CloseCause {
        Client = "client",
        /// No query for too long.
        Idle = "idle",
        /// A query was begun and not finished in time.
        Partial = "partial",
        /// The client took no answers for too long.
        Write = "write",
        /// Its length prefix announced less than a header.
        Length = "length",
        /// An idle connection made room for a new one.
        Evicted = "evicted",
        /// Long queries or answers of all connections took all the memory there is for them.
        Memory = "memory",
        Drain = "drain",
        Broken = "broken",
    }
}

labels! {
    /// Why a TCP connection was not served.
    pub enum RefuseCause {
        Total = "total",
        /// Too many of one address.
        Source = "source",
        /// The client is in no network of `allow`.
        NotAllowed = "not_allowed",
    }
}

labels! {
    /// A system call on a listening socket that can fail.
    pub enum Fault {
        Receive = "receive",
        Send = "send",
        Accept = "accept",
    }
}

/// Counters of the listeners. Clones share everything.
#[derive(Clone, Debug)]
pub struct Metrics {
    shards: Arc<Lock<Vec<Arc<Shard>>>>,
    /// For whatever runs on tokio.
    pub(super) shared: Arc<Shard>,
    forwards_in_flight: [IntGauge; Transport::ALL.len()],
    forwards_refused: [IntCounter; Transport::ALL.len()],
    connections: IntGauge,
    connections_refused: [IntCounter; RefuseCause::ALL.len()],
    connections_closed: [IntCounter; CloseCause::ALL.len()],
    faults: [IntCounter; Fault::ALL.len()],
    /// The client refused most since it was last looked at.
    refused: Arc<Lock<Majority>>,
}

impl Metrics {
    /// Makes the counters and puts them into `registry`.
    ///
    /// # Errors
    /// If one of their names is taken there.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        let shared = Arc::new(Shard::shared());
        let shards = Arc::new(Lock::new(vec![Arc::clone(&shared)]));
        registry.register(Box::new(collect::Shards::new(Arc::clone(&shards))?))?;
        Ok(Self {
            shards,
            shared,
            forwards_in_flight: made.gauges(
                "holdfast_dns_forwards_in_flight",
                "Queries that wait for an upstream.",
                "proto",
                Transport::ALL.map(Transport::as_str),
            )?,
            forwards_refused: made.counters(
                "holdfast_dns_forwards_refused_total",
                "Queries answered SERVFAIL because too many waited for upstreams.",
                "proto",
                Transport::ALL.map(Transport::as_str),
            )?,
            connections: made.gauge("holdfast_dns_tcp_connections", "TCP connections open.")?,
            connections_refused: made.counters(
                "holdfast_dns_tcp_refused_total",
                "TCP connections closed at once: too many in all, too many of one address, or the client is not in `allow`.",
                "reason",
                RefuseCause::ALL.map(RefuseCause::as_str),
            )?,
            connections_closed: made.counters(
                "holdfast_dns_tcp_closed_total",
                "TCP connections served and closed, by reason.",
                "reason",
                CloseCause::ALL.map(CloseCause::as_str),
            )?,
            faults: made.counters(
                "holdfast_dns_socket_errors_total",
                "System calls on listening sockets that failed.",
                "call",
                Fault::ALL.map(Fault::as_str),
            )?,
            refused: Arc::default(),
        })
    }

    /// Counters for one thread alone.
    pub(super) fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::exclusive());
        self.shards.lock().push(Arc::clone(&shard));
        shard
    }

    /// How many forwards are in flight.
    pub(super) fn forwards_in_flight(&self, transport: Transport) -> &IntGauge {
        &self.forwards_in_flight[transport as usize]
    }

    /// A query was refused because too many waited.
    pub(super) fn forward_refused(&self, transport: Transport) {
        self.forwards_refused[transport as usize].inc();
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// A connection was not served.
    pub(super) fn connection_refused(&self, cause: RefuseCause, client: IpAddr) {
        self.connections_refused[cause as usize].inc();
        self.note_refused(client);
    }

    /// A query or a connection of this client was refused.
    pub(super) fn note_refused(&self, client: IpAddr) {
        self.refused.lock().note(client.to_canonical());
    }

    /// The client refused most since the last [take](Self::take_refused_client).
    pub(super) fn refused_client(&self) -> Option<IpAddr> {
        self.refused.lock().client()
    }

    pub(super) fn take_refused_client(&self) -> Option<IpAddr> {
        std::mem::take(&mut *self.refused.lock()).client()
    }

    pub(super) fn totals(&self) -> Totals {
        let shards = self.shards.lock();
        Totals {
            received: collect::received(&shards),
            servfail: collect::servfail(&shards),
            dropped: DropCause::ALL.map(|cause| collect::dropped(&shards, cause)),
            over_share: self.forwards_refused.iter().map(IntCounter::get).sum(),
            connections_refused: RefuseCause::ALL.map(|cause| self.connections_refused[cause as usize].get()),
        }
    }

    /// A connection was served and is closed.
    pub(super) fn connection_closed(&self, cause: CloseCause) {
        self.connections_closed[cause as usize].inc();
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults[fault as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Encoder, TextEncoder};

    use super::*;
    use crate::{
        dns::ServedFrom,
        wire::{Rcode, Rtype},
    };

    fn scrape(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn shards_add_up_and_each_series_stands_from_the_start() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let zero = scrape(&registry);
        for line in [
            "holdfast_dns_requests_total{proto=\"udp\",type=\"A\"} 0",
            "holdfast_dns_responses_total{from=\"cluster\",rcode=\"NXDOMAIN\"} 0",
            "holdfast_dns_drops_total{reason=\"response\"} 0",
            "holdfast_dns_request_duration_seconds_count{from=\"cache\"} 0",
        ] {
            assert!(zero.contains(line), "{line} in {zero}");
        }
        let shards = [metrics.shard(), metrics.shard(), Arc::clone(&metrics.shared)];
        for shard in &shards {
            shard.request(Transport::Udp, QuestionType::of(Rtype::A));
            shard.request(Transport::Tcp, QuestionType::of(Rtype(4711)));
            let tally = Tally { rcode: Rcode::NXDOMAIN, from: ServedFrom::Cluster };
            shard.responses(tally, 2);
            shard.durations(ServedFrom::Cluster, Duration::from_micros(30), 2);
            shard.durations(ServedFrom::Upstream, Duration::from_secs(60), 1);
            shard.dropped(DropCause::Response);
        }
        let text = scrape(&registry);
        for line in [
            "holdfast_dns_requests_total{proto=\"udp\",type=\"A\"} 3",
            "holdfast_dns_requests_total{proto=\"tcp\",type=\"other\"} 3",
            "holdfast_dns_responses_total{from=\"cluster\",rcode=\"NXDOMAIN\"} 6",
            "holdfast_dns_drops_total{reason=\"response\"} 3",
            "holdfast_dns_request_duration_seconds_bucket{from=\"cluster\",le=\"0.00005\"} 6",
            "holdfast_dns_request_duration_seconds_bucket{from=\"cluster\",le=\"0.000025\"} 0",
            "holdfast_dns_request_duration_seconds_bucket{from=\"upstream\",le=\"8.192\"} 0",
            "holdfast_dns_request_duration_seconds_bucket{from=\"upstream\",le=\"+Inf\"} 3",
            "holdfast_dns_request_duration_seconds_sum{from=\"upstream\"} 180",
            "holdfast_dns_request_duration_seconds_count{from=\"cluster\"} 6",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

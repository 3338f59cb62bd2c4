//! Serves open sockets, and leaves without losing what was received.
//!
//! Owns what UDP and TCP have in common: one answer for each query, a bounded number of forwards, the drain at the end.
//! Never opens a socket.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use prometheus::IntGauge;
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Bound, Context, Forward, ForwardRequest, Metrics, Outcome, Reply, Resolve, Resolved, ServedFrom, Transport, View,
    answer,
    cache::WorkerCache,
    metrics::{QuestionType, Shard, Tally},
    tcp, udp,
};
use crate::{
    limits::{FairShares, Share},
    sys::{Clock, UnixMillis},
    wire::{self, Cookie, Ede, EdeCode, NoQuery, Parsed, Query, Rcode, Reject},
};

/// The state that all listeners share.
pub(super) struct Core {
    pub context: Arc<Context>,
    pub resolver: Arc<dyn Resolve>,
    pub metrics: Metrics,
    pub clock: Clock,
    /// Room for forwards, for each transport, shared fairly among clients.
    slots: [Arc<FairShares>; Transport::ALL.len()],
    /// When it is cancelled, forwards still in flight are answered SERVFAIL.
    pub expired: CancellationToken,
}

/// The next step for a query.
pub(super) enum Handled {
    /// Send the buffer up to this length.
    Reply(usize, Tally),
    Forward(Asked),
    Drop(wire::DropReason),
}

/// The question for upstreams, and the records that the answer holds besides.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    forward: Forward,
    cookie: Option<Cookie>,
}

#[cfg(feature = "encrypted")]
impl Asked {
    /// Bytes of the buffer that [`request`] needs.
    pub fn kept(self) -> usize {
        match self.forward {
            Forward::Whole | Forward::Fallback => 0,
            Forward::Chase { len } | Forward::Complete { len, .. } => len,
        }
    }
}

impl Handled {
    fn replied(reply: Reply) -> Self {
        Self::Reply(reply.len, reply.tally())
    }
}

impl Reply {
    pub(super) fn tally(self) -> Tally {
        Tally { rcode: self.rcode, from: self.from }
    }
}

impl Core {
    /// Whether the answer depends on the client's address.
    #[inline]
    pub fn asks_for_client(&self) -> bool {
        self.context.cookies().is_some()
    }

    /// Counts `message`, and answers it into `out` or returns the forward that answers it. `worker_cache` is that of the calling
    /// thread; `client` is needed only if [`asks_for_client`](Self::asks_for_client).
    #[inline]
    pub fn handle(
        &self,
        shard: &Shard,
        view: &View<'_>,
        message: &[u8],
        (transport, client): (Transport, Option<IpAddr>),
        worker_cache: &mut WorkerCache,
        out: &mut [u8],
    ) -> Handled {
        let mut query = Query::default();
        match answer::read(&self.context, view, message, client, &mut query) {
            Ok(()) => {}
            Err(NoQuery::Reject(reject)) => {
                shard.request(transport, QuestionType::OTHER);
                return Handled::replied(answer::refuse(&reject, out));
            }
            Err(NoQuery::Drop(reason)) => {
                shard.request(transport, QuestionType::OTHER);
                return Handled::Drop(reason);
            }
        }
        shard.request(transport, QuestionType::of(query.qtype));
        match answer::answer_query(&self.context, view, &query, transport, out) {
            Outcome::Reply(reply) => Handled::replied(reply),
            Outcome::Drop(reason) => Handled::Drop(reason),
            Outcome::Forward(forward) => self.forward(forward, &query, transport, view.steady, worker_cache, out),
        }
    }

    fn forward(
        &self,
        forward: Forward,
        query: &Query<'_>,
        transport: Transport,
        now: UnixMillis,
        worker_cache: &mut WorkerCache,
        out: &mut [u8],
    ) -> Handled {
        if forward == Forward::Whole
            && let Some((len, from)) = self.resolver.cached(query, transport, now, worker_cache, out)
        {
            return Handled::Reply(len, Tally { rcode: rcode_of(&out[..len]), from });
        }
        Handled::Forward(Asked { forward, cookie: query.cookie })
    }

    /// Begins a forward, which is in flight until the returned slot is dropped. `None` if this client has used its share of the
    /// slots: then it is [refused](Self::refuse_forward).
    pub fn begin(&self, transport: Transport, client: IpAddr) -> Option<InFlight> {
        let Some(slot) = self.slots[transport as usize].take(client) else {
            self.metrics.note_refused(client);
            return None;
        };
        let gauge = self.metrics.forwards_in_flight(transport).clone();
        gauge.inc();
        Some(InFlight { gauge, _slot: slot })
    }

    /// Writes the answer to a forward for which there is no place.
    #[cold]
    pub fn refuse_forward(&self, transport: Transport, message: &[u8], asked: Asked, out: &mut [u8]) -> Reply {
        self.metrics.forward_refused(transport);
        let mut query = Query::default();
        // It was read without fault before.
        let _ = query.read(message);
        let query = Query { cookie: asked.cookie, ..query };
        answer::refuse(&failure(&query, "too many queries of this client wait for upstreams"), out)
    }

    /// Waits for the answer to a forward; SERVFAIL if the server ends before.
    pub async fn resolve(&self, request: ForwardRequest) -> Resolved {
        let (query, cookie) = (request.query.clone(), request.cookie);
        tokio::select! {
            resolved = self.resolver.resolve(request) => resolved,
            () = self.expired.cancelled() => {
                let mut out = [0; wire::UDP_BYTES_MIN];
                let len = match wire::parse(&query) {
                    Parsed::Query(query) => {
                        let query = Query { cookie, ..query };
                        wire::write_reject(&failure(&query, "the server is leaving"), &mut out)
                    }
                    Parsed::Reject(reject) => wire::write_reject(&reject, &mut out),
                    Parsed::Drop(_) => 0,
                };
                Resolved { message: out[..len].to_vec(), from: ServedFrom::Cluster }
            }
        }
    }
}

/// A forward in flight, counted and in a slot. Dropped when its answer is counted.
#[derive(Debug)]
pub(super) struct InFlight {
    gauge: IntGauge,
    _slot: Share,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The request that goes with a [`Handled::Forward`] of `message`, whose buffer is `out`, from a client to a listener.
pub(super) fn request(
    Asked { forward, cookie }: Asked,
    message: &[u8],
    out: &[u8],
    transport: Transport,
    [client, server]: [SocketAddr; 2],
    received: Instant,
) -> ForwardRequest {
    ForwardRequest {
        query: essence(message),
        transport,
        client,
        server,
        received,
        cookie,
        forward,
        written: match forward {
            Forward::Whole | Forward::Fallback => Vec::new(),
            Forward::Chase { len } | Forward::Complete { len, .. } => out[..len].to_vec(),
        },
    }
}

/// A query without the EDNS options that no code reads; padding alone may have 64 KiB.
fn essence(message: &[u8]) -> Vec<u8> {
    if message.len() <= wire::UDP_BYTES_MIN {
        return message.to_vec();
    }
    let mut query = Query::default();
    match query.read(message) {
        Ok(()) => wire::write_query(&query),
        Err(_) => message[..wire::UDP_BYTES_MIN].to_vec(),
    }
}

/// The response code in a message's header; enough for answers from elsewhere, which never carry extended ones.
pub(super) fn rcode_of(message: &[u8]) -> Rcode {
    Rcode(message.get(3).map_or(Rcode::SERVFAIL.0, |flags| u16::from(flags & 0x0F)))
}

fn failure<'a>(query: &Query<'a>, why: &'a str) -> Reject<'a> {
    let ede = Ede { code: EdeCode::OTHER, text: why };
    let mut reject = query.reject(Rcode::SERVFAIL, None);
    reject.ede = Some(ede);
    reject
}

impl Bound {
    /// Begins to answer. To be called on a tokio runtime, which TCP and forwards run on.
    ///
    /// # Panics
    /// If called elsewhere, or if the system gives no threads.
    pub fn serve(self, context: Arc<Context>, resolver: Arc<dyn Resolve>, clock: Clock, metrics: Metrics) -> Running {
        let slots = Transport::ALL.map(|_| Arc::new(FairShares::new(self.config.forwards_max)));
        let core = Arc::new(Core { context, resolver, metrics, clock, slots, expired: CancellationToken::new() });
        let forwards = TaskTracker::new();
        let guards = self.config.access.guards(&self.addresses);
        let udp = udp::start(&core, self.workers, &guards, self.config.open_rate, &forwards);
        let tcp = tcp::start(&core, self.config.tcp, self.listeners, guards);
        #[cfg(feature = "encrypted")]
        self.encrypted.serve(tcp.shared(), &self.config.access);
        Running { core, udp, tcp, forwards }
    }
}

/// Running listeners. Dropped, they stop at once; [`drain`](Self::drain) answers first what was received.
pub struct Running {
    core: Arc<Core>,
    udp: udp::Workers,
    tcp: tcp::Listeners,
    forwards: TaskTracker,
}

impl Running {
    /// Stops: takes in nothing new, answers what was received, waits for forwards in flight at most for `limit`, and
    /// closes. Forwards not answered by then are answered SERVFAIL.
    ///
    /// Where other sockets share the ports, they get every query from now on, and none is lost in between.
    pub async fn drain(mut self, limit: Duration) {
        let end = Instant::now() + limit;
        self.tcp.stop();
        self.udp.divert().await;
        self.forwards.close();
        let forwards = self.forwards.clone();
        let tcp = self.tcp.tracker();
        let quiet = async {
            tokio::join!(forwards.wait(), tcp.wait());
        };
        if timeout_at(end, quiet).await.is_err() {
            self.core.expired.cancel();
            tokio::join!(forwards.wait(), tcp.wait());
        }
        self.udp.close().await;
        if timeout_at(end, self.forwards.wait()).await.is_err() {
            self.core.expired.cancel();
            self.forwards.wait().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.expired.cancel();
    }
}

//! The loop of a UDP worker.

use std::{
    io::{self, PipeReader, Read},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

use super::{CLOSE, DIVERT};
use crate::{
    dns::{
        Reply, Rotation, ServedFrom, Transport,
        access::Guard,
        cache::WorkerCache,
        metrics::{DropCause, Fault, QuestionType, Shard, Tally},
        server::{self, Asked, Core, Handled},
    },
    limits::{RateLimiter, Verdict, is_public},
    sys::{Batch, DatagramSocket, Interest, Poll},
    wire::{self, Rcode},
};

/// How long one batch may wait for room in the send buffer before the rest of its replies is dropped. Long enough for a
/// network card's queue to move on, short enough for the other sockets.
const SEND_WAIT: Duration = Duration::from_millis(5);

pub(super) struct Worker {
    core: Arc<Core>,
    sockets: Vec<Arc<DatagramSocket>>,
    /// The clients allowed, by the place of the socket.
    guards: Vec<Option<Arc<Guard>>>,
    /// Rates of answers to public addresses, at sockets without a guard.
    limiter: Option<RateLimiter>,
    forwards: TaskTracker,
    runtime: Handle,
    shard: Arc<Shard>,
    rotation: Rotation,
    /// Copies of the cached answers asked for most.
    cache: WorkerCache,
    /// The counted properties of each reply of the batch, by the place of its query.
    tallies: [Tally; Batch::MAX],
}

impl Worker {
    pub(super) fn new(
        core: Arc<Core>,
        sockets: Vec<Arc<DatagramSocket>>,
        guards: Vec<Option<Arc<Guard>>>,
        rate: Option<u32>,
        forwards: TaskTracker,
        runtime: Handle,
    ) -> Self {
        let (shard, cache) = (core.metrics.shard(), core.resolver.worker_cache());
        let tallies = [Tally { rcode: Rcode::NOERROR, from: ServedFrom::Cluster }; Batch::MAX];
        let limiter = rate.map(RateLimiter::new);
        Self { core, sockets, guards, limiter, forwards, runtime, shard, rotation: Rotation::default(), cache, tallies }
    }

    /// Serves until it is told to close. One batch of each socket in turn, so that none is starved by another.
    pub(super) fn run(mut self, mut woken: &PipeReader, diverted: oneshot::Sender<()>) {
        let sockets = self.sockets.clone();
        let mut poll = Poll::new(
            sockets.iter().map(|socket| socket.as_fd()).chain([woken.as_fd()]).map(|fd| (fd, Interest::Read)),
        );
        let mut batch = Batch::new();
        let mut diverted = Some(diverted);
        loop {
            poll.wait(None).expect("poll of open sockets");
            for (place, socket) in sockets.iter().enumerate() {
                if poll.is_ready(place) {
                    self.serve(&mut batch, socket, place);
                }
            }
            if !poll.is_ready(sockets.len()) {
                continue;
            }
            let mut told = [0; 8];
            let _ = woken.read(&mut told);
            let told = told.into_iter().max().unwrap_or_default();
            if told >= DIVERT
                && let Some(diverted) = diverted.take()
            {
                self.divert(&mut batch, &sockets);
                // The server may have given up waiting.
                let _ = diverted.send(());
            }
            if told >= CLOSE {
                // Datagrams under way in the kernel when the socket was diverted have arrived by now.
                self.empty(&mut batch, &sockets);
                return;
            }
        }
    }

    fn divert(&mut self, batch: &mut Batch, sockets: &[Arc<DatagramSocket>]) {
        for socket in sockets {
            if let Err(error) = socket.divert() {
                tracing::warn!(address = %socket.address(), %error, "cannot divert new queries to the other process: a few may be lost");
            }
        }
        self.empty(batch, sockets);
    }

    /// Answers the queries received, at most as many as a queue holds: without diversion, clients could go on for ever.
    fn empty(&mut self, batch: &mut Batch, sockets: &[Arc<DatagramSocket>]) {
        const BATCHES_MAX: usize = 1_024;
        for (place, socket) in sockets.iter().enumerate() {
            for _ in 0..BATCHES_MAX {
                if !self.serve(batch, socket, place) {
                    break;
                }
            }
        }
    }

    /// Answers one batch. False if there was none.
    fn serve(&mut self, batch: &mut Batch, socket: &Arc<DatagramSocket>, place: usize) -> bool {
        let received = match batch.receive(socket, false) {
            Ok(received) => received,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.core.metrics.fault(Fault::Receive);
                }
                return error.kind() == io::ErrorKind::Interrupted;
            }
        };
        let began = Instant::now();
        {
            let records = self.core.context.load();
            let view = self.core.context.view(&records, self.core.clock.now(), &self.rotation);
            let view = view.at(self.core.clock.steady());
            let guard = self.guards[place].as_deref();
            let asks_for_client = self.core.asks_for_client();
            for index in 0..received {
                if guard.is_some_and(|guard| !guard.allows(batch.source(index).ip())) {
                    self.shard.request(Transport::Udp, QuestionType::OTHER);
                    self.shard.dropped(DropCause::NotAllowed);
                    continue;
                }
                if guard.is_none()
                    && let Some(limiter) = &mut self.limiter
                    && is_public(batch.source(index).ip())
                {
                    let verdict = limiter.check(batch.source(index).ip(), view.steady);
                    if verdict != Verdict::Answer {
                        self.shard.request(Transport::Udp, QuestionType::OTHER);
                        let (query, out) = batch.exchange(index);
                        let truncated = (verdict == Verdict::Truncate).then(|| wire::write_truncated(query, out));
                        if let Some(length) = truncated.flatten() {
                            self.tallies[index] = Tally { rcode: Rcode::NOERROR, from: ServedFrom::Cluster };
                            batch.reply(index, length);
                        } else {
                            self.shard.dropped(DropCause::RateLimited);
                        }
                        continue;
                    }
                }
                let client = asks_for_client.then(|| batch.source(index).ip());
                let (query, out) = batch.exchange(index);
                match self.core.handle(&self.shard, &view, query, (Transport::Udp, client), &mut self.cache, out) {
                    Handled::Reply(length, tally) => {
                        self.tallies[index] = tally;
                        batch.reply(index, length);
                    }
                    Handled::Forward(forward) => {
                        if let Some(reply) = self.forward(&mut *batch, index, socket, forward, began) {
                            self.tallies[index] = reply.tally();
                            batch.reply(index, reply.len);
                        }
                    }
                    Handled::Drop(reason) => self.shard.dropped(reason.into()),
                }
            }
        }
        self.send(batch, socket, began);
        received > 0
    }

    /// Hands a query to tokio, which sends the answer through the same socket; or refuses it.
    fn forward(
        &self,
        batch: &mut Batch,
        index: usize,
        socket: &Arc<DatagramSocket>,
        forward: Asked,
        received: Instant,
    ) -> Option<Reply> {
        let peer = batch.peer(index);
        let (query, out) = batch.exchange(index);
        let Some(in_flight) = self.core.begin(Transport::Udp, peer.address().ip()) else {
            return Some(self.core.refuse_forward(Transport::Udp, query, forward, out));
        };
        let request =
            server::request(forward, query, out, Transport::Udp, [peer.address(), socket.address()], received.into());
        let (core, socket) = (Arc::clone(&self.core), Arc::clone(socket));
        let answer = async move {
            let resolved = core.resolve(request).await;
            let shard = &core.metrics.shared;
            if resolved.message.is_empty() {
                shard.dropped(DropCause::Acl);
            } else if socket.send(&resolved.message, &peer).is_ok() {
                let tally = Tally { rcode: server::rcode_of(&resolved.message), from: resolved.from };
                shard.responses(tally, 1);
                shard.durations(resolved.from, received.elapsed(), 1);
            } else {
                core.metrics.fault(Fault::Send);
                shard.dropped(DropCause::Send);
            }
            drop(in_flight);
        };
        self.forwards.spawn_on(answer, &self.runtime);
        None
    }

    /// Sends the replies of a batch, waiting a little where the send buffer is full.
    fn send(&self, batch: &mut Batch, socket: &DatagramSocket, began: Instant) {
        let mut sent_from = [0; ServedFrom::ALL.len()];
        let mut patience = true;
        while batch.unsent() > 0 {
            match batch.send(socket) {
                Ok(sent) => {
                    for &place in sent {
                        let tally = self.tallies[usize::from(place)];
                        self.shard.responses(tally, 1);
                        sent_from[tally.from as usize] += 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience => {
                    patience = false;
                    let mut room = Poll::new([(socket.as_fd(), Interest::Write)]);
                    room.wait(Some(SEND_WAIT)).expect("poll of an open socket");
                }
                // A full buffer, or an address that cannot be sent to: this reply is lost, not the ones after it.
                Err(_) => {
                    self.core.metrics.fault(Fault::Send);
                    self.shard.dropped(DropCause::Send);
                    batch.skip();
                }
            }
        }
        let elapsed = began.elapsed();
        for from in ServedFrom::ALL {
            if sent_from[from as usize] > 0 {
                self.shard.durations(from, elapsed, sent_from[from as usize]);
            }
        }
    }
}

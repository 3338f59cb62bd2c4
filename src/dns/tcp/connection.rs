//! One TCP connection: what came in, what waits for upstream, what goes out.

use std::{cell::RefCell, io, mem, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    task::coop,
    time::{Instant, sleep_until},
};

use super::{Shared, stream::Stream};
use crate::{
    dns::{
        CloseCause, Resolved, Rotation, Transport, View,
        cache::WorkerCache,
        metrics::{DropCause, Tally},
        padding,
        server::{self, Handled, InFlight},
    },
    limits::{Activity, ConnectionSlot},
    wire,
};

/// Bytes of a length prefix (RFC 1035, 4.2.2).
const PREFIX_BYTES: usize = 2;
/// Bytes of answers that may wait for the client before no more queries are answered.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of buffers that an idle connection keeps.
const KEEP_BYTES: usize = 4 * 1024;

/// How long a connection without a query stays when we leave: the way of a query that the client has sent already.
const LINGER: Duration = Duration::from_millis(200);
/// Longer than any connection lives without being woken by something else.
const NEVER: Duration = Duration::from_secs(86_400);

thread_local! {
    /// Room for the longest answer, one for each thread: answers are written here and copied out.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; wire::TCP_BYTES_MAX].into());
    static ROTATION: Rotation = Rotation::default();
}

/// What is still to be read from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// What has come already; then nothing, as we leave.
    Rest,
    /// Nothing: what is received is answered, then the connection is closed.
    Ended(CloseCause),
}

/// The answer to a forward.
struct Forwarded {
    resolved: Resolved,
    received: Instant,
    padded: bool,
    _in_flight: InFlight,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    stream: Stream,
    transport: Transport,
    client: SocketAddr,
    slot: ConnectionSlot,
    reading: Reading,
    /// Since when we leave, and close the connection once it is quiet.
    leaving: Option<Instant>,
    /// Bytes received and not yet answered: whole messages, then a part of one.
    input: Vec<u8>,
    /// Answers with their prefixes, and how much of that is sent.
    output: Vec<u8>,
    sent: usize,
    in_flight: FuturesUnordered<BoxFuture<'static, Forwarded>>,
    /// Since when `input` begins with an incomplete message.
    partial_since: Option<Instant>,
    /// When a query came or the last byte of an answer left.
    active: Instant,
    /// When the client last took bytes of an answer, or there began to be some.
    taken: Instant,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, client: SocketAddr, slot: ConnectionSlot) -> Self {
        shared.core.metrics.connections().inc();
        let now = Instant::now();
        Self {
            shared,
            transport: if matches!(stream, Stream::Plain(_)) { Transport::Tcp } else { Transport::Tls },
            // A handshake has the time of a query.
            partial_since: stream.is_handshaking().then_some(now),
            stream,
            client,
            slot,
            reading: Reading::Open,
            leaving: None,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            in_flight: FuturesUnordered::new(),
            active: now,
            taken: now,
        }
    }

    pub(super) async fn run(mut self) {
        let cause = self.serve().await;
        self.stream.close();
        let metrics = &self.shared.core.metrics;
        for _ in 0..self.in_flight.len() {
            metrics.shared.dropped(DropCause::Gone);
        }
        self.in_flight.clear();
        metrics.connections().dec();
        metrics.connection_closed(cause);
    }

    async fn serve(&mut self) -> CloseCause {
        let leaving = self.shared.leaving.clone();
        let expired = self.shared.core.expired.clone();
        let evicted = self.slot.evicted().clone();
        loop {
            // A client that always has more must not keep the thread from the others.
            coop::consume_budget().await;
            let waiting = self.answer_received();
            if self.write().is_err() {
                return CloseCause::Broken;
            }
            let blocked = self.sent < self.output.len() || self.stream.has_pending();
            if waiting && self.accepts() {
                // What was written made room for what waits.
                continue;
            }
            let accepts = !waiting && self.accepts();
            if self.reading == Reading::Rest && (accepts || expired.is_cancelled()) {
                self.read_rest(expired.is_cancelled());
                continue;
            }
            if let Reading::Ended(cause) = self.reading
                && !blocked
                && !waiting
                && self.in_flight.is_empty()
            {
                return cause;
            }
            self.slot.set(self.activity(blocked || waiting));
            let (deadline, overdue) = self.deadline(blocked);
            tokio::select! {
                biased;
                () = evicted.cancelled() => return CloseCause::Evicted,
                () = expired.cancelled(), if blocked => return CloseCause::Drain,
                () = expired.cancelled(), if self.leaving.is_some() && self.reading == Reading::Open => {
                    self.reading = Reading::Rest;
                }
                () = leaving.cancelled(), if self.leaving.is_none() => self.leaving = Some(Instant::now()),
                Some(forwarded) = self.in_flight.next(), if self.has_room() => self.put_forwarded(forwarded),
                ready = self.stream.writable(), if blocked => if ready.is_err() { return CloseCause::Broken },
                ready = self.stream.readable(), if accepts && self.reading == Reading::Open => {
                    if ready.and_then(|()| self.read()).is_err() {
                        return CloseCause::Broken;
                    }
                }
                () = sleep_until(deadline) => match overdue {
                    // What it asked before is still answered.
                    CloseCause::Partial => self.end(CloseCause::Partial),
                    CloseCause::Drain => self.reading = Reading::Rest,
                    cause => return cause,
                },
            }
        }
    }

    /// Whether the client has taken enough of its answers to get more.
    fn has_room(&self) -> bool {
        self.output.len() - self.sent < OUT_BYTES_MAX
    }

    /// Whether one more query can be answered.
    fn accepts(&self) -> bool {
        self.has_room() && self.in_flight.len() < self.shared.config.in_flight_max
    }

    fn activity(&self, answering: bool) -> Activity {
        if answering || !self.in_flight.is_empty() {
            Activity::Answering
        } else if self.input.is_empty() && !self.stream.is_handshaking() {
            Activity::Idle
        } else {
            Activity::Receiving
        }
    }

    /// When patience ends, and with what.
    fn deadline(&self, blocked: bool) -> (Instant, CloseCause) {
        let config = &self.shared.config;
        let write = blocked.then(|| (self.taken + config.write, CloseCause::Write));
        let partial = self.partial_since.map(|since| (since + config.partial, CloseCause::Partial));
        // Forwards have a time budget of their own.
        let quiet = !blocked && self.input.is_empty() && self.in_flight.is_empty();
        let idle = quiet.then(|| (self.active + config.idle, CloseCause::Idle));
        let linger = self.leaving.filter(|_| self.reading == Reading::Open && !blocked && self.in_flight.is_empty());
        let linger = linger.map(|since| (since.max(self.active) + LINGER, CloseCause::Drain));
        let never = (Instant::now() + NEVER, CloseCause::Idle);
        [write, partial, idle, linger].into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(never)
    }

    /// Reads nothing more, and forgets an incomplete message.
    fn end(&mut self, cause: CloseCause) {
        self.reading = Reading::Ended(cause);
        self.partial_since = None;
        self.input.clear();
    }

    /// Takes in some of what has come.
    fn read(&mut self) -> io::Result<()> {
        match self.stream.try_read(&mut self.input) {
            Ok(0) => self.end(CloseCause::Client),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes in some of what came before we left, or finds that there is no more.
    fn read_rest(&mut self, expired: bool) {
        match (!expired).then(|| self.stream.try_read_now(&mut self.input)) {
            Some(Ok(1..)) => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.end(CloseCause::Drain),
        }
    }

    /// Answers the whole messages received, as far as there is room. True if some are left.
    fn answer_received(&mut self) -> bool {
        if next_message(&self.input).is_none() {
            if self.input.is_empty() && !self.stream.is_handshaking() {
                self.partial_since = None;
            } else if self.partial_since.is_none() {
                self.partial_since = Some(Instant::now());
            }
            return false;
        }
        self.partial_since = None;
        let input = mem::take(&mut self.input);
        let mut rest = &input[..];
        let waiting = ROOM.with_borrow_mut(|room| {
            ROTATION.with(|rotation| {
                let core = Arc::clone(&self.shared.core);
                let records = core.context.load();
                let view = core.context.view(&records, core.clock.now(), rotation);
                while let Some((message, after)) = next_message(rest) {
                    if !self.accepts() {
                        return true;
                    }
                    rest = after;
                    self.answer(&view, message, room);
                    if message.len() < wire::HEADER_BYTES {
                        // Its prefix lied, and so may all that follow.
                        rest = &[];
                        self.reading = Reading::Ended(CloseCause::Length);
                    }
                }
                false
            })
        });
        self.active = Instant::now();
        if !waiting && !rest.is_empty() {
            self.partial_since = Some(self.active);
        }
        let consumed = input.len() - rest.len();
        self.input = input;
        self.input.drain(..consumed);
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES {
            self.input = Vec::new();
        }
        waiting
    }

    fn answer(&mut self, view: &View<'_>, message: &[u8], room: &mut [u8]) {
        let core = &self.shared.core;
        let shard = &core.metrics.shared;
        let received = Instant::now();
        let padded = self.transport == Transport::Tls && padding::is_asked_for(message);
        let asked = (self.transport, Some(self.client.ip()));
        match core.handle(shard, view, message, asked, &mut WorkerCache::none(), room) {
            Handled::Reply(length, tally) => {
                shard.responses(tally, 1);
                shard.durations(tally.from, received.elapsed(), 1);
                self.put(&room[..length], padded);
            }
            Handled::Forward(forward, slot) => {
                let request = server::request(forward, message, room, self.transport, self.client, received);
                let core = Arc::clone(core);
                let in_flight = core.begin(self.transport, slot);
                let answer = async move {
                    Forwarded { resolved: core.resolve(request).await, received, padded, _in_flight: in_flight }
                };
                self.in_flight.push(answer.boxed());
            }
            Handled::Drop(reason) => shard.dropped(reason.into()),
        }
    }

    fn put_forwarded(&mut self, Forwarded { resolved, received, padded, .. }: Forwarded) {
        let shard = &self.shared.core.metrics.shared;
        shard.responses(Tally { rcode: server::rcode_of(&resolved.message), from: resolved.from }, 1);
        shard.durations(resolved.from, received.elapsed(), 1);
        self.put(&resolved.message, padded);
    }

    /// Adds an answer to what goes out.
    fn put(&mut self, message: &[u8], padded: bool) {
        let mut longer = Vec::new();
        let message = if padded {
            longer.extend_from_slice(message);
            padding::pad(&mut longer);
            &longer
        } else {
            message
        };
        let length = u16::try_from(message.len()).expect("a message has at most 65,535 bytes");
        if self.sent == self.output.len() {
            self.taken = Instant::now();
        }
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
    }

    /// Sends what the client takes without waiting.
    fn write(&mut self) -> io::Result<()> {
        match self.stream.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        while self.sent < self.output.len() {
            match self.stream.try_write(&self.output[self.sent..]) {
                Ok(bytes) => {
                    self.sent += bytes;
                    self.taken = Instant::now();
                    self.active = self.taken;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(KEEP_BYTES);
            self.sent = 0;
        } else if self.sent >= OUT_BYTES_MAX {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

/// The first message and what follows it, if it is whole.
fn next_message(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = input.split_first_chunk::<PREFIX_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_prefixes() {
        for (input, expected) in [
            (&b""[..], None),
            (b"\0", None),
            (b"\0\x02a", None),
            (b"\0\x02ab", Some((&b"ab"[..], &b""[..]))),
            (b"\0\0\0\x01", Some((b"", b"\0\x01"))),
        ] {
            assert_eq!(next_message(input), expected);
        }
    }
}

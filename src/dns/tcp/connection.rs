//! A TCP connection: queries that came in, forwards in flight, answers that go out.
//!
//! | state | reads | goes to |
//! |---|---|---|
//! | `Open` | queries | `Leaving` when the server leaves; `Ended` when the client ends, a query stays incomplete for too long or its length is a lie |
//! | `Leaving` | queries, as a client may have sent one before it knows | `Rest` when nothing came for a while, or the drain is over; `Ended` as above |
//! | `Rest` | what the kernel has, without waiting | `Ended` when that is all |
//! | `Ended` | nothing | closed when everything received is answered and sent |
//!
//! Closed from any state: a client that takes no answer for too long, one that is evicted, a broken connection, a full budget of
//! buffers, and in `Open` an idle one.

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
    limits::{Activity, ConnectionSlot, ReservedBytes},
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
/// Longer than any connection lives without another event.
const NEVER: Duration = Duration::from_secs(86_400);

thread_local! {
    /// Room for the longest answer, one for each thread: answers are written here and copied out.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; wire::TCP_BYTES_MAX].into());
    static ROTATION: Rotation = Rotation::default();
}

/// The state of a connection; the module says what leads from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Leaving { since: Instant },
    Rest,
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
    state: State,
    /// Memory of long queries and answers.
    reserved: ReservedBytes,
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
        let reserved = shared.buffers.reserve();
        Self {
            shared,
            transport: if matches!(stream, Stream::Plain(_)) { Transport::Tcp } else { Transport::Tls },
            // A handshake has the time of a query.
            partial_since: stream.is_handshaking().then_some(now),
            stream,
            client,
            slot,
            state: State::Open,
            reserved,
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
        if self.sent < self.output.len() || self.stream.has_pending() || self.stream.unacknowledged_bytes() > 0 {
            // A client that takes nothing leaves its answers in the kernel for minutes, unless the connection is reset.
            self.stream.reset_at_close();
        }
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
            if !self.reserved.resize(self.buffered_beyond()) {
                return CloseCause::Memory;
            }
            let blocked = self.sent < self.output.len() || self.stream.has_pending();
            if waiting && self.accepts() {
                // The written answers made room for waiting ones.
                continue;
            }
            let accepts = !waiting && self.accepts();
            match self.state {
                State::Rest if accepts || expired.is_cancelled() => {
                    self.read_rest(expired.is_cancelled());
                    continue;
                }
                State::Ended(cause) if !blocked && !waiting && self.in_flight.is_empty() => return cause,
                _ => {}
            }
            let takes_in = matches!(self.state, State::Open | State::Leaving { .. });
            self.slot.set(self.activity(blocked || waiting));
            let (deadline, overdue) = self.deadline(blocked);
            tokio::select! {
                biased;
                () = evicted.cancelled() => return CloseCause::Evicted,
                () = expired.cancelled(), if blocked => return CloseCause::Drain,
                () = expired.cancelled(), if matches!(self.state, State::Leaving { .. }) => self.state = State::Rest,
                () = leaving.cancelled(), if self.state == State::Open => {
                    self.state = State::Leaving { since: Instant::now() };
                }
                Some(forwarded) = self.in_flight.next(), if self.has_room() => self.put_forwarded(forwarded),
                ready = self.stream.writable(), if blocked => if ready.is_err() { return CloseCause::Broken },
                ready = self.stream.readable(), if accepts && takes_in => {
                    if ready.and_then(|()| self.read()).is_err() {
                        return CloseCause::Broken;
                    }
                }
                () = sleep_until(deadline) => match overdue {
                    // Queries read before the end are still answered.
                    CloseCause::Partial => self.end(CloseCause::Partial),
                    CloseCause::Drain => self.state = State::Rest,
                    cause => return cause,
                },
            }
        }
    }

    /// Bytes of buffers beyond those that every connection may have.
    fn buffered_beyond(&self) -> usize {
        (self.input.capacity() + self.output.capacity()).saturating_sub(2 * KEEP_BYTES)
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

    /// When waiting ends, and why the connection is closed then.
    fn deadline(&self, blocked: bool) -> (Instant, CloseCause) {
        let config = &self.shared.config;
        let write = blocked.then(|| (self.taken + config.write, CloseCause::Write));
        let partial = self.partial_since.map(|since| (since + config.partial, CloseCause::Partial));
        // Forwards have a time budget of their own.
        let quiet = !blocked && self.input.is_empty() && self.in_flight.is_empty();
        let idle = quiet.then(|| (self.active + config.idle, CloseCause::Idle));
        let linger = match self.state {
            State::Leaving { since } if !blocked && self.in_flight.is_empty() => {
                Some((since.max(self.active) + LINGER, CloseCause::Drain))
            }
            _ => None,
        };
        let never = (Instant::now() + NEVER, CloseCause::Idle);
        [write, partial, idle, linger].into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(never)
    }

    /// Reads nothing more, and forgets an incomplete message.
    fn end(&mut self, cause: CloseCause) {
        self.state = State::Ended(cause);
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
                let view = core.context.view(&records, core.clock.now(), rotation).at(core.clock.steady());
                while let Some((message, after)) = next_message(rest) {
                    if !self.accepts() {
                        return true;
                    }
                    rest = after;
                    self.answer(&view, message, room);
                    if message.len() < wire::HEADER_BYTES {
                        // Its prefix lied, and so may all that follow.
                        rest = &[];
                        self.state = State::Ended(CloseCause::Length);
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
            Handled::Forward(forward) => {
                let Some(in_flight) = core.begin(self.transport, self.client.ip()) else {
                    let reply = core.refuse_forward(self.transport, message, forward, room);
                    shard.responses(reply.tally(), 1);
                    return self.put(&room[..reply.len], padded);
                };
                let request = server::request(
                    forward,
                    message,
                    room,
                    self.transport,
                    [self.client, self.stream.address()],
                    received,
                );
                let core = Arc::clone(core);
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
        if resolved.message.is_empty() {
            return shard.dropped(DropCause::Acl);
        }
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

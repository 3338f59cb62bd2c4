//! One thread that asks: as fast as answers come (closed loop), or at a fixed rate whatever comes (open loop).
//!
//! In the open loop a query's time counts from when it was due, so that a server that stops for a moment is charged
//! with every query it held up.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use holdfast::sys::{Batch, DatagramSocket, Interest, Peer, Poll};

use crate::{options::Options, subject::Subject, traffic::Asked};

/// Sockets to ask from; the kernel spreads them over a server's workers.
const SOCKETS: usize = 16;
/// Queries under way at once in the closed loop.
const WINDOW: u16 = 256;
/// Queries that may be under way at once in the open loop.
const OPEN_MAX: u16 = 32_768;
const WARM_UP: Duration = Duration::from_millis(200);
/// A query without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Run {
    /// Answers a second.
    pub rate: f64,
    /// Processor time of the server for each answer.
    pub each: Duration,
    /// Sorted.
    pub latencies_ns: Vec<u32>,
    pub lost: u64,
}

/// Queries under way, by their id.
struct Flights<'a> {
    asked: &'a [Asked],
    next: usize,
    begun: Instant,
    /// When each id was sent or due, in nanoseconds from `begun`; 0 if it is not under way.
    sent: Vec<u64>,
    /// Which question each id is.
    question: Vec<u32>,
    free: Vec<u16>,
    answers: bool,
    counting: bool,
    received: u64,
    latencies_ns: Vec<u32>,
}

impl<'a> Flights<'a> {
    fn new(asked: &'a [Asked], ids: u16, answers: bool) -> Self {
        Self {
            asked,
            next: 0,
            begun: Instant::now(),
            sent: vec![0; usize::from(ids)],
            question: vec![0; usize::from(ids)],
            free: (0..ids).rev().collect(),
            answers,
            counting: false,
            received: 0,
            latencies_ns: Vec::with_capacity(1 << 20),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }

    /// Writes the next query under an id.
    fn write(&mut self, id: u16, at: u64, out: &mut [u8]) -> usize {
        let place = self.next;
        self.next = (self.next + 1) % self.asked.len();
        let query = &self.asked[place].query;
        out[..query.len()].copy_from_slice(query);
        out[..2].copy_from_slice(&id.to_be_bytes());
        self.question[usize::from(id)] = u32::try_from(place).unwrap();
        self.sent[usize::from(id)] = at.max(1);
        query.len()
    }

    /// Takes an answer in; gives its id if it was under way.
    fn take(&mut self, answer: &[u8], now: u64) -> Option<u16> {
        let id = u16::from_be_bytes(*answer.first_chunk()?);
        let sent = std::mem::take(self.sent.get_mut(usize::from(id))?);
        if sent == 0 {
            return None;
        }
        if self.answers {
            let asked = &self.asked[usize::try_from(self.question[usize::from(id)]).unwrap()];
            let answers = u16::from_be_bytes([answer[6], answer[7]]);
            let found = (answer[2] & 0x80, answer[3] & 0x0F, answers);
            assert_eq!(found, (0x80, asked.rcode, asked.answers), "a wrong answer to {:?}", asked.query);
        }
        if self.counting {
            self.received += 1;
            self.latencies_ns.push(u32::try_from(now.saturating_sub(sent)).unwrap_or(u32::MAX));
        }
        Some(id)
    }

    /// Gives up what was sent too long ago.
    fn give_up(&mut self, now: u64) -> Vec<u16> {
        let limit = u64::try_from(LOST.as_nanos()).unwrap();
        let lost = |&(_, &sent): &(usize, &u64)| sent != 0 && now.saturating_sub(sent) > limit;
        let ids: Vec<usize> = self.sent.iter().enumerate().filter(lost).map(|(id, _)| id).collect();
        ids.into_iter()
            .map(|id| {
                self.sent[id] = 0;
                u16::try_from(id).unwrap()
            })
            .collect()
    }
}

/// Counts from the end of the warm-up, to the end of the run.
struct Meter {
    start: Instant,
    end: Instant,
    processor: Option<(Instant, Duration)>,
}

impl Meter {
    fn new(time: Duration) -> Self {
        let start = Instant::now() + WARM_UP;
        Self { start, end: start + time, processor: None }
    }

    /// False when the run is over.
    fn goes_on(&mut self, subject: &Subject, flights: &mut Flights<'_>) -> bool {
        let now = Instant::now();
        if self.processor.is_none() && now >= self.start {
            self.processor = Some((now, subject.processor_time()));
            flights.counting = true;
        }
        now < self.end
    }

    fn run(self, subject: &Subject, flights: Flights<'_>, lost: u64) -> Run {
        let (start, before) = self.processor.expect("a run is longer than its warm-up");
        let processor = subject.processor_time().saturating_sub(before);
        let elapsed = start.elapsed();
        let mut latencies_ns = flights.latencies_ns;
        latencies_ns.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let received = flights.received as f64;
        Run { rate: received / elapsed.as_secs_f64(), each: processor.div_f64(received.max(1.0)), latencies_ns, lost }
    }
}

fn sockets() -> Vec<DatagramSocket> {
    (0..SOCKETS).map(|_| DatagramSocket::bind(([127, 0, 0, 1], 0).into(), false).unwrap()).collect()
}

/// Asks again as soon as an answer comes, with [`WINDOW`] queries under way.
pub fn closed(subject: &Subject, asked: &[Asked], shared: bool, options: &Options) -> Run {
    let (sockets, server) = (sockets(), Peer::new(subject.address()));
    let mut poll = Poll::new(sockets.iter().map(|socket| (socket.as_fd(), Interest::Read)));
    let mut flights = Flights::new(asked, WINDOW, subject.answers());
    let mut out = [0; 512];
    let mut begin = |flights: &mut Flights<'_>, id: u16| {
        let length = flights.write(id, flights.now(), &mut out);
        sockets[usize::from(id) % SOCKETS].send(&out[..length], &server).unwrap();
    };
    while let Some(id) = flights.free.pop() {
        begin(&mut flights, id);
    }
    let (mut batch, mut lost) = (Batch::new(), 0);
    let mut meter = Meter::new(options.time);
    while meter.goes_on(subject, &mut flights) {
        let mut quiet = true;
        for socket in &sockets {
            let Ok(received) = batch.receive(socket, false) else { continue };
            quiet = false;
            let now = flights.now();
            for place in 0..received {
                let (answer, room) = batch.exchange(place);
                if let Some(id) = flights.take(answer, now) {
                    let length = flights.write(id, now, room);
                    batch.reply(place, length);
                }
            }
            while batch.unsent() > 0 {
                batch.send(socket).unwrap();
            }
        }
        if quiet && shared {
            poll.wait(Some(Duration::from_millis(1))).unwrap();
        }
        if quiet {
            for id in flights.give_up(flights.now()) {
                lost += u64::from(flights.counting);
                begin(&mut flights, id);
            }
        }
    }
    meter.run(subject, flights, lost)
}

/// Asks `rate` times a second.
pub fn open(subject: &Subject, asked: &[Asked], rate: f64, shared: bool, options: &Options) -> Run {
    let (sockets, server) = (sockets(), Peer::new(subject.address()));
    let mut poll = Poll::new(sockets.iter().map(|socket| (socket.as_fd(), Interest::Read)));
    let mut flights = Flights::new(asked, OPEN_MAX, subject.answers());
    let (mut batch, mut out, mut lost, mut turn) = (Batch::new(), [0; 512], 0, 0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below a second")]
    let period = (1e9 / rate) as u64;
    let mut due = flights.now();
    let mut meter = Meter::new(options.time);
    while meter.goes_on(subject, &mut flights) {
        while due <= flights.now() {
            match flights.free.pop() {
                Some(id) => {
                    let length = flights.write(id, due, &mut out);
                    turn += 1;
                    sockets[turn % SOCKETS].send(&out[..length], &server).unwrap();
                }
                None => lost += u64::from(flights.counting),
            }
            due += period;
        }
        let mut quiet = true;
        for socket in &sockets {
            let Ok(received) = batch.receive(socket, false) else { continue };
            quiet = false;
            let now = flights.now();
            for place in 0..received {
                if let Some(id) = flights.take(batch.exchange(place).0, now) {
                    flights.free.push(id);
                }
            }
            // A query that is due does not wait for the other sockets.
            if due <= now {
                break;
            }
        }
        if quiet && shared {
            poll.wait(Some(Duration::ZERO)).unwrap();
            std::thread::yield_now();
        }
    }
    for id in flights.give_up(flights.now()) {
        lost += 1;
        flights.free.push(id);
    }
    meter.run(subject, flights, lost)
}

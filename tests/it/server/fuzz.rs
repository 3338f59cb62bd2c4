//! The batched path with whatever comes: mutated queries in bursts, through a socket.

use std::{env, sync::Arc, time::Duration, time::Instant};

use futures::future::{BoxFuture, FutureExt, ready};
use hickory_proto::rr::RecordType;
use holdfast::dns::{Config, ForwardRequest, Resolve, Resolved, ServedFrom};
use socket2::SockRef;

use crate::support::dns::{Script, bind, edns_query, query, receive, records, serve_with, udp};

/// How long to go on; a thousand bursts unless set, which is what the test command runs.
const SECONDS: &str = "HOLDFAST_FUZZ_SECONDS";
/// Datagrams in a burst; the receive buffer holds them all.
const BURST: u16 = 64;
/// Forwards in flight at most. Their answers come when tokio has its turn, on a busy machine those of many bursts at once. The
/// buffer of a client that sends and does not read yet holds 256 short answers, or 166 of 200 bytes: with thousands in flight
/// it runs over, and the answer that ends a burst is lost.
const FORWARDS: usize = 64;
/// Room for all of them and a burst of long answers, where the system allows it.
const RECEIVE_ROOM_BYTES: usize = 1 << 20;

/// Answers a forward with a bare header.
struct Bare;

impl Resolve for Bare {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let message = [&request.query[..2], &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        ready(Resolved { message, from: ServedFrom::Upstream }).boxed()
    }
}

/// Numbers without pattern, the same in every run (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// A few changes to one of the seeds.
fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut message = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(4) {
        let place = random.below(message.len());
        match random.below(6) {
            0 => message.truncate(place),
            1 => message.extend((0..random.below(1_500)).map(|_| random.byte()).collect::<Vec<_>>()),
            2 => {
                let other = &seeds[random.below(seeds.len())];
                message.truncate(place);
                message.extend_from_slice(&other[random.below(other.len())..]);
            }
            // The header, where a change says most.
            3 if message.len() >= 12 => message[2 + place % 10] = random.byte(),
            _ if message.is_empty() => {}
            4 => message[place] ^= 1 << random.below(8),
            _ => message[place] = random.byte(),
        }
    }
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_is_answered_or_dropped_and_counted() {
    let server = serve_with(
        bind(&["127.0.0.1:0"], Config { workers: 1, forwards_max: FORWARDS, ..Config::default() }),
        records(),
        &Script::new(),
        Arc::new(Bare),
    );
    let seeds: Vec<Vec<u8>> = ["web.prod.svc.cluster.local.", "many.prod.svc.cluster.local.", "example.org.", "."]
        .iter()
        .flat_map(|name| [query(1, name, RecordType::A), edns_query(1, name, RecordType::SRV, 4_096)])
        .chain([query(1, "outside.prod.svc.cluster.local.", RecordType::AAAA)])
        .chain([query(1, "1.0.0.10.in-addr.arpa.", RecordType::PTR)])
        .collect();
    let last = query(0xFFFF, "web.prod.svc.cluster.local.", RecordType::A);
    let end = env::var(SECONDS).ok().map(|text| Instant::now() + Duration::from_secs(text.parse().unwrap()));
    let (client, mut random, mut sent, mut bursts) = (udp(server.address()), Random(1), 0_u64, 0);
    // With less, the bound on forwards has to do.
    let _ = SockRef::from(&client).set_recv_buffer_size(RECEIVE_ROOM_BYTES);
    while end.map_or(bursts < 1_000, |end| Instant::now() < end) {
        bursts += 1;
        for id in 0..BURST {
            let mut message = mutate(&mut random, &seeds);
            if let Some(place) = message.first_chunk_mut() {
                *place = id.to_be_bytes();
            }
            client.send(&message).unwrap();
            sent += 1;
        }
        client.send(&last).unwrap();
        sent += 1;
        // The last of a burst is always answered, and what is answered can be read.
        while receive(&client).id != 0xFFFF {}
    }
    server.wait_for_count("holdfast_dns_requests_total", &[], sent).await;
    server.wait_for_count("holdfast_dns_forwards_in_flight", &[], 0).await;
    server.wait_for_sum(&["holdfast_dns_responses_total", "holdfast_dns_drops_total"], &[], sent).await;
    let answered = server.count("holdfast_dns_responses_total", &[]);
    let dropped = server.count("holdfast_dns_drops_total", &[]);
    assert_eq!(answered + dropped, sent);
    assert!(dropped > 0 && answered > dropped, "{answered} answered, {dropped} dropped");
    assert_eq!(server.count("holdfast_dns_drops_total", &[("reason", "send")]), 0);
}

//! How the listeners leave: nothing that was received is lost.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::Config;

use crate::support::dns::{Server, Tcp, bind, gist, query, receive, records, serve, start, udp};

const WEB: &str = "web.prod.svc.cluster.local.";
const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_received_before_the_drain_is_answered_whole() {
    let bound = bind(&["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"], Config { workers: 2, ..Config::default() });
    let mut asked = bound.addresses().to_vec();
    asked[2].set_ip([127, 0, 0, 1].into());
    let clients: Vec<_> = asked.iter().map(|&asked| udp(asked)).collect();
    for id in 0..150 {
        for client in &clients {
            client.send(&query(id, WEB, RecordType::A)).unwrap();
        }
    }
    let mut tcp = Tcp::connect(asked[0]);
    for id in 0..150 {
        tcp.send(&query(id, WEB, RecordType::A));
    }
    serve(bound, records()).running.drain(LONG).await;
    for client in &clients {
        for id in 0..150 {
            assert_eq!(receive(client).id, id);
        }
    }
    for id in 0..150 {
        assert_eq!(tcp.receive().id, id);
    }
    assert!(tcp.try_receive().is_none(), "closed behind the last answer");
}

/// A server with a query over UDP and one over TCP that wait for upstream.
async fn with_forwards_in_flight() -> (Server, UdpSocket, Tcp) {
    let server = start(Config::default());
    let client = udp(server.address());
    let mut tcp = Tcp::connect(server.address());
    client.send(&query(1, "slow.example.org.", RecordType::A)).unwrap();
    tcp.send(&query(2, "slow.example.org.", RecordType::A));
    server.script.wait_for(2).await;
    (server, client, tcp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_in_flight_are_waited_for() {
    let (server, client, mut tcp) = with_forwards_in_flight().await;
    let drain = tokio::spawn(server.running.drain(LONG));
    server.script.gate.add_permits(2);
    drain.await.unwrap();
    assert_eq!(gist(&receive(&client)), (1, ResponseCode::NoError, 0));
    assert_eq!(gist(&tcp.receive()), (2, ResponseCode::NoError, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_in_flight_at_the_deadline_are_servfail() {
    let (server, client, mut tcp) = with_forwards_in_flight().await;
    server.running.drain(Duration::ZERO).await;
    assert_eq!(gist(&receive(&client)), (1, ResponseCode::ServFail, 0));
    assert_eq!(gist(&tcp.receive()), (2, ResponseCode::ServFail, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_half_sent_connections_do_not_hold_up_the_end() {
    let server = start(Config::default());
    let mut idle = Tcp::connect(server.address());
    idle.send(&query(1, WEB, RecordType::A));
    idle.receive();
    let mut half = Tcp::connect(server.address());
    half.send(&query(1, WEB, RecordType::A));
    half.receive();
    std::io::Write::write_all(&mut half.0, b"\0").unwrap();
    server.running.drain(LONG).await;
    assert!(idle.try_receive().is_none() && half.try_receive().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_to_a_server_on_the_same_ports_loses_no_query() {
    let old = start(Config { workers: 2, ..Config::default() });
    let address = old.address();
    let joining = Config { workers: 2, join: true, ..Config::default() };
    let new = serve(bind(&[&address.to_string()], joining), records());
    let done = AtomicBool::new(false);
    let handle = tokio::runtime::Handle::current();
    let (registry, running) = (old.registry, old.running);
    let asked: u64 = thread::scope(|scope| {
        let done = &done;
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut asked = 0;
                    // A new socket each time, so that the kernel spreads them anew; every question has its answer.
                    while !done.load(Ordering::Relaxed) {
                        let client = udp(address);
                        client.send(&query(7, WEB, RecordType::A)).unwrap();
                        assert_eq!(gist(&receive(&client)), (7, ResponseCode::NoError, 1));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let new = &new;
        let (registry, handle) = (&registry, &handle);
        scope.spawn(move || {
            let served = || crate::support::dns::count(registry, "holdfast_dns_responses_total", &[]);
            while served() < 100 {
                thread::yield_now();
            }
            handle.block_on(running.drain(LONG));
            let after = new.count("holdfast_dns_responses_total", &[]);
            while new.count("holdfast_dns_responses_total", &[]) < after + 100 {
                thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
        });
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(asked >= 200, "{asked}");
}

//! What is counted adds up.

use hickory_proto::rr::RecordType;
use holdfast::dns::Config;

use crate::support::dns::{Tcp, query, receive, start, udp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_answers_and_drops_and_forwards() {
    // Room for those that are answered and not yet counted as over.
    let server = start(Config { workers: 2, forwards_max: 30, ..Config::default() });
    let web = query(1, "web.prod.svc.cluster.local.", RecordType::A);
    let mut response = web.clone();
    response[2] |= 0x80;
    let slow = query(2, "slow.example.org.", RecordType::AAAA);
    let fast = query(3, "example.org.", RecordType::MX);
    // Each is sent five times over each transport: what is sent, and whether an answer comes at once.
    let mix = [(&web, true), (&response, false), (&slow, false), (&fast, true), (&web[..7].to_vec(), false)];
    for _ in 0..5 {
        for (message, answered) in mix {
            let client = udp(server.address());
            client.send(message).unwrap();
            let mut tcp = Tcp::connect(server.address());
            tcp.send(message);
            if message == &slow {
                // Kept open, or its answer would have nowhere to go.
                std::mem::forget(tcp);
            } else if answered {
                receive(&client);
                tcp.receive();
            }
        }
    }
    // Twice five of everything came in; the forwards that are left in flight are the slow ones.
    server.wait_for_count("holdfast_dns_requests_total", &[], 50).await;
    server.wait_for_count("holdfast_dns_forwards_in_flight", &[], 10).await;
    server.wait_for_count("holdfast_dns_responses_total", &[], 20).await;
    server.wait_for_count("holdfast_dns_drops_total", &[], 20).await;
    for (metric, with, expected) in [
        ("holdfast_dns_requests_total", &[("proto", "udp")][..], 25),
        ("holdfast_dns_requests_total", &[("proto", "tcp"), ("type", "A")], 5),
        ("holdfast_dns_requests_total", &[("type", "AAAA")], 10),
        ("holdfast_dns_requests_total", &[("type", "MX")], 10),
        ("holdfast_dns_requests_total", &[("type", "other")], 20),
        ("holdfast_dns_responses_total", &[("rcode", "NOERROR"), ("from", "cluster")], 10),
        ("holdfast_dns_responses_total", &[("from", "upstream")], 10),
        ("holdfast_dns_drops_total", &[("reason", "response")], 10),
        ("holdfast_dns_drops_total", &[("reason", "short")], 10),
        ("holdfast_dns_request_duration_seconds", &[("from", "cluster")], 10),
    ] {
        assert_eq!(server.count(metric, with), expected, "{metric} {with:?}");
    }
    server.script.gate.add_permits(10);
    server.wait_for_count("holdfast_dns_forwards_in_flight", &[], 0).await;
    server.wait_for_count("holdfast_dns_responses_total", &[], 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_of_a_client_that_left_are_drops() {
    let server = start(Config::default());
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&query(1, "slow.example.org.", RecordType::A));
    server.script.wait_for(1).await;
    // Closing with bytes unread resets the connection.
    tcp.send(&query(2, "web.prod.svc.cluster.local.", RecordType::A));
    server.wait_for_count("holdfast_dns_responses_total", &[], 1).await;
    // A response is counted before it is sent.
    assert_eq!(tcp.0.peek(&mut [0]).unwrap(), 1);
    drop(tcp);
    server.wait_for_count("holdfast_dns_drops_total", &[("reason", "gone")], 1).await;
    server.wait_for_count("holdfast_dns_forwards_in_flight", &[], 0).await;
    server.wait_for_count("holdfast_dns_tcp_connections", &[], 0).await;
}

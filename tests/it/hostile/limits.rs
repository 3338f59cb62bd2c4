//! What a client may take of what others wait for. The cost of an answer is counted in `tests/callgrind.rs`.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::Config;

use crate::support::dns::{PATIENCE, query, receive, start};

/// A client takes half of the places of forwards, and another one still gets all it asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_names_nobody_answers_leaves_places_to_others() {
    let server = start(Config { forwards_max: 32, workers: 1, ..Config::default() });
    let socket = |last: u8| {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        socket.connect(server.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (attacker, victim) = (socket(2), socket(3));
    for id in 0..200 {
        attacker.send(&query(id, &format!("slow{id}.example."), RecordType::A)).unwrap();
    }
    for _ in 0..184 {
        assert_eq!(receive(&attacker).response_code, ResponseCode::ServFail, "beyond half of the places");
    }
    for id in 0..100 {
        victim.send(&query(id, "www.example.", RecordType::A)).unwrap();
        assert_eq!(receive(&victim).response_code, ResponseCode::NoError, "{id}");
    }
    server.script.gate.add_permits(16);
    for _ in 0..16 {
        assert_eq!(receive(&attacker).response_code, ResponseCode::NoError);
    }
    server.running.drain(Duration::from_secs(1)).await;
}

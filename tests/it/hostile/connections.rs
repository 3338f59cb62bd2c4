//! DNS over TCP: memory that clients make grow, and answers they never take.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;
use holdfast::dns::{Config, TcpConfig};

use crate::support::{
    dns::{Tcp, ask_tcp, edns_query, framed, query, start},
    process::Agent,
};

const CONNECTIONS: usize = 64;
const QUESTIONS: u16 = 31;

/// A question with an option of padding that makes it as long as TCP takes.
fn padded(id: u16) -> Vec<u8> {
    let mut message = edns_query(id, &format!("n{id}.outside.example."), RecordType::A, 1_232);
    let room = 65_535 - message.len() - 4;
    let length = u16::try_from(room + 4).unwrap();
    let at = message.len() - 2;
    message[at..].copy_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&[0, 12]);
    message.extend_from_slice(&u16::try_from(room).unwrap().to_be_bytes());
    message.resize(65_535, 0);
    message
}

/// 127 MB of padding, in questions that wait for an upstream that says nothing.
#[test]
fn padding_is_not_kept_while_its_questions_wait() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let none = home.path().join("none.yaml");
    std::fs::write(&none, "").unwrap();
    let upstream = silent.local_addr().unwrap().to_string();
    let agent = Agent::start(home.path(), &["--upstream", &upstream, "--manifests", none.to_str().unwrap()]);
    let before = agent.resident_bytes();
    let clients: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = TcpStream::connect(agent.dns).unwrap();
            for id in 0..QUESTIONS {
                // Past its share a client is refused, and past the memory for all of them disconnected.
                let _ = client.write_all(&framed(&padded(id)));
            }
            client
        })
        .collect();
    let grown = agent.resident_bytes_most().saturating_sub(before);
    assert!(grown <= 48 << 20, "{} MiB", grown >> 20);
    drop(clients);
    let web = ask_tcp(agent.dns, &query(1, "none.default.svc.cluster.local.", RecordType::A));
    assert_eq!(web.id, 1);
}

/// What a client does not take is bounded in the kernel, and goes with a reset when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_taken_end_in_a_reset() {
    let tcp = TcpConfig { write: Duration::from_millis(100), ..TcpConfig::default() };
    let server = start(Config { tcp, workers: 1, ..Config::default() });
    let mut client = Tcp::connect(server.address());
    client.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let question = framed(&query(1, "many.prod.svc.cluster.local.", RecordType::A));
    let began = Instant::now();
    let mut ended = loop {
        if let Err(error) = client.0.write_all(&question) {
            break error.kind();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it takes in questions for ever");
    };
    let (mut taken, mut bytes) = (0, vec![0; 1 << 16]);
    loop {
        match client.0.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => taken += length,
            Err(error) => {
                ended = error.kind();
                break;
            }
        }
    }
    assert_eq!(ended, std::io::ErrorKind::ConnectionReset, "after {taken} bytes");
    assert!(taken < 4 << 20, "{taken} bytes were on their way");
    assert_eq!(server.count("holdfast_dns_tcp_closed_total", &[("reason", "write")]), 1);
}

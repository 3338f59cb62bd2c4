//! DoQ: what a stream and a connection can get wrong.

use std::net::UdpSocket;

use holdfast::{
    dns::Transport,
    simulate::encrypted::{Connection, Protocol, framed},
};
use quinn::{ConnectionError, VarInt};

use super::{Encrypted, web};

/// The error code with which the server closes a connection after it was sent `bytes` in a stream; `None` if it answers.
async fn closed_with(server: &Encrypted, bytes: &[u8]) -> Option<VarInt> {
    let Connection::Quic(connection, _endpoint) = server.connect(Protocol::Quic).await else { unreachable!() };
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    if receive.read_to_end(70_000).await.is_ok_and(|answer| !answer.is_empty()) {
        return None;
    }
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_the_rules_ends_its_connection() {
    let server = Encrypted::impatient();
    let mut zero = web();
    zero[..2].fill(0);
    assert_eq!(closed_with(&server, &framed(&zero)).await, None, "a right one does not");
    let protocol_error = Some(VarInt::from_u32(2));
    assert_eq!(closed_with(&server, &framed(&web())).await, protocol_error, "an id");
    assert_eq!(closed_with(&server, b"").await, protocol_error, "nothing");
    for (bytes, what) in [
        (framed(&zero)[..20].to_vec(), "less than its length says"),
        ([framed(&zero), framed(&zero)].concat(), "two queries in a stream"),
        (framed(&[0; 11]), "shorter than a header"),
    ] {
        assert!(closed_with(&server, &bytes).await.is_some(), "{what}");
    }
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_end_has_its_time_and_no_more() {
    let server = Encrypted::impatient();
    let Connection::Quic(connection, _endpoint) = server.connect(Protocol::Quic).await else { unreachable!() };
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&web())[..10]).await.unwrap();
    assert!(receive.read_to_end(70_000).await.is_err());
    server.wait_for_closed("partial", 1).await;
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_half_handshakes_keep_no_honest_client_out() {
    let server = Encrypted::impatient();
    let address = server.at(Transport::Quic);
    // Far more clients begin than may be under way without a proof of their address; none goes on.
    let mut sockets = Vec::new();
    for number in 0..100_u8 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(address).unwrap();
        socket.send(&[number; 1_200]).unwrap();
        socket.send(&initial(number)).unwrap();
        sockets.push(socket);
    }
    server.answers_everybody().await;
    // What a client gets before it has proven its address is at most three times what it sent (RFC 9000, 8.1).
    for socket in &sockets {
        let mut received = 0;
        let mut datagram = [0; 2_000];
        while let Ok(length) = socket.recv(&mut datagram) {
            received += length;
        }
        assert!(received <= 3 * 2_400, "{received} bytes");
    }
}

/// The first packet of a connection (RFC 9000, 17.2.2) with a payload that nobody can decrypt.
fn initial(number: u8) -> Vec<u8> {
    let mut packet = vec![0xC0, 0, 0, 0, 1, 8];
    packet.extend([number; 8]);
    packet.extend([8, number, 1, 2, 3, 4, 5, 6, 7, 0, 0x44, 0x9E]);
    packet.resize(1_200, number);
    packet
}

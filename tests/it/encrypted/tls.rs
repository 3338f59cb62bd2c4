//! DoT.

use std::time::Duration;

use holdfast::{
    dns::{TcpConfig, Transport},
    simulate::encrypted::{Connection, Protocol, client_config, framed, receive},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Encrypted, web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_stops_is_ended_and_others_go_on() {
    let server = Encrypted::impatient();
    let mut stopped = Vec::new();
    for transport in [Transport::Tls, Transport::Https] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(server.at(transport)).await.unwrap();
            // The beginning of a ClientHello.
            stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
            stopped.push(stream);
        }
    }
    server.answers_everybody().await;
    server.wait_for_closed("partial", 40).await;
    for mut stream in stopped {
        assert!(matches!(stream.read_to_end(&mut Vec::new()).await, Ok(_) | Err(_)), "it is closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_tls_is_closed() {
    let server = Encrypted::impatient();
    for transport in [Transport::Tls, Transport::Https] {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &framed(&web()), &[0x16, 3, 1, 0xFF, 0xFF], &[0; 100]] {
            let mut stream = TcpStream::connect(server.at(transport)).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    server.answers_everybody().await;
}

/// Whether a client that offers these protocols, in this version of TLS at most, gets through its handshake.
async fn handshakes(server: &Encrypted, transport: Transport, alpn: &[&[u8]]) -> bool {
    let address = server.at(transport);
    let mut config = client_config(b"");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let Ok(mut stream) = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await else {
        return false;
    };
    // With TLS 1.3 the client is done first: what the server thinks of it comes with the next bytes.
    if transport == Transport::Tls {
        stream.write_all(&framed(&web())).await.unwrap();
        return receive(&mut stream).await.is_ok();
    }
    stream.read_u8().await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_protocol_gets_no_answer() {
    let server = Encrypted::start(TcpConfig::default());
    for (transport, alpn, expected) in [
        (Transport::Tls, &[&b"dot"[..]][..], true),
        (Transport::Tls, &[], true),
        (Transport::Tls, &[b"http/1.1", b"dot"], true),
        (Transport::Tls, &[b"h2"], false),
        (Transport::Https, &[b"h2"], true),
        (Transport::Https, &[b"http/1.1"], false),
        (Transport::Https, &[], false),
    ] {
        assert_eq!(handshakes(&server, transport, alpn).await, expected, "{transport:?} {alpn:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queries_at_once_and_a_slow_one_are_answered_as_they_are_ready() {
    let server = Encrypted::start(TcpConfig::default());
    let Connection::Tls(mut stream) = server.connect(Protocol::Tls).await else { unreachable!() };
    let mut slow = super::query(1, "slow.example.", super::RecordType::A);
    slow[..2].copy_from_slice(&[0, 1]);
    let mut all = framed(&slow);
    for id in 2..=60_u8 {
        let mut message = web();
        message[1] = id;
        all.extend(framed(&message));
    }
    stream.write_all(&all).await.unwrap();
    for id in 2..=60 {
        assert_eq!(receive(&mut stream).await.unwrap()[..2], [0, id]);
    }
    server.server.script.gate.add_permits(1);
    assert_eq!(receive(&mut stream).await.unwrap()[..2], [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_comes_byte_by_byte_has_its_time_and_no_more() {
    let server = Encrypted::impatient();
    let Connection::Tls(mut stream) = server.connect(Protocol::Tls).await else { unreachable!() };
    for byte in framed(&web()) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(receive(&mut stream).await.is_ok());
    stream.write_all(&framed(&web())[..10]).await.unwrap();
    server.wait_for_closed("partial", 1).await;
    assert!(receive(&mut stream).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_was_received_and_says_goodbye() {
    let server = Encrypted::start(TcpConfig::default());
    let mut connections = Vec::new();
    for protocol in [Protocol::Tls, Protocol::Https, Protocol::Quic] {
        let mut connection = server.connect(protocol).await;
        connection.ask(&web()).await.unwrap();
        connections.push(connection);
    }
    let slow = super::query(9, "slow.example.", super::RecordType::A);
    let asking = connections.into_iter().map(|mut connection| {
        let slow = slow.clone();
        tokio::spawn(async move { connection.ask(&slow).await.map(|answer| answer[..2].to_vec()) })
    });
    let asking: Vec<_> = asking.collect();
    let Encrypted { server, .. } = server;
    server.script.wait_for(3).await;
    let draining = tokio::spawn(server.running.drain(Duration::from_secs(5)));
    server.script.gate.add_permits(3);
    for asked in asking {
        assert_eq!(asked.await.unwrap().unwrap(), [0, 9]);
    }
    draining.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_renew_its_keys_and_one_that_does_nothing_else_keeps_nobody_out() {
    let server = Encrypted::start(TcpConfig::default());
    let Connection::Tls(mut stream) = server.connect(Protocol::Tls).await else { unreachable!() };
    for _ in 0..20 {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        stream.write_all(&framed(&web())).await.unwrap();
        assert_eq!(receive(&mut stream).await.unwrap()[..2], web()[..2]);
    }
    // Each renewal asks for one of the server's; rustls ends a connection that has nothing else to say.
    loop {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        if stream.flush().await.is_err() {
            break;
        }
    }
    server.wait_for_closed("broken", 1).await;
    server.answers_everybody().await;
}

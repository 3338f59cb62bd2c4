//! DoQ: what a stream and a connection can get wrong.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, poll};
use holdfast::{
    dns::{TcpConfig, Transport},
    simulate::encrypted::{Connection, Protocol, client_config, framed},
};
use quinn::{ClientConfig, ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use rustls::pki_types::PrivateKeyDer;

use super::{Encrypted, PARTIAL, query, web};

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

/// A client's end on a port of its own, with these protocol names and this transport.
fn endpoint(alpn: &[&[u8]], transport: quinn::TransportConfig) -> Endpoint {
    let mut config = client_config(b"");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_protocol_is_turned_away() {
    let server = Encrypted::start(TcpConfig::default());
    let mut refused = 0;
    for alpn in [&[&b"h3"[..]][..], &[b"dot", b"h2"], &[]] {
        let endpoint = endpoint(alpn, quinn::TransportConfig::default());
        let error = endpoint.connect(server.at(Transport::Quic), "dns.example").unwrap().await.unwrap_err();
        // TLS' alert "no application protocol" (RFC 9001, 8.1).
        assert!(error.to_string().contains("120") || error.to_string().contains("protocol"), "{error}");
        refused += 1;
        server.wait_for_closed("broken", refused).await;
    }
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_longer_than_a_message_loses_its_stream_alone() {
    let server = Encrypted::start(TcpConfig::default());
    let Connection::Quic(connection, _endpoint) = server.connect(Protocol::Quic).await else { unreachable!() };
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // It may be stopped before all of it is sent.
    let _ = send.write_all(&vec![0; 100_000]).await;
    assert!(receive.read_to_end(70_000).await.is_err());
    let mut zero = web();
    zero[..2].fill(0);
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&zero)).await.unwrap();
    send.finish().unwrap();
    assert!(receive.read_to_end(70_000).await.unwrap().len() > 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_and_reset_keep_nobody_out() {
    let server = Encrypted::start(TcpConfig::default());
    let Connection::Quic(connection, _endpoint) = server.connect(Protocol::Quic).await else { unreachable!() };
    for _ in 0..1_000 {
        let Ok((mut send, mut receive)) = connection.open_bi().await else { break };
        let _ = send.write_all(&framed(&web())[..5]).await;
        let _ = send.reset(VarInt::from_u32(1));
        let _ = receive.stop(VarInt::from_u32(1));
    }
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_so_many_streams_under_way_and_no_more() {
    let config = TcpConfig { in_flight_max: 8, ..TcpConfig::default() };
    let server = Encrypted::start(config.clone());
    let Connection::Quic(connection, _endpoint) = server.connect(Protocol::Quic).await else { unreachable!() };
    let mut slow = query(0, "slow.example.", super::RecordType::A);
    slow[..2].fill(0);
    let mut streams = Vec::new();
    for _ in 0..config.in_flight_max {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&framed(&slow)).await.unwrap();
        send.finish().unwrap();
        streams.push(receive);
    }
    server.server.script.wait_for(config.in_flight_max).await;
    let mut next = connection.open_bi().boxed();
    assert!(poll!(&mut next).is_pending(), "one stream more");
    server.answers_everybody().await;
    server.server.script.gate.add_permits(config.in_flight_max);
    assert!(next.await.is_ok(), "answers make room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_loses_its_connection() {
    let server = Encrypted::start(TcpConfig { write: Duration::from_millis(50), ..TcpConfig::default() });
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(0));
    let endpoint = endpoint(&[b"doq"], transport);
    let connection = endpoint.connect(server.at(Transport::Quic), "dns.example").unwrap().await.unwrap();
    let mut zero = web();
    zero[..2].fill(0);
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&zero)).await.unwrap();
    send.finish().unwrap();
    server.wait_for_closed("write", 1).await;
}

/// Passes datagrams between a client and a server, from one of two addresses.
struct Relay {
    /// What the client takes for the server.
    address: SocketAddr,
    /// Datagrams of the client leave from the second address.
    moved: AtomicBool,
    /// Nothing reaches the client, and of the client nothing more is passed on once this many bytes are.
    cut_after: Option<usize>,
    /// Bytes to the server, and from it to either address.
    sent: AtomicUsize,
    received: [AtomicUsize; 2],
}

impl Relay {
    async fn start(server: SocketAddr, cut_after: Option<usize>) -> Arc<Self> {
        let bind = || tokio::net::UdpSocket::bind("127.0.0.1:0");
        let (inner, outer) = (bind().await.unwrap(), [bind().await.unwrap(), bind().await.unwrap()]);
        let relay = Arc::new(Self {
            address: inner.local_addr().unwrap(),
            moved: AtomicBool::new(false),
            cut_after,
            sent: AtomicUsize::new(0),
            received: Default::default(),
        });
        let passing = Arc::clone(&relay);
        tokio::spawn(async move { passing.pass(server, &inner, &outer).await });
        relay
    }

    async fn pass(&self, server: SocketAddr, inner: &tokio::net::UdpSocket, outer: &[tokio::net::UdpSocket; 2]) {
        let mut client = None;
        let [mut from_client, mut to_first, mut to_second] = [[0; 2_000]; 3];
        loop {
            let (received, from) = tokio::select! {
                received = inner.recv_from(&mut from_client) => {
                    let Ok((length, address)) = received else { continue };
                    client = Some(address);
                    if self.cut_after.is_none_or(|most| self.sent.load(Ordering::SeqCst) < most) {
                        self.sent.fetch_add(length, Ordering::SeqCst);
                        let from = &outer[usize::from(self.moved.load(Ordering::SeqCst))];
                        from.send_to(&from_client[..length], server).await.unwrap();
                    }
                    continue;
                }
                received = outer[0].recv(&mut to_first) => (received.map(|length| &to_first[..length]), 0),
                received = outer[1].recv(&mut to_second) => (received.map(|length| &to_second[..length]), 1),
            };
            let Ok(datagram) = received else { continue };
            self.received[from].fetch_add(datagram.len(), Ordering::SeqCst);
            if let Some(client) = client.filter(|_| self.cut_after.is_none()) {
                inner.send_to(datagram, client).await.unwrap();
            }
        }
    }
}

/// A certificate that is far longer than three first packets.
fn long_certificate() -> Arc<dyn rustls::server::ResolvesServerCert> {
    let names: Vec<String> = (0..1_000).map(|nth| format!("dns-{nth}.example")).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let key = rustls::sign::CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
    Arc::new(rustls::sign::SingleCertAndKey::from(key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_proves_nothing_is_sent_three_times_what_came_from_it_at_most() {
    let server = Encrypted::with(TcpConfig { partial: PARTIAL, ..TcpConfig::default() }, long_certificate());
    // A forged address never sees what the server sends.
    let relay = Relay::start(server.at(Transport::Quic), Some(1)).await;
    let endpoint = endpoint(&[b"doq"], quinn::TransportConfig::default());
    let connecting = endpoint.connect(relay.address, "dns.example").unwrap();
    server.wait_for_closed("partial", 1).await;
    let [received, _] = &relay.received;
    // The relay may not have read it yet.
    while received.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // In this order: more may come in between.
    let received = received.load(Ordering::SeqCst);
    let sent = relay.sent.load(Ordering::SeqCst);
    assert!(received <= 3 * sent, "{received} bytes for {sent}");
    drop(connecting);
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_does_not_move_to_another_address() {
    let server = Encrypted::start(TcpConfig::default());
    let relay = Relay::start(server.at(Transport::Quic), None).await;
    let mut connection = Connection::open(Protocol::Quic, relay.address).await.unwrap();
    connection.ask(&web()).await.unwrap();
    relay.moved.store(true, Ordering::SeqCst);
    let before = relay.sent.load(Ordering::SeqCst);
    let asking = tokio::spawn(async move { connection.ask(&web()).await });
    while relay.sent.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    // The server has what came from the new address before what comes from the old one.
    relay.moved.store(false, Ordering::SeqCst);
    assert!(asking.await.unwrap().is_ok(), "sent again from the old address");
    assert_eq!(relay.received[1].load(Ordering::SeqCst), 0, "bytes to the new address");
}

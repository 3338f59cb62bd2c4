//! One address takes all it can get of every transport at once; another one loses nothing. The same with rates, times and memory is
//! `benches/fairness`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use bytes::Bytes;
use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::{
    dns::{Config, EncryptedConfig, TcpConfig, Transport},
    simulate::encrypted::{Connection, Protocol, client_config},
};
use http::Request;
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use rustls::pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::support::{
    certificate::certificate,
    dns::{PATIENCE, Server, ask_tcp, ask_udp, bind, framed, query, receive, records, serve},
    fleet::beside,
};

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Connections of each kind the attacker opens: alone as many as a source may have.
const CONNECTIONS: usize = 20;
const CONNECTIONS_MAX: usize = 40;
const FORWARDS_MAX: usize = 32;
const QUESTIONS: u16 = 20;

/// What the attacker keeps.
#[derive(Default)]
struct Kept {
    streams: Vec<TcpStream>,
    quic: Vec<(quinn::Connection, quinn::SendStream)>,
    udp: Option<UdpSocket>,
    others: Vec<Box<dyn std::any::Any + Send>>,
}

async fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ATTACKER, 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

/// Questions that wait for ever, over UDP.
fn flood(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ATTACKER, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in 0..100 {
        socket.send(&query(id, &format!("slow{id}.example."), RecordType::A)).unwrap();
    }
    // It has half of the places, and is refused the rest.
    for _ in 0..100 - FORWARDS_MAX / 2 {
        assert_eq!(receive(&socket).response_code, ResponseCode::ServFail);
    }
    socket
}

/// Bodies that do not end, on one connection of HTTP/2.
async fn endless_bodies(server: SocketAddr, kept: &mut Kept) {
    let name = ServerName::IpAddress(server.ip().into());
    // The server may have closed it for a younger one of this address.
    let Ok(stream) = TlsConnector::from(Arc::new(client_config(b"h2"))).connect(name, connect(server).await).await
    else {
        return;
    };
    let Ok((send, connection)) = h2::client::handshake(stream).await else { return };
    tokio::spawn(connection);
    let mut send = send;
    for _ in 0..8 {
        let Ok(mut ready) = send.ready().await else { return };
        let request = Request::post("https://127.0.0.1/dns-query").header("content-type", "application/dns-message");
        let Ok((response, mut body)) = ready.send_request(request.body(()).unwrap(), false) else { return };
        let _ = body.send_data(Bytes::from_static(&[0; 12]), false);
        kept.others.push(Box::new((response, body)));
        send = ready;
    }
}

async fn attack(server: &Server, at: impl Fn(Transport) -> SocketAddr) -> Kept {
    let mut kept = Kept::default();
    let mut endpoint = Endpoint::client((ATTACKER, 0).into()).unwrap();
    let crypto = QuicClientConfig::try_from(client_config(b"doq")).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    for _ in 0..CONNECTIONS {
        // Nothing, half a question, the beginning of a handshake.
        for (address, words) in [
            (server.address(), &b""[..]),
            (server.address(), b"\0\x40\0\x01"),
            (at(Transport::Tls), b"\x16\x03\x01\x02\0\x01"),
            (at(Transport::Https), b"\x16\x03\x01\x02\0\x01"),
        ] {
            let mut stream = connect(address).await;
            let _ = stream.write_all(words).await;
            kept.streams.push(stream);
        }
        endless_bodies(at(Transport::Https), &mut kept).await;
        if let Ok(connection) = endpoint.connect(at(Transport::Quic), "dns.example").unwrap().await
            && let Ok((mut send, _)) = connection.open_bi().await
        {
            let _ = send.write_all(&framed(&query(0, "web.prod.svc.cluster.local.", RecordType::A))[..9]).await;
            kept.quic.push((connection, send));
        }
    }
    let address = server.address();
    kept.udp = Some(beside(move || flood(address)).await);
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_loses_nothing_to_another_that_takes_all_it_can_of_every_transport() {
    let any = || vec!["127.0.0.1:0".parse().unwrap()];
    let encrypted = EncryptedConfig { tls: any(), https: any(), quic: any(), certificate: Some(certificate()) };
    let tcp = TcpConfig {
        connections_max: CONNECTIONS_MAX,
        connections_per_source_max: CONNECTIONS,
        // Connections of the attacker end by others' need alone.
        partial: PATIENCE,
        idle: PATIENCE,
        ..TcpConfig::default()
    };
    let bound =
        bind(&["127.0.0.1:0"], Config { encrypted, tcp, forwards_max: FORWARDS_MAX, workers: 1, ..Config::default() });
    let listen = bound.encrypted_addresses();
    let server = serve(bound, records());
    let at = |transport| listen.iter().find(|(other, _)| *other == transport).unwrap().1;
    let kept = attack(&server, at).await;

    let mut connections = Vec::new();
    for (protocol, transport) in
        [(Protocol::Tls, Transport::Tls), (Protocol::Https, Transport::Https), (Protocol::Quic, Transport::Quic)]
    {
        connections.push((protocol, Connection::open(protocol, at(transport)).await.unwrap()));
    }
    for id in 1..=QUESTIONS {
        for (name, outside) in [("web.prod.svc.cluster.local.", false), ("www.example.", true)] {
            let (address, question) = (server.address(), query(id, name, RecordType::A));
            let plain = beside(move || [ask_udp(address, &question), ask_tcp(address, &question)]).await;
            for answer in plain {
                assert_eq!((answer.id, answer.response_code), (id, ResponseCode::NoError), "{name}");
            }
            for (protocol, connection) in &mut connections {
                let answer = connection.ask(&query(id, name, RecordType::A)).await.unwrap();
                assert_eq!(answer[3] & 0x0F, 0, "{protocol:?} {name}");
                assert!(outside || answer[7] == 1, "{protocol:?} {name}: one record");
            }
        }
    }
    // And `status` names the attacker.
    let seen = server.queries.status();
    assert_eq!(seen.most_refused, Some(ATTACKER), "{seen:?}");
    assert!(seen.over_share >= 100 - FORWARDS_MAX as u64 / 2, "{seen:?}");
    let open = server.count("holdfast_dns_tcp_connections", &[]);
    assert!(open <= CONNECTIONS as u64 + 4, "{open}");

    // All of it comes back.
    drop((kept, connections));
    server.script.gate.add_permits(FORWARDS_MAX);
    server.wait_for_sum(&["holdfast_dns_tcp_connections"], &[], 0).await;
}

//! Encrypted DNS under clients that behave badly: what each may cost, and that others are served meanwhile.
//!
//! That answers are the same as over UDP and TCP is the battery's subject (`battery/sockets.rs`).

mod certificate;
mod hickory;
mod https;
mod queries;
mod quic;
mod tls;
mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{Config, EncryptedConfig, TcpConfig, Transport},
    simulate::encrypted::{Connection, Protocol},
};

use rustls::server::ResolvesServerCert;

use crate::support::{
    certificate::certificate,
    dns::{Server, bind, query, records, serve},
};

/// How long a handshake or a query may take here.
const PARTIAL: Duration = Duration::from_millis(100);

/// A server of all three transports on loopback.
struct Encrypted {
    server: Server,
    listen: Vec<(Transport, SocketAddr)>,
}

impl Encrypted {
    fn start(tcp: TcpConfig) -> Self {
        Self::with(tcp, certificate())
    }

    fn with(tcp: TcpConfig, certificate: Arc<dyn ResolvesServerCert>) -> Self {
        let any = || vec!["127.0.0.1:0".parse().unwrap()];
        let encrypted = EncryptedConfig { tls: any(), https: any(), quic: any(), certificate: Some(certificate) };
        let bound = bind(&["127.0.0.1:0"], Config { encrypted, tcp, ..Config::default() });
        let listen = bound.encrypted_addresses();
        Self { server: serve(bound, records()), listen }
    }

    /// With the time of [`PARTIAL`].
    fn impatient() -> Self {
        Self::start(TcpConfig { partial: PARTIAL, ..TcpConfig::default() })
    }

    fn at(&self, transport: Transport) -> SocketAddr {
        self.listen.iter().find(|(other, _)| *other == transport).expect("it is served").1
    }

    async fn connect(&self, protocol: Protocol) -> Connection {
        let transport = match protocol {
            Protocol::Tls => Transport::Tls,
            Protocol::Https => Transport::Https,
            Protocol::Quic => Transport::Quic,
        };
        Connection::open(protocol, self.at(transport)).await.unwrap()
    }

    /// A well-behaved client gets its answer over each transport.
    async fn answers_everybody(&self) {
        for protocol in [Protocol::Tls, Protocol::Https, Protocol::Quic] {
            let answer = self.connect(protocol).await.ask(&web()).await.unwrap();
            assert_eq!(answer[..2], web()[..2], "{protocol:?}");
            assert_eq!(answer[7], 1, "{protocol:?}: one record");
        }
    }

    async fn wait_for_closed(&self, reason: &str, count: u64) {
        self.server.wait_for_count("holdfast_dns_tcp_closed_total", &[("reason", reason)], count).await;
    }
}

fn web() -> Vec<u8> {
    query(7, "web.prod.svc.cluster.local.", RecordType::A)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_has_no_more_connections_than_over_tcp() {
    let server = Encrypted::start(TcpConfig { connections_per_source_max: 3, ..TcpConfig::default() });
    let mut kept = Vec::new();
    for protocol in [Protocol::Tls, Protocol::Https, Protocol::Quic] {
        kept.push(server.connect(protocol).await);
    }
    for connection in &mut kept {
        assert!(connection.ask(&web()).await.is_ok());
    }
    // The connection that was idle longest makes room, over whichever transport.
    let mut fourth = server.connect(Protocol::Tls).await;
    assert!(fourth.ask(&web()).await.is_ok());
    server.wait_for_closed("evicted", 1).await;
    let mut open = 0;
    for connection in &mut kept {
        open += u32::from(connection.ask(&web()).await.is_ok());
    }
    assert_eq!(open, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_padded_for_clients_that_ask_for_it() {
    use hickory_proto::{
        op::{Edns, Message},
        rr::rdata::opt::{EdnsCode, EdnsOption},
    };
    let server = Encrypted::impatient();
    for protocol in [Protocol::Tls, Protocol::Https, Protocol::Quic] {
        let mut connection = server.connect(protocol).await;
        for padded in [false, true] {
            let mut message = crate::support::dns::message(7, "few.prod.svc.cluster.local.", RecordType::A);
            let mut edns = Edns::new();
            if padded {
                edns.options_mut().insert(EdnsOption::Unknown(12, vec![0; 9]));
            }
            message.edns = Some(edns);
            let answer = connection.ask(&message.to_vec().unwrap()).await.unwrap();
            let read = Message::from_vec(&answer).unwrap();
            assert_eq!(read.answers.len(), 40, "{protocol:?}");
            assert_eq!(read.edns.unwrap().option(EdnsCode::from(12)).is_some(), padded, "{protocol:?}");
            assert!(!padded || answer.len() % 468 == 0, "{protocol:?}: {} bytes", answer.len());
        }
    }
}

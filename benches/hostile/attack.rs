//! One client at its worst, by kind: as many packets as it may send, and connections kept for as long as it can.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast::{
    simulate::encrypted::{Client, Connection, Protocol, Trust, client_config, framed},
    sys::Clock,
    tls::{self, Tls},
};
use http::Request;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use super::places::{ANY, Targets};

/// Packets a second that an attacker may send.
const PACKETS: u32 = 5_000;
/// Connections it keeps at most; the oldest goes.
const KEPT: usize = 3_000;
/// Connections on which it says much rather than being many.
const BUSY: usize = 64;
/// Prepared first packets of QUIC connections.
const INITIALS: usize = 2_000;
const SRV: u16 = 33;
const ANY_TYPE: u16 = 255;

/// An attack, and packets that one step of it sends.
pub struct Attack {
    pub name: &'static str,
    kind: Kind,
    packets: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Udp(Packet),
    /// Connects, sends these bytes and keeps the connection.
    Keep(Port, &'static [u8]),
    /// The same with a whole first message of TLS.
    KeepHello(Port),
    /// A full handshake, and the connection is kept.
    Handshake(Port),
    /// Questions on few connections.
    Padded,
    Unread,
    RapidReset,
    EndlessBodies,
    QuicInitials,
    QuicHandshakes,
    QuicStreams,
    Scrape,
    /// Follows the hub with an agent's certificate and keeps the connection.
    Certified,
}

#[derive(Clone, Copy, Debug)]
enum Packet {
    Cluster,
    Outside,
    Silent,
    Malformed,
    Large(u16),
}

#[derive(Clone, Copy, Debug)]
enum Port {
    Dns,
    Tls,
    Https,
    Http,
    Hub,
}

/// A half of a question that is 64 bytes long.
const HALF: &[u8] = b"\0\x40\0\x01\x01\0";

/// No attack at all.
pub const NONE: &str = "none";
/// The attack that fills a cache.
pub const FILLS_CACHE: &str = "udp: new names outside";

pub const ATTACKS: [Attack; 26] = [
    attack(NONE, Kind::Udp(Packet::Cluster), u32::MAX),
    attack("udp: cluster names", Kind::Udp(Packet::Cluster), 1),
    attack(FILLS_CACHE, Kind::Udp(Packet::Outside), 1),
    attack("udp: names without an answer", Kind::Udp(Packet::Silent), 1),
    attack("udp: malformed", Kind::Udp(Packet::Malformed), 1),
    attack("udp: SRV of 5,000 endpoints", Kind::Udp(Packet::Large(SRV)), 1),
    attack("udp: ANY of 5,000 endpoints", Kind::Udp(Packet::Large(ANY_TYPE)), 1),
    attack("tcp: idle connections", Kind::Keep(Port::Dns, b""), 4),
    attack("tcp: halves of questions", Kind::Keep(Port::Dns, HALF), 5),
    attack("tcp: padded questions without an answer", Kind::Padded, 50),
    attack("tcp: answers never read", Kind::Unread, 2),
    attack("tls: idle connections", Kind::Keep(Port::Tls, b""), 4),
    attack("tls: handshakes that stop", Kind::KeepHello(Port::Tls), 5),
    attack("tls: handshakes", Kind::Handshake(Port::Tls), 8),
    attack("https: handshakes that stop", Kind::KeepHello(Port::Https), 5),
    attack("https: handshakes", Kind::Handshake(Port::Https), 9),
    attack("https: streams opened and reset", Kind::RapidReset, 2),
    attack("https: bodies without an end", Kind::EndlessBodies, 2),
    attack("quic: handshakes that stop", Kind::QuicInitials, 1),
    attack("quic: handshakes", Kind::QuicHandshakes, 8),
    attack("quic: streams", Kind::QuicStreams, 2),
    attack("http: idle connections", Kind::Keep(Port::Http, b"GET / HT"), 5),
    attack("metrics: scrapes", Kind::Scrape, 6),
    attack("hub: idle connections", Kind::Keep(Port::Hub, b""), 4),
    attack("hub: handshakes that stop", Kind::KeepHello(Port::Hub), 5),
    attack("hub: connections with a certificate", Kind::Certified, 12),
];

const fn attack(name: &'static str, kind: Kind, packets: u32) -> Attack {
    Attack { name, kind, packets }
}

impl Attack {
    pub fn find(name: &str) -> &'static Self {
        ATTACKS.iter().find(|attack| attack.name == name).unwrap_or_else(|| panic!("there is no attack {name:?}"))
    }

    /// Attacks until it is aborted. `run` makes names different from those of other runs.
    pub async fn run(&self, targets: &Targets, run: u32) {
        let Some(steps) = PACKETS.checked_div(self.packets).filter(|steps| *steps > 0) else {
            return std::future::pending().await;
        };
        let mut pace = Pace { began: Instant::now(), steps: 0, rate: steps };
        match self.kind {
            Kind::Udp(packet) => udp(targets.dns, packet, &mut pace, run).await,
            Kind::Keep(port, bytes) => keep(port.of(targets), &mut pace, || bytes.to_vec()).await,
            Kind::KeepHello(port) => keep(port.of(targets), &mut pace, || client_hello(port.alpn())).await,
            Kind::Handshake(port) => handshakes(port, targets, &mut pace).await,
            Kind::Padded => padded(targets.dns, &mut pace, run).await,
            Kind::Unread => unread(targets.dns, &mut pace).await,
            Kind::RapidReset => https(targets.https, &mut pace, true).await,
            Kind::EndlessBodies => https(targets.https, &mut pace, false).await,
            Kind::QuicInitials => quic_initials(targets.quic, &mut pace).await,
            Kind::QuicHandshakes => quic_handshakes(targets.quic, &mut pace).await,
            Kind::QuicStreams => quic_streams(targets.quic, &mut pace).await,
            Kind::Scrape => scrape(targets.metrics, &mut pace).await,
            Kind::Certified => certified(targets, &mut pace).await,
        }
    }
}

impl Port {
    fn of(self, targets: &Targets) -> SocketAddr {
        match self {
            Self::Dns => targets.dns,
            Self::Tls => targets.tls,
            Self::Https => targets.https,
            Self::Http => targets.http,
            Self::Hub => targets.hub,
        }
    }

    fn alpn(self) -> &'static [u8] {
        if matches!(self, Self::Tls) { b"dot" } else { b"h2" }
    }
}

/// So many steps a second.
struct Pace {
    began: Instant,
    steps: u32,
    rate: u32,
}

impl Pace {
    async fn step(&mut self) -> u32 {
        self.steps += 1;
        let due = self.began + Duration::from_secs(1) * self.steps / self.rate;
        // The timer is as fine as a millisecond; steps that are late are made up for.
        if due > Instant::now() + Duration::from_millis(1) {
            sleep_until(due).await;
        }
        self.steps
    }
}

/// A query with EDNS for 1,232 bytes.
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]].concat();
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1, 0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0]);
    message
}

async fn udp(server: SocketAddr, packet: Packet, pace: &mut Pace, run: u32) {
    let socket = UdpSocket::bind(ANY).await.unwrap();
    socket.connect(server).await.unwrap();
    loop {
        let step = pace.step().await;
        let id = (step & 0xFFFF) as u16;
        let message = match packet {
            Packet::Cluster => query(id, "svc-1.prod.svc.cluster.local.", 1),
            Packet::Outside => query(id, &format!("a{step}-{run}.ok.test."), 1),
            Packet::Silent => query(id, &format!("a{step}-{run}.silent.test."), 1),
            Packet::Large(qtype) => query(id, "big.prod.svc.cluster.local.", qtype),
            Packet::Malformed => {
                let mut message = query(id, "svc-1.prod.svc.cluster.local.", 1);
                for _ in 0..4 {
                    let at = rand::random_range(2..message.len());
                    message[at] = rand::random();
                }
                message.truncate(rand::random_range(0..=message.len()));
                message
            }
        };
        let _ = socket.send(&message).await;
        while socket.try_recv(&mut [0; 2_000]).is_ok() {}
    }
}

async fn keep(server: SocketAddr, pace: &mut Pace, bytes: impl Fn() -> Vec<u8>) {
    let mut kept = VecDeque::new();
    loop {
        pace.step().await;
        let bytes = bytes();
        kept.push_back(tokio::spawn(async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.write_all(&bytes).await?;
            // Until the server ends it.
            let mut answer = [0; 2_000];
            while stream.read(&mut answer).await? > 0 {}
            io::Result::Ok(())
        }));
        if kept.len() > KEPT {
            let oldest: tokio::task::JoinHandle<_> = kept.pop_front().unwrap();
            oldest.abort();
        }
    }
}

fn client_hello(alpn: &[u8]) -> Vec<u8> {
    let name = ServerName::try_from("dns.example").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client_config(alpn)), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn handshakes(port: Port, targets: &Targets, pace: &mut Pace) {
    let protocol = if matches!(port, Port::Tls) { Protocol::Tls } else { Protocol::Https };
    let client = Arc::new(Client::new(protocol, port.of(targets), &Trust::Any));
    let mut kept = VecDeque::new();
    loop {
        pace.step().await;
        let client = Arc::clone(&client);
        kept.push_back(tokio::spawn(async move {
            let open = client.connect().await;
            std::future::pending::<()>().await;
            drop(open);
        }));
        if kept.len() > KEPT {
            let oldest: tokio::task::JoinHandle<_> = kept.pop_front().unwrap();
            oldest.abort();
        }
    }
}

async fn padded(server: SocketAddr, pace: &mut Pace, run: u32) {
    let mut streams: Vec<Option<TcpStream>> = (0..BUSY).map(|_| None).collect();
    loop {
        let step = pace.step().await;
        let stream = &mut streams[step as usize % BUSY];
        if stream.is_none() {
            *stream = TcpStream::connect(server).await.ok();
        }
        let Some(open) = stream else { continue };
        let mut message = query((step & 0xFFFF) as u16, &format!("p{step}-{run}.silent.test."), 1);
        let room = 65_535 - message.len() - 4;
        let at = message.len() - 2;
        message[at..].copy_from_slice(&u16::try_from(room + 4).unwrap().to_be_bytes());
        message.extend([0, 12]);
        message.extend(u16::try_from(room).unwrap().to_be_bytes());
        message.resize(65_535, 0);
        let sent = timeout(Duration::from_millis(200), open.write_all(&framed(&message))).await;
        if !matches!(sent, Ok(Ok(()))) {
            *stream = None;
        }
    }
}

async fn unread(server: SocketAddr, pace: &mut Pace) {
    let question = framed(&query(1, "big.prod.svc.cluster.local.", 1));
    let mut streams: Vec<Option<TcpStream>> = (0..BUSY).map(|_| None).collect();
    loop {
        let step = pace.step().await;
        let stream = &mut streams[step as usize % BUSY];
        if stream.is_none() {
            *stream = TcpStream::connect(server).await.ok();
        }
        if let Some(open) = stream
            && let Err(error) = open.try_write(&question)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            *stream = None;
        }
    }
}

async fn https(server: SocketAddr, pace: &mut Pace, reset: bool) {
    loop {
        let Ok(stream) = TcpStream::connect(server).await else { continue };
        let name = ServerName::IpAddress(server.ip().into());
        let Ok(stream) = TlsConnector::from(Arc::new(client_config(b"h2"))).connect(name, stream).await else {
            pace.step().await;
            continue;
        };
        let Ok((mut send, connection)) = h2::client::handshake(stream).await else { continue };
        let connection = tokio::spawn(connection);
        let mut open = VecDeque::new();
        loop {
            pace.step().await;
            let Ok(Ok(mut ready)) = timeout(Duration::from_millis(100), send.ready()).await else { break };
            let request =
                Request::post("https://127.0.0.1/dns-query").header("content-type", "application/dns-message");
            let Ok((response, mut body)) = ready.send_request(request.body(()).unwrap(), false) else { break };
            send = ready;
            if reset {
                body.send_reset(h2::Reason::CANCEL);
                continue;
            }
            let _ = body.send_data(Bytes::from_static(&[0; 16]), false);
            open.push_back((response, body));
            if open.len() > BUSY {
                open.pop_front();
            }
        }
        connection.abort();
    }
}

fn quic_client() -> quinn::Endpoint {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client_config(b"doq")).unwrap();
    let mut endpoint = quinn::Endpoint::client(ANY.into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// Whole first packets, each of a connection of its own, that were caught on their way to nobody.
async fn initials() -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = quic_client();
    let mut packets = Vec::new();
    let mut packet = [0; 2_000];
    while packets.len() < INITIALS {
        let connecting = endpoint.connect(sink.local_addr().unwrap(), "dns.example").unwrap();
        let length = sink.recv(&mut packet).await.unwrap();
        packets.push(packet[..length].to_vec());
        drop(connecting);
        while sink.try_recv(&mut packet).is_ok() {}
    }
    packets
}

async fn quic_initials(server: SocketAddr, pace: &mut Pace) {
    let packets = initials().await;
    let socket = UdpSocket::bind(ANY).await.unwrap();
    socket.connect(server).await.unwrap();
    *pace = Pace { began: Instant::now(), steps: 0, rate: pace.rate };
    loop {
        let step = pace.step().await;
        let mut packet = packets[step as usize % packets.len()].clone();
        if step as usize > packets.len() {
            // Costs the server a look at its keys.
            let last = packet.len() - 1;
            packet[last] ^= (step & 0xFF) as u8;
        }
        let _ = socket.send(&packet).await;
        while socket.try_recv(&mut [0; 2_000]).is_ok() {}
    }
}

async fn quic_handshakes(server: SocketAddr, pace: &mut Pace) {
    let endpoint = quic_client();
    let mut kept = VecDeque::new();
    loop {
        pace.step().await;
        let Ok(connecting) = endpoint.connect(server, "dns.example") else { continue };
        kept.push_back(tokio::spawn(async move {
            let open = connecting.await;
            std::future::pending::<()>().await;
            drop(open);
        }));
        if kept.len() > KEPT {
            let oldest: tokio::task::JoinHandle<_> = kept.pop_front().unwrap();
            oldest.abort();
        }
    }
}

async fn quic_streams(server: SocketAddr, pace: &mut Pace) {
    let question = framed(&query(0, "svc-1.prod.svc.cluster.local.", 1));
    loop {
        let client = Client::new(Protocol::Quic, server, &Trust::Any);
        let Ok(Connection::Quic(connection, _endpoint)) = client.connect().await else {
            pace.step().await;
            continue;
        };
        loop {
            pace.step().await;
            let Ok(Ok((mut send, mut receive))) = timeout(Duration::from_millis(100), connection.open_bi()).await
            else {
                break;
            };
            if send.write_all(&question).await.is_err() {
                break;
            }
            // Half of them are given up.
            let _ = if rand::random() { send.finish().is_ok() } else { send.reset(1_u32.into()).is_ok() };
            let _ = receive.stop(1_u32.into());
        }
    }
}

async fn scrape(server: SocketAddr, pace: &mut Pace) {
    loop {
        pace.step().await;
        tokio::spawn(timeout(Duration::from_secs(2), async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
            stream.read_to_end(&mut Vec::new()).await
        }));
    }
}

async fn certified(targets: &Targets, pace: &mut Pace) {
    let metrics = tls::Metrics::register(&prometheus::Registry::new()).unwrap();
    let tls = Tls::open(targets.agent_tls.clone().into(), Clock::System, Arc::new(|| None), metrics).unwrap();
    let (server, client) = (targets.hub, tls.current().client);
    let mut kept = VecDeque::new();
    loop {
        pace.step().await;
        let connector = TlsConnector::from(Arc::clone(&client));
        kept.push_back(tokio::spawn(async move {
            let stream = TcpStream::connect(server).await?;
            let mut stream = connector.connect("holdfast.invalid".try_into().unwrap(), stream).await?;
            let mut bytes = [0; 2_000];
            while stream.read(&mut bytes).await? > 0 {}
            io::Result::Ok(())
        }));
        if kept.len() > KEPT {
            let oldest: tokio::task::JoinHandle<_> = kept.pop_front().unwrap();
            oldest.abort();
        }
    }
}

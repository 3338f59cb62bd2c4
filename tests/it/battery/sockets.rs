//! The battery over UDP, TCP, TLS, HTTPS and QUIC, v4 and v6.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, ready};
use holdfast::{
    dns::{Config, EncryptedConfig, ForwardRequest, Metrics, Resolve, Resolved, Running, ServedFrom, Transport},
    simulate::encrypted::{self, Connection, Protocol},
    wire::{Rtype, UDP_BYTES_MAX},
};
use prometheus::Registry;
use tokio::{io::AsyncWriteExt, runtime::Handle, task::block_in_place};

use super::{Section, check, check_messages, check_sizes, clock, sections, upstream};
use crate::support::{
    ask::query,
    certificate::certificate,
    dns::{Tcp, bind, framed, udp},
};

/// Answers forwards as the battery expects.
struct Upstream;

impl Resolve for Upstream {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let message = upstream(&request.query, request.forward, &request.written);
        ready(Resolved { message, from: ServedFrom::Upstream }).boxed()
    }
}

/// The servers' addresses, by transport: v4 first.
type Addresses = [Vec<(Transport, SocketAddr)>; 2];

fn serve(section: &Section) -> (Addresses, Running) {
    let any = || vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let encrypted = EncryptedConfig { tls: any(), https: any(), quic: any(), certificate: Some(certificate()) };
    let bound = bind(&["127.0.0.1:0", "[::1]:0"], Config { workers: 2, encrypted, ..Config::default() });
    let plain = bound.addresses().iter().flat_map(|&at| [(Transport::Udp, at), (Transport::Tcp, at)]);
    let (v4, v6) = plain.chain(bound.encrypted_addresses()).partition(|(_, at)| at.is_ipv4());
    let metrics = Metrics::register(&Registry::new()).unwrap();
    ([v4, v6], bound.serve(Arc::new(section.context()), Arc::new(Upstream), clock(), metrics))
}

/// Asks a server at the addresses of one family.
struct Client {
    servers: Vec<(Transport, SocketAddr)>,
    udp: UdpSocket,
    tcp: TcpStream,
    encrypted: HashMap<&'static str, Connection>,
}

impl Client {
    fn new(servers: Vec<(Transport, SocketAddr)>) -> Self {
        let at = |transport| at(&servers, transport);
        let (udp, tcp) = (udp(at(Transport::Udp)), Tcp::connect(at(Transport::Tcp)).0);
        Self { udp, tcp, servers, encrypted: HashMap::new() }
    }

    /// What must get no answer is followed by what does get one, and that must be the first to come.
    fn ask(&mut self, transport: Transport, message: &[u8]) -> Option<Vec<u8>> {
        let silent = message.len() < 12 || message[2] & 0x80 != 0;
        let mut after = query(b"\0", Rtype::NS, None);
        after[..2].copy_from_slice(b"\xFF\xFE");
        let answer = match transport {
            Transport::Udp => {
                self.udp.send(message).unwrap();
                if silent {
                    self.udp.send(&after).unwrap();
                }
                let mut room = [0; UDP_BYTES_MAX + 1];
                let length = self.udp.recv(&mut room).expect("an answer");
                Some(room[..length].to_vec())
            }
            Transport::Tcp => {
                self.tcp.write_all(&framed(message)).unwrap();
                if silent {
                    // Refused if the connection is closed already, which is an answer too.
                    let _ = self.tcp.write_all(&framed(&after));
                }
                self.receive_tcp()
            }
            Transport::Tls => self.ask_encrypted(Protocol::Tls, message, silent.then_some(&after)),
            Transport::Https => self.ask_encrypted(Protocol::Https, message, None),
            Transport::Quic => self.ask_encrypted(Protocol::Quic, message, None),
        };
        answer.filter(|answer| !silent || answer[..2] != after[..2])
    }

    fn receive_tcp(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 2];
        if self.tcp.read_exact(&mut prefix).is_err() {
            self.tcp = Tcp::connect(at(&self.servers, Transport::Tcp)).0;
            return None;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        self.tcp.read_exact(&mut message).unwrap();
        Some(message)
    }

    /// Asks over the connection of `protocol`, which is made anew once it has failed.
    fn ask_encrypted(&mut self, protocol: Protocol, message: &[u8], after: Option<&Vec<u8>>) -> Option<Vec<u8>> {
        let (key, transport) = match protocol {
            Protocol::Tls => ("tls", Transport::Tls),
            Protocol::Https => ("https", Transport::Https),
            Protocol::Quic => ("quic", Transport::Quic),
        };
        let server = at(&self.servers, transport);
        let connection = self.encrypted.remove(key);
        let (connection, answer) = block_in_place(|| {
            Handle::current().block_on(async {
                let mut connection = match connection {
                    Some(connection) => connection,
                    None => Connection::open(protocol, server).await.unwrap(),
                };
                let answer = match (&mut connection, after) {
                    (Connection::Tls(stream), Some(after)) => {
                        let both = [encrypted::framed(message), encrypted::framed(after)].concat();
                        stream.write_all(&both).await.unwrap();
                        encrypted::receive(stream).await
                    }
                    (connection, _) => connection.ask(message).await,
                };
                (connection, answer.ok())
            })
        });
        if answer.is_some() {
            self.encrypted.insert(key, connection);
        }
        answer
    }
}

fn at(servers: &[(Transport, SocketAddr)], wanted: Transport) -> SocketAddr {
    servers.iter().find(|(transport, _)| *transport == wanted).expect("every transport is served").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_case() {
    for section in sections() {
        let (addresses, running) = serve(&section);
        for servers in addresses {
            let mut client = Client::new(servers);
            check(&section, &mut |transport, query| client.ask(transport, query));
        }
        running.drain(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_message() {
    let (addresses, _running) = serve(&Section::plain());
    for servers in addresses {
        let mut client = Client::new(servers);
        check_messages(&mut |transport, query| client.ask(transport, query));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_size() {
    let (addresses, _running) = serve(&Section::large());
    for servers in addresses {
        let mut client = Client::new(servers);
        check_sizes(&mut |transport, query| client.ask(transport, query));
    }
}

//! The battery over UDP and TCP, v4 and v6.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, ready};
use holdfast::{
    dns::{Config, ForwardRequest, Metrics, Resolve, Resolved, Running, ServedFrom, Transport},
    wire::{Rtype, UDP_BYTES_MAX},
};
use prometheus::Registry;

use super::{Section, check, check_messages, check_sizes, clock, sections, upstream};
use crate::support::{
    ask::query,
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

fn serve(section: &Section) -> (SocketAddr, SocketAddr, Running) {
    let bound = bind(&["127.0.0.1:0", "[::1]:0"], Config { workers: 2, ..Config::default() });
    let &[v4, v6] = bound.addresses() else { panic!("two addresses") };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    (v4, v6, bound.serve(Arc::new(section.context()), Arc::new(Upstream), clock(), metrics))
}

/// Asks a server at one address.
struct Client {
    server: SocketAddr,
    udp: UdpSocket,
    tcp: TcpStream,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        Self { server, udp: udp(server), tcp: Tcp::connect(server).0 }
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
        };
        answer.filter(|answer| !silent || answer[..2] != after[..2])
    }

    fn receive_tcp(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 2];
        if self.tcp.read_exact(&mut prefix).is_err() {
            self.tcp = Tcp::connect(self.server).0;
            return None;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        self.tcp.read_exact(&mut message).unwrap();
        Some(message)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_case() {
    for section in sections() {
        let (v4, v6, running) = serve(&section);
        for address in [v4, v6] {
            let mut client = Client::new(address);
            check(&section, &mut |transport, query| client.ask(transport, query));
        }
        running.drain(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_message() {
    let (v4, v6, _running) = serve(&Section::plain());
    for address in [v4, v6] {
        let mut client = Client::new(address);
        check_messages(&mut |transport, query| client.ask(transport, query));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_every_size() {
    let (v4, v6, _running) = serve(&Section::large());
    for address in [v4, v6] {
        let mut client = Client::new(address);
        check_sizes(&mut |transport, query| client.ask(transport, query));
    }
}

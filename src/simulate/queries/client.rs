//! A client that asks, over any transport.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Options,
    count::{Count, Tally},
};
#[cfg(feature = "encrypted")]
use crate::simulate::encrypted;

/// Questions from one UDP socket before the next is opened.
pub(super) const PER_SOCKET: u16 = 100;
/// A pause before a connection that failed is tried again.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Client {
    pub options: Options,
    pub question: Vec<u8>,
    pub count: Arc<Count>,
    pub end: Instant,
}

impl Client {
    fn message(&self, id: u16) -> Vec<u8> {
        let mut message = self.question.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    pub(super) async fn udp(self, first: Instant, every: Duration) {
        let this = Arc::new(self);
        let mut next = first;
        let mut tails = tokio::task::JoinSet::new();
        while next < this.end && !this.count.is_stopped() {
            let Ok(socket) = this.udp_socket().await else {
                sleep_until(next + PAUSE).await;
                next += PAUSE;
                continue;
            };
            let mut waiting = HashMap::new();
            for id in 0..PER_SOCKET {
                if next >= this.end || this.count.is_stopped() {
                    break;
                }
                this.receive(&socket, &mut waiting, next, false).await;
                waiting.insert(id, Instant::now());
                this.count.udp.asked();
                // The error of an earlier question takes the place of one call.
                if socket.send(&this.message(id)).await.is_err() {
                    let _ = socket.send(&this.message(id)).await;
                }
                next += every;
            }
            let tail = Arc::clone(&this);
            tails.spawn(async move {
                let end = Instant::now() + tail.options.patience;
                tail.receive(&socket, &mut waiting, end, true).await;
                tail.count.udp.lost(waiting.len() as u64);
            });
        }
        while tails.join_next().await.is_some() {}
    }

    async fn udp_socket(&self) -> io::Result<UdpSocket> {
        let server = self.options.server;
        let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0)).await?;
        // Only answers from the very address that was asked are received.
        socket.connect(server).await?;
        Ok(socket)
    }

    /// Receives answers until then; the `last` time only while some are waited for.
    async fn receive(&self, socket: &UdpSocket, waiting: &mut HashMap<u16, Instant>, until: Instant, last: bool) {
        let mut answer = [0; 4096];
        while !(last && waiting.is_empty()) {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                received = socket.recv(&mut answer) => {
                    // "Connection refused" is the server's kernel for an earlier question.
                    let Ok(length) = received else { continue };
                    if length >= 12 && answer[2] & 0x80 != 0
                        && let Some(asked) = waiting.remove(&u16::from_be_bytes([answer[0], answer[1]]))
                    {
                        self.count.answered(&self.count.udp, asked, &self.question, &answer[..length]);
                    }
                }
            }
        }
    }

    /// Asks on one connection at a time, one question after the other.
    pub(super) async fn stream(self, plan: Plan, first: Instant) {
        let mut next = first;
        let mut connection: Option<Connection> = None;
        let mut id = 0_u16;
        let tally = plan.dial.tally(&self.count);
        while next < self.end && !self.count.is_stopped() {
            sleep_until(next).await;
            next = (next + plan.every).max(Instant::now());
            id = id.wrapping_add(1);
            let asked = Instant::now();
            tally.asked();
            // A connection that the server closed while it was idle is no loss.
            connection = connection.filter(|connection| !connection.is_closed());
            let mut answered = self.ask(&plan.dial, tally, &mut connection, id).await;
            if answered.is_err() {
                tally.again();
                connection = None;
                answered = self.ask(&plan.dial, tally, &mut connection, id).await;
            }
            if let Ok(answer) = answered {
                self.count.answered(tally, asked, &self.question, &answer);
            } else {
                tally.lost(1);
                connection = None;
            }
            if plan.queries_max.is_some_and(|most| id.is_multiple_of(most)) {
                connection = None;
            }
        }
    }

    async fn ask(
        &self,
        dial: &Dial,
        tally: &Tally,
        connection: &mut Option<Connection>,
        id: u16,
    ) -> io::Result<Vec<u8>> {
        let exchange = async {
            let connection = if let Some(connection) = connection {
                connection
            } else {
                let opened = dial.connect().await?;
                tally.connected();
                connection.insert(opened)
            };
            let answer = connection.ask(&self.message(id)).await?;
            if answer.len() >= 12 && answer[..2] == id.to_be_bytes() {
                Ok(answer)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
            }
        };
        let patience = self.options.patience;
        let answered = timeout(patience, exchange).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs_f64())))
        });
        answered.inspect_err(|error| tally.failed(error))
    }
}

/// How a client uses its connections.
pub(super) struct Plan {
    pub dial: Dial,
    /// Between two questions.
    pub every: Duration,
    /// Questions on a connection before the next is opened.
    pub queries_max: Option<u16>,
}

/// How connections are made.
#[derive(Clone)]
pub(super) enum Dial {
    Tcp(SocketAddr),
    #[cfg(feature = "encrypted")]
    Encrypted(encrypted::Protocol, encrypted::Client),
}

impl Dial {
    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(server) => Ok(Connection::Tcp(TcpStream::connect(server).await?)),
            #[cfg(feature = "encrypted")]
            Self::Encrypted(_, client) => Ok(Connection::Encrypted(client.connect().await?)),
        }
    }

    fn tally<'a>(&self, count: &'a Count) -> &'a Tally {
        match self {
            Self::Tcp(_) => &count.tcp,
            #[cfg(feature = "encrypted")]
            Self::Encrypted(encrypted::Protocol::Tls, _) => &count.tls,
            #[cfg(feature = "encrypted")]
            Self::Encrypted(encrypted::Protocol::Https, _) => &count.https,
            #[cfg(feature = "encrypted")]
            Self::Encrypted(encrypted::Protocol::Quic, _) => &count.quic,
        }
    }
}

enum Connection {
    Tcp(TcpStream),
    #[cfg(feature = "encrypted")]
    Encrypted(encrypted::Connection),
}

impl Connection {
    fn is_closed(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.try_read(&mut [0]).is_ok(),
            #[cfg(feature = "encrypted")]
            Self::Encrypted(connection) => connection.is_closed(),
        }
    }

    async fn ask(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Tcp(stream) => {
                let length = u16::try_from(message.len()).expect("a short question");
                stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await?;
                let length = stream.read_u16().await?;
                let mut answer = vec![0; usize::from(length)];
                stream.read_exact(&mut answer).await?;
                Ok(answer)
            }
            #[cfg(feature = "encrypted")]
            Self::Encrypted(connection) => connection.ask(message).await,
        }
    }
}

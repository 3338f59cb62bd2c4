//! Answers for an agent that does not: passes queries on to the cluster's DNS, over UDP and TCP.
//!
//! The rules steer the node's own addresses here while the failsafe is on (docs/decisions/parent-process.md). Reads no query and keeps no answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::limits::FairShares;

/// Queries over UDP that wait for an answer at once; each holds a socket. A client has half of the places that are free.
const QUERIES_MAX: usize = 1_024;
/// The same for connections.
const CONNECTIONS_MAX: usize = 256;
/// How long one server may take for an answer. A stub resolver asks again after 5 s.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest a connection lives.
const CONNECTION: Duration = Duration::from_secs(10);
/// The largest message over UDP.
const MESSAGE_BYTES: usize = 4_096;
/// Tries to find a port that is free for both UDP and TCP.
const TRIES: usize = 16;
/// A pause after an error that would come again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Stops when dropped; answers under way are lost.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where it listens, for UDP and TCP.
    pub ports: Vec<(IpAddr, u16)>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a port of each of `ips` for queries, which go to the first of `servers` that answers.
    pub(super) async fn start(ips: &[IpAddr], servers: &[SocketAddr]) -> io::Result<Self> {
        Self::start_bounded(ips, servers, [QUERIES_MAX, CONNECTIONS_MAX]).await
    }

    async fn start_bounded(ips: &[IpAddr], servers: &[SocketAddr], max: [usize; 2]) -> io::Result<Self> {
        let servers: Arc<[SocketAddr]> = servers.into();
        let [queries, open] = max.map(|max| Arc::new(FairShares::new(max)));
        let (mut ports, mut tasks) = (Vec::new(), JoinSet::new());
        for ip in ips {
            let (udp, tcp) = bind(*ip).await?;
            ports.push((*ip, udp.local_addr()?.port()));
            tasks.spawn(datagrams(Arc::new(udp), Arc::clone(&servers), Arc::clone(&queries)));
            tasks.spawn(connections(tcp, Arc::clone(&servers), Arc::clone(&open)));
        }
        Ok(Self { ports, _tasks: tasks })
    }
}

async fn bind(ip: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        let udp = UdpSocket::bind((ip, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn datagrams(socket: Arc<UdpSocket>, servers: Arc<[SocketAddr]>, places: Arc<FairShares>) {
    let mut waiting = JoinSet::new();
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        while waiting.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        // Beyond its share a query is lost, as in a full socket.
        let Some(place) = places.take(client.ip()) else { continue };
        let (socket, servers, query) = (Arc::clone(&socket), Arc::clone(&servers), buffer[..length].to_vec());
        waiting.spawn(async move {
            let _place = place;
            for server in servers.iter() {
                if let Ok(Ok(answer)) = timeout(ANSWER, exchange(*server, &query)).await {
                    let _ = socket.send_to(&answer, client).await;
                    return;
                }
            }
        });
    }
}

async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MESSAGE_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn connections(listener: TcpListener, servers: Arc<[SocketAddr]>, places: Arc<FairShares>) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok((mut client, address)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Some(place) = places.take(address.ip()) else { continue };
        let servers = Arc::clone(&servers);
        open.spawn(async move {
            let _place = place;
            for server in servers.iter() {
                if let Ok(Ok(mut server)) = timeout(ANSWER, TcpStream::connect(server)).await {
                    let _ = timeout(CONNECTION, copy_bidirectional(&mut client, &mut server)).await;
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn queries_are_passed_on_and_answers_come_back() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(server).await.unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut query = [0; 64];
            let (length, relay) = udp.recv_from(&mut query).await.unwrap();
            udp.send_to(b"other", relay).await.unwrap();
            query[length] = b'!';
            udp.send_to(&query[..=length], relay).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
        });
        let relay = Relay::start(&["127.0.0.1".parse().unwrap()], &[closed, server]).await.unwrap();
        let at = SocketAddr::from(relay.ports[0]);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"IDquery", at).await.unwrap();
        let mut answer = [0; 64];
        let (length, from) = client.recv_from(&mut answer).await.unwrap();
        assert_eq!((&answer[..length], from), (&b"IDquery!"[..], at));
        let mut text = String::new();
        TcpStream::connect(at).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        answering.await.unwrap();
    }

    /// One client waits for as many answers and keeps as many connections as it may; another one is served.
    #[tokio::test]
    async fn a_client_that_takes_all_it_can_leaves_places_to_others() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(server).await.unwrap();
        let relay = Relay::start_bounded(&["127.0.0.1".parse().unwrap()], &[server], [8, 8]).await.unwrap();
        let at = SocketAddr::from(relay.ports[0]);
        let answering = tokio::spawn(async move {
            let mut taken = 0;
            loop {
                let mut query = [0; 64];
                let (length, relay) = udp.recv_from(&mut query).await.unwrap();
                if &query[2..length] == b"victim" {
                    udp.send_to(&query[..length], relay).await.unwrap();
                    return taken;
                }
                taken += 1;
            }
        });
        let connecting = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut word = [0; 1];
                if stream.read_exact(&mut word).await.is_ok() && word == *b"v" {
                    stream.write_all(b"hello").await.unwrap();
                    return open.len();
                }
                open.push(stream);
            }
        });
        let attacker = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let mut kept = Vec::new();
        for id in 0..40_u8 {
            attacker.send_to(&[id, 0, b'a'], at).await.unwrap();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut stream = socket.connect(at).await.unwrap();
            // Beyond its share it is closed at once.
            let _ = stream.write_all(b"a").await;
            kept.push(stream);
        }
        let victim = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        victim.send_to(b"IDvictim", at).await.unwrap();
        let mut answer = [0; 64];
        let (length, _) = victim.recv_from(&mut answer).await.unwrap();
        assert_eq!(&answer[..length], b"IDvictim");
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(at).await.unwrap();
        stream.write_all(b"v").await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        // Half of the eight, as long as others want none.
        assert_eq!((answering.await.unwrap(), connecting.await.unwrap()), (4, 4));
    }
}

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
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Queries over UDP that wait for an answer at once; each holds a socket.
const QUERIES: usize = 1_024;
const CONNECTIONS: usize = 256;
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
    /// Listens on a port of each of `ips`, for what is to be passed on to the first of `servers` that answers.
    pub(super) async fn start(ips: &[IpAddr], servers: &[SocketAddr]) -> io::Result<Self> {
        let servers: Arc<[SocketAddr]> = servers.into();
        let (mut ports, mut tasks) = (Vec::new(), JoinSet::new());
        for ip in ips {
            let (udp, tcp) = bind(*ip).await?;
            ports.push((*ip, udp.local_addr()?.port()));
            tasks.spawn(datagrams(Arc::new(udp), Arc::clone(&servers)));
            tasks.spawn(connections(tcp, Arc::clone(&servers)));
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

async fn datagrams(socket: Arc<UdpSocket>, servers: Arc<[SocketAddr]>) {
    let slots = Arc::new(Semaphore::new(QUERIES));
    let mut waiting = JoinSet::new();
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        while waiting.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        // Beyond the limit a query is lost, as in a full socket.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (socket, servers, query) = (Arc::clone(&socket), Arc::clone(&servers), buffer[..length].to_vec());
        waiting.spawn(async move {
            let _slot = slot;
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

async fn connections(listener: TcpListener, servers: Arc<[SocketAddr]>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok((mut client, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let servers = Arc::clone(&servers);
        open.spawn(async move {
            let _slot = slot;
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
}

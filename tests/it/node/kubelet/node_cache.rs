//! A stand-in for node-cache: takes interface, rules and ports as it does, and answers each query with one address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::node::rig::{LINK_LOCAL, Node, VIP, enter};

/// What it answers to every name.
pub const BY_NODE_CACHE: &str = "10.96.7.3";
const INTERFACE: &str = "nodelocaldns";
/// Its rules, a table of its own as those of iptables are.
pub const TABLE: &str = "node_cache";

/// How it holds the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// With `SO_REUSEPORT`, as CoreDNS does.
    Shared,
    Alone,
}

/// A running stand-in. It ends in order when dropped.
pub struct NodeCache {
    namespace: String,
    end: CancellationToken,
    keeps: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn ip(namespace: &str, words: &str) {
    let words: Vec<&str> = ["-n", namespace].into_iter().chain(words.split(' ')).collect();
    // What is there already is no fault.
    let _ = std::process::Command::new("ip").args(words).output().unwrap();
}

/// Makes what is missing.
fn set_up(namespace: &str) {
    // A kernel without dummies has bridges.
    for kind in ["dummy", "bridge"] {
        ip(namespace, &format!("link add {INTERFACE} type {kind}"));
    }
    ip(namespace, &format!("link set {INTERFACE} up"));
    for address in [LINK_LOCAL, VIP] {
        ip(namespace, &format!("addr add {address}/32 dev {INTERFACE}"));
    }
}

/// Queries and their answers are not tracked.
fn rules() -> String {
    let to = format!("ip daddr {{ {LINK_LOCAL}, {VIP} }} meta l4proto {{ tcp, udp }} th dport 53 notrack");
    let from = format!("ip saddr {{ {LINK_LOCAL}, {VIP} }} meta l4proto {{ tcp, udp }} th sport 53 notrack");
    let chain = |name: &str, hook: &str, rule: &str| {
        format!("chain {name} {{ type filter hook {hook} priority raw; {rule}; }};")
    };
    let (queries, answers) = (chain("queries", "prerouting", &to), chain("answers", "output", &from));
    format!("table ip {TABLE} {{ {queries} {answers} }}")
}

fn nft(namespace: &str, command: &str) {
    let done = std::process::Command::new("ip").args(["netns", "exec", namespace, "nft", command]).output().unwrap();
    assert!(done.status.success(), "{command}: {done:?}");
}

impl NodeCache {
    /// Starts it on a node. An error if a port is taken: node-cache ends then.
    pub fn start(node: &Node, ports: Ports) -> io::Result<Self> {
        let namespace = node.space("node");
        let end = CancellationToken::new();
        let ended = end.clone();
        let (tell, told) = mpsc::channel();
        let keeps = Arc::new(AtomicBool::new(true));
        let inside = namespace.clone();
        let serving = std::thread::spawn(move || {
            enter(&inside);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                match listen(ports) {
                    Ok(sockets) => {
                        tell.send(Ok(())).unwrap();
                        serve(sockets, ended).await;
                    }
                    Err(error) => tell.send(Err(error)).unwrap(),
                }
            });
        });
        told.recv().unwrap()?;
        // The real one takes the addresses some 80 ms before it listens, and loses what comes in between.
        set_up(&namespace);
        nft(&namespace, &rules());
        let (keeping, inside) = (Arc::clone(&keeps), namespace.clone());
        let keeper = std::thread::spawn(move || {
            while keeping.load(SeqCst) {
                set_up(&inside);
                std::thread::park_timeout(Duration::from_secs(1));
            }
        });
        Ok(Self { namespace, end, keeps, threads: vec![keeper, serving] })
    }

    /// Ends as at SIGTERM: interface and rules go first, whoever else uses them by now.
    pub fn terminate(self) {
        drop(self);
    }
}

impl Drop for NodeCache {
    fn drop(&mut self) {
        self.keeps.store(false, SeqCst);
        let mut threads = self.threads.drain(..);
        if let Some(keeper) = threads.next() {
            keeper.thread().unpark();
            keeper.join().unwrap();
        }
        // Queries are tracked again before the address is gone: kube-proxy's rules are for those.
        nft(&self.namespace, &format!("flush chain ip {TABLE} queries"));
        ip(&self.namespace, &format!("link del {INTERFACE}"));
        // The kernel has let every packet in that was on its way.
        self.end.cancel();
        threads.for_each(|serving| serving.join().unwrap());
        nft(&self.namespace, &format!("delete table ip {TABLE}"));
    }
}

type Sockets = (Vec<UdpSocket>, Vec<TcpListener>);

fn listen(ports: Ports) -> io::Result<Sockets> {
    let mut sockets = (Vec::new(), Vec::new());
    for address in [LINK_LOCAL, VIP] {
        let at: SocketAddr = (address.parse::<IpAddr>().unwrap(), 53).into();
        for (kind, protocol) in [(Type::DGRAM, Protocol::UDP), (Type::STREAM, Protocol::TCP)] {
            let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
            socket.set_reuse_port(ports == Ports::Shared)?;
            socket.set_reuse_address(kind == Type::STREAM)?;
            // It listens before it has the addresses, and answers what it has received when they are gone.
            socket.set_ip_transparent_v4(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&at.into())?;
            if kind == Type::DGRAM {
                sockets.0.push(UdpSocket::from_std(socket.into())?);
            } else {
                socket.listen(128)?;
                sockets.1.push(TcpListener::from_std(socket.into())?);
            }
        }
    }
    Ok(sockets)
}

/// Answers until the end, and then what has been received.
async fn serve((datagrams, listeners): Sockets, ended: CancellationToken) {
    let mut tasks = JoinSet::new();
    for socket in datagrams {
        let ended = ended.clone();
        tasks.spawn(async move {
            let mut query = [0; 512];
            loop {
                tokio::select! {
                    biased;
                    received = socket.recv_from(&mut query) => {
                        let Ok((length, client)) = received else { continue };
                        let _ = socket.send_to(&answer(&query[..length]), client).await;
                    }
                    () = ended.cancelled() => break,
                }
            }
        });
    }
    for listener in listeners {
        let ended = ended.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        connections.spawn(converse(stream, ended.clone()));
                    }
                    () = ended.cancelled() => break,
                }
            }
            connections.join_all().await;
        });
    }
    tasks.join_all().await;
}

async fn converse(mut stream: TcpStream, ended: CancellationToken) {
    loop {
        let exchange = async {
            stream.readable().await?;
            let length = stream.read_u16().await?;
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await?;
            let answer = answer(&query);
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await
        };
        tokio::select! {
            biased;
            exchanged = exchange => if exchanged.is_err() { return },
            () = ended.cancelled() => return,
        }
    }
}

/// NOERROR with [`BY_NODE_CACHE`], whatever is asked. A message that is too short is answered with nothing.
fn answer(query: &[u8]) -> Vec<u8> {
    let Some(name) = query.get(12..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else {
        return Vec::new();
    };
    let question = query.get(12..12 + name + 5).unwrap_or_default();
    let address = BY_NODE_CACHE.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let head = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    [&head, question, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4], &address].concat()
}

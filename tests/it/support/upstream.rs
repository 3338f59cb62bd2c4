//! A resolver that says what a test tells it to, over UDP and TCP on one port, and remembers what it was asked.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// One query as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How many came before it.
    pub nth: usize,
    pub tcp: bool,
    pub from: SocketAddr,
    pub message: Message,
}

impl Asked {
    /// The name in lower case, without the final dot.
    pub fn name(&self) -> String {
        self.message.queries[0].name().to_lowercase().to_ascii().trim_end_matches('.').to_owned()
    }

    pub fn qtype(&self) -> RecordType {
        self.message.queries[0].query_type()
    }

    /// An empty answer: id and question as they came.
    pub fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = Message::new(self.message.id, MessageType::Response, OpCode::Query);
        reply.metadata.response_code = code;
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&self.message.queries);
        reply
    }

    pub fn found(&self, answers: Vec<Record>) -> Say {
        let mut reply = self.reply(ResponseCode::NoError);
        reply.answers = answers;
        Say::message(&reply)
    }

    /// NXDOMAIN with the SOA of `zone`.
    pub fn nxdomain(&self, zone: &str) -> Say {
        let mut reply = self.reply(ResponseCode::NXDomain);
        reply.authorities = vec![soa(zone, 60)];
        Say::message(&reply)
    }

    /// Empty NOERROR with the SOA of `zone`.
    pub fn nodata(&self, zone: &str) -> Say {
        let mut reply = self.reply(ResponseCode::NoError);
        reply.authorities = vec![soa(zone, 60)];
        Say::message(&reply)
    }

    /// Only a code.
    pub fn code(&self, code: ResponseCode) -> Say {
        Say::message(&self.reply(code))
    }
}

/// What the upstream does with a query, in order.
#[derive(Clone, Debug)]
pub enum Say {
    Bytes(Vec<u8>),
    /// Sends this from another port (UDP only).
    Elsewhere(Vec<u8>),
    /// Sends this from the same port of another address (UDP only).
    Stranger(Vec<u8>),
    Wait(Duration),
    /// Closes the connection (TCP only).
    Close,
}

impl Say {
    pub fn message(message: &Message) -> Self {
        Self::Bytes(message.to_vec().expect("a message a test builds fits"))
    }

    /// The bytes, to spoil them.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) | Self::Elsewhere(bytes) | Self::Stranger(bytes) => bytes,
            Self::Wait(_) | Self::Close => Vec::new(),
        }
    }
}

type Script = Arc<dyn Fn(Asked) -> Vec<Say> + Send + Sync>;

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Asked>>>,
    hears_loop_probes: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(script: impl Fn(Asked) -> Vec<Say> + Send + Sync + 'static) -> Self {
        loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = udp.local_addr().expect("bound");
            // The same port may be taken for TCP: then another.
            let Ok(tcp) = TcpListener::bind(address).await else { continue };
            let upstream = Self {
                address,
                script: Arc::new(Mutex::new(Arc::new(script))),
                seen: Arc::default(),
                hears_loop_probes: Arc::default(),
            };
            tokio::spawn(upstream.clone().serve_udp(Arc::new(udp)));
            tokio::spawn(upstream.clone().serve_tcp(tcp));
            return upstream;
        }
    }

    /// Answers every A question with `ip` and this TTL, everything else NODATA.
    pub async fn with_a(ttl: u32, ip: [u8; 4]) -> Self {
        Self::start(move |asked| match asked.qtype() {
            RecordType::A => vec![asked.found(vec![a(&asked.name(), ttl, ip)])],
            _ => vec![asked.nodata(".")],
        })
        .await
    }

    /// One that hears and never speaks.
    pub async fn silent() -> Self {
        Self::start(|_| Vec::new()).await
    }

    /// Says something else from now on.
    pub fn now(&self, script: impl Fn(Asked) -> Vec<Say> + Send + Sync + 'static) {
        *self.script.lock().expect("no test panics holding it") = Arc::new(script);
    }

    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().expect("no test panics holding it").clone()
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("no test panics holding it").len()
    }

    /// From now on, searches for loops are asked of the script too; else they are lost on the way.
    pub fn hear_loop_probes(&self) {
        self.hears_loop_probes.store(true, Ordering::Relaxed);
    }

    fn hear(&self, raw: &[u8], from: SocketAddr, tcp: bool) -> Vec<Say> {
        let message = Message::from_vec(raw).expect("holdfast sends well-formed queries");
        let is_probe = message.queries[0].query_type() == RecordType::HINFO;
        if is_probe && !self.hears_loop_probes.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let asked = {
            let mut seen = self.seen.lock().expect("no test panics holding it");
            let asked = Asked { nth: seen.len(), tcp, from, message };
            seen.push(asked.clone());
            asked
        };
        let script = Arc::clone(&self.script.lock().expect("no test panics holding it"));
        script(asked)
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 65_535];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let says = self.hear(&buffer[..length], from, false);
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                for say in says {
                    match say {
                        Say::Bytes(bytes) => drop(socket.send_to(&bytes, from).await),
                        Say::Elsewhere(bytes) => {
                            let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
                            drop(other.send_to(&bytes, from).await);
                        }
                        Say::Stranger(bytes) => {
                            let port = socket.local_addr().expect("bound").port();
                            let other = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await;
                            drop(other.expect("nobody else uses 127.0.0.2").send_to(&bytes, from).await);
                        }
                        Say::Wait(time) => tokio::time::sleep(time).await,
                        Say::Close => {}
                    }
                }
            });
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            tokio::spawn(self.clone().converse(stream, from));
        }
    }

    async fn converse(self, mut stream: TcpStream, from: SocketAddr) {
        while let Ok(length) = stream.read_u16().await {
            let mut raw = vec![0; usize::from(length)];
            if stream.read_exact(&mut raw).await.is_err() {
                return;
            }
            for say in self.hear(&raw, from, true) {
                match say {
                    Say::Bytes(bytes) | Say::Elsewhere(bytes) | Say::Stranger(bytes) => {
                        let mut frame = u16::try_from(bytes.len()).expect("fits").to_be_bytes().to_vec();
                        frame.extend_from_slice(&bytes);
                        drop(stream.write_all(&frame).await);
                    }
                    Say::Wait(time) => tokio::time::sleep(time).await,
                    Say::Close => return,
                }
            }
        }
    }
}

pub fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

pub fn a(owner: &str, ttl: u32, ip: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(ip.into())))
}

pub fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

pub fn soa(zone: &str, minimum: u32) -> Record {
    let data = SOA::new(name("ns.invalid"), name("admin.invalid"), 1, 3_600, 600, 86_400, minimum);
    Record::from_rdata(name(zone), 3_600, RData::SOA(data))
}

//! dnstap (dnstap.info): answers to clients, sampled, as Frame Streams over a unix socket that a collector listens on.
//!
//! A collector that is slow or gone costs frames, counted, never an answer. Reads nothing but the collector's consent.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};

use super::{Metrics, Sampler};
use crate::{
    dns::request::{ForwardRequest, Transport},
    sys::{Lock, UnixMillis},
};

/// The content type that both ends must agree on.
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// Frames waiting for the collector.
const FRAMES_MAX: usize = 1_024;
/// Time between two attempts to reach it.
const RETRY: Duration = Duration::from_secs(5);
/// Given to the handshake, and to the kernel to take one frame.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest control frame, by the specification of Frame Streams.
const CONTROL_BYTES_MAX: usize = 512;
const CONTROL_ACCEPT: u32 = 1;
const CONTROL_START: u32 = 2;
const CONTROL_READY: u32 = 4;
const FIELD_CONTENT_TYPE: u32 = 1;

/// The way to a collector.
#[derive(Debug)]
pub struct Tap {
    socket: Option<PathBuf>,
    sampler: Sampler,
    identity: Vec<u8>,
    frames: mpsc::Sender<Vec<u8>>,
    queue: Lock<Option<mpsc::Receiver<Vec<u8>>>>,
}

impl Tap {
    /// Sends every Nth answer to the collector at `socket`; none without a socket.
    pub fn new(socket: Option<PathBuf>, every: u32) -> Self {
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        let every = if socket.is_some() { every } else { 0 };
        let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let identity = host.trim_ascii().to_vec();
        Self { socket, sampler: Sampler::new(every), identity, frames, queue: Lock::new(Some(queue)) }
    }

    /// Counts a question; returns whether its answer is sent.
    pub fn count(&self) -> bool {
        self.sampler.count()
    }

    /// Queues `response` to `request`, given at `now`, if it is to be sent.
    pub fn note(&self, request: &ForwardRequest, response: &[u8], now: UnixMillis, metrics: &Metrics) {
        if self.sampler.take() && self.frames.try_send(frame(&self.identity, request, response, now)).is_err() {
            metrics.dnstap_dropped.inc();
        }
    }

    /// Sends the queued frames to the collector, until dropped.
    pub async fn run(&self) {
        let queue = self.queue.lock().take();
        let (Some(path), Some(mut queue)) = (&self.socket, queue) else { return };
        let mut told = false;
        loop {
            let ended = match connect(path).await {
                Ok(mut stream) => {
                    tracing::info!(socket = %path.display(), "dnstap collector reached");
                    told = false;
                    pump(&mut stream, &mut queue).await
                }
                Err(error) => error,
            };
            if !told {
                tracing::warn!(socket = %path.display(), error = %ended, "dnstap collector not reachable; trying again");
            }
            told = true;
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Connects, and asks whether dnstap is welcome (Frame Streams, bidirectional).
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let handshake = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(&control(CONTROL_READY)).await?;
        accepted(&mut stream).await?;
        stream.write_all(&control(CONTROL_START)).await?;
        Ok(stream)
    };
    tokio::time::timeout(WAIT_MAX, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Passes frames on until the collector is gone; returns why.
async fn pump(stream: &mut UnixStream, queue: &mut mpsc::Receiver<Vec<u8>>) -> io::Error {
    while let Some(frame) = queue.recv().await {
        match tokio::time::timeout(WAIT_MAX, stream.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
    }
    io::ErrorKind::BrokenPipe.into()
}

/// Waits for ACCEPT with our content type.
async fn accepted(stream: &mut UnixStream) -> io::Result<()> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the collector {why}"));
    let (escape, length) = (stream.read_u32().await?, stream.read_u32().await?);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if escape != 0 || !(4..=CONTROL_BYTES_MAX).contains(&length) {
        return Err(refused("does not speak Frame Streams"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (kind, mut fields) = body.split_at(4);
    if kind != CONTROL_ACCEPT.to_be_bytes() {
        return Err(refused("does not accept"));
    }
    while let Some((head, rest)) = fields.split_first_chunk::<8>() {
        let [a, b, c, d, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let Some(value) = rest.get(..length) else { break };
        if u32::from_be_bytes([a, b, c, d]) == FIELD_CONTENT_TYPE && value == CONTENT_TYPE {
            return Ok(());
        }
        fields = &rest[length..];
    }
    Err(refused("does not take dnstap"))
}

/// A control frame with our content type.
fn control(kind: u32) -> Vec<u8> {
    let content = u32::try_from(CONTENT_TYPE.len()).unwrap_or(0);
    let words = [0, 12 + content, kind, FIELD_CONTENT_TYPE, content];
    words.iter().flat_map(|word| word.to_be_bytes()).chain(CONTENT_TYPE.iter().copied()).collect()
}

/// A data frame: its length, and a `CLIENT_RESPONSE`.
fn frame(identity: &[u8], request: &ForwardRequest, response: &[u8], now: UnixMillis) -> Vec<u8> {
    const CLIENT_RESPONSE: i32 = 6;
    const MESSAGE: i32 = 1;
    let ip = request.client.ip();
    let took = u64::try_from(request.received.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (asked, answered) = (now.0.saturating_sub(took), now.0);
    let nanos = |millis: u64| u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
    let message = TapMessage {
        kind: CLIENT_RESPONSE,
        socket_family: if ip.is_ipv4() { 1 } else { 2 },
        socket_protocol: match request.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            Transport::Tls => 3,
            Transport::Https => 4,
            Transport::Quic => 7,
        },
        query_address: match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        query_port: request.client.port().into(),
        query_time_sec: asked / 1_000,
        query_time_nsec: nanos(asked),
        query_message: request.query.clone(),
        response_time_sec: answered / 1_000,
        response_time_nsec: nanos(answered),
        response_message: response.to_vec(),
    };
    let version = concat!("holdfast ", env!("CARGO_PKG_VERSION")).into();
    let dnstap = Dnstap { identity: identity.to_vec(), version, message: Some(message), kind: MESSAGE };
    // Two messages of at most 65,535 bytes each.
    let mut frame = u32::try_from(dnstap.encoded_len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.extend(dnstap.encode_to_vec());
    frame
}

/// `dnstap.Dnstap`, of version 2 of the schema, as far as it is filled in here.
#[derive(Clone, PartialEq, prost::Message)]
struct Dnstap {
    #[prost(bytes = "vec", tag = "1")]
    identity: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    version: Vec<u8>,
    #[prost(message, optional, tag = "14")]
    message: Option<TapMessage>,
    #[prost(int32, required, tag = "15")]
    kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TapMessage {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(int32, tag = "2")]
    socket_family: i32,
    #[prost(int32, tag = "3")]
    socket_protocol: i32,
    #[prost(bytes = "vec", tag = "4")]
    query_address: Vec<u8>,
    #[prost(uint32, tag = "6")]
    query_port: u32,
    #[prost(uint64, tag = "8")]
    query_time_sec: u64,
    #[prost(fixed32, tag = "9")]
    query_time_nsec: u32,
    #[prost(bytes = "vec", tag = "10")]
    query_message: Vec<u8>,
    #[prost(uint64, tag = "12")]
    response_time_sec: u64,
    #[prost(fixed32, tag = "13")]
    response_time_nsec: u32,
    #[prost(bytes = "vec", tag = "14")]
    response_message: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixListener, time::Instant};

    use super::*;

    fn request() -> ForwardRequest {
        ForwardRequest {
            query: b"question".to_vec(),
            transport: Transport::Udp,
            client: ([10, 0, 0, 9], 5_353).into(),
            server: ([10, 0, 0, 1], 53).into(),
            received: Instant::now(),
            cookie: None,
            forward: crate::dns::Forward::Whole,
            written: Vec::new(),
        }
    }

    fn tap(folder: &Path) -> (Tap, Metrics, PathBuf) {
        let path = folder.join("tap.sock");
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        (Tap::new(Some(path.clone()), 1), metrics, path)
    }

    async fn read_control(stream: &mut UnixStream) -> Vec<u8> {
        assert_eq!(stream.read_u32().await.unwrap(), 0, "the escape");
        let length = stream.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        body
    }

    #[tokio::test]
    async fn a_collector_that_accepts_gets_answers_as_the_schema_says() {
        let folder = tempfile::tempdir().unwrap();
        let (tap, metrics, path) = tap(folder.path());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(tap.count());
        tap.note(&request(), b"answer", UnixMillis(1_700_000_000_250), &metrics);
        let collect = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let ready = read_control(&mut stream).await;
            assert_eq!(ready, [&[0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 22], CONTENT_TYPE].concat());
            stream.write_all(&control(CONTROL_ACCEPT)).await.unwrap();
            assert_eq!(read_control(&mut stream).await[..4], [0, 0, 0, 2], "START");
            let length = stream.read_u32().await.unwrap();
            let mut data = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut data).await.unwrap();
            data
        };
        let data = tokio::select! {
            () = tap.run() => panic!("it never ends"),
            data = collect => data,
        };
        // Field numbers and wire types by dnstap.proto: type=15 at the end; inside message=14 type=1, socket_family=2,
        // socket_protocol=3, query_address=4, query_port=6.
        assert_eq!(data[data.len() - 2..], [0x78, 1]);
        let message = [0x08, 6, 0x10, 1, 0x18, 1, 0x22, 4, 10, 0, 0, 9, 0x30, 0xE9, 0x29, 0x40];
        assert!(data.windows(message.len()).any(|window| window == message), "{data:02x?}");
        let answered = [&[0x6D][..], &250_000_000_u32.to_le_bytes(), &[0x72, 6], b"answer"].concat();
        assert!(data.windows(answered.len()).any(|window| window == answered), "{data:02x?}");
        let question = [&[0x52, 8][..], b"question"].concat();
        assert!(data.windows(question.len()).any(|window| window == question), "{data:02x?}");
    }

    #[tokio::test]
    async fn a_socket_that_speaks_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tap.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let other = [&control(CONTROL_ACCEPT)[..20], b"protobuf:other.Stream2"].concat();
        for said in [b"HTTP/1.1 400 Bad Request\r\n".to_vec(), control(CONTROL_START), other] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_control(&mut stream).await;
                stream.write_all(&said).await.unwrap();
                stream
            };
            let (connected, _held) = tokio::join!(connect(&path), serve);
            assert!(connected.unwrap_err().to_string().starts_with("the collector does not"));
        }
    }

    #[tokio::test]
    async fn without_a_collector_frames_are_bounded_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (tap, metrics, _) = tap(folder.path());
        for _ in 0..FRAMES_MAX + 5 {
            assert!(tap.count());
            tap.note(&request(), b"answer", UnixMillis(1), &metrics);
        }
        assert_eq!(metrics.dnstap_dropped.get(), 5);
        let off = Tap::new(None, 1);
        assert!(!off.count());
    }
}

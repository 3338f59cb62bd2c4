//! One simulated agent: a socket, TLS, HTTP/2, one stream, and a pointer to a shared state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Uri, header};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::io::{InspectReader, InspectWriter};

use super::{
    memo::{Broken, Meaning, Memo, State},
    tally::Tally,
};
use crate::{
    proto::{self, FOLLOW_PATH, FRAME_BYTES_MAX, split_bytes},
    record::RootDigest,
    sys::Clock,
    tls::Tls,
};

const SILENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(15);
const WINDOW_BYTES: u32 = 1 << 20;

pub(super) struct Agent {
    pub name: String,
    pub hubs: Vec<String>,
    pub number: usize,
    pub tls: Option<Tls>,
    pub tally: Arc<Tally>,
    pub memo: Arc<Memo>,
}

/// Where an agent stands between streams.
struct Standing {
    state: Arc<State>,
    /// The counter it is in; `None` while it is not live.
    counted: Option<RootDigest>,
    window_ms: u32,
}

/// The result of a stream.
enum Go {
    On,
    /// Greet again on the same connection.
    Again,
    Away(&'static str),
}

impl Agent {
    pub(super) async fn run(self) {
        let mut standing = Standing { state: self.memo.empty(), counted: None, window_ms: 1_000 };
        let mut turn = self.number;
        let mut pause = Duration::ZERO;
        loop {
            sleep(pause).await;
            let hub = &self.hubs[turn % self.hubs.len()];
            let ended = self.follow(hub, &mut standing).await;
            self.tally.failed(&ended.map_or_else(|error| error.to_string(), str::to_owned));
            let followed = standing.counted.is_some();
            self.tally.moved(standing.counted.take(), None);
            turn += 1;
            // As a real agent does: spread first, then back off.
            pause = if followed {
                Duration::from_millis(rand::random_range(0..=u64::from(standing.window_ms)))
            } else {
                let last = pause.max(Duration::from_millis(500));
                rand::random_range(Duration::from_millis(500)..=last * 3).min(Duration::from_secs(60))
            };
        }
    }

    async fn follow(&self, hub: &str, standing: &mut Standing) -> anyhow::Result<&'static str> {
        let socket = timeout(CONNECT, TcpStream::connect(hub)).await.context("no connection in time")??;
        socket.set_nodelay(true)?;
        let (incoming, outgoing) = (Arc::clone(&self.tally), Arc::clone(&self.tally));
        let count = |counter: &AtomicU64, bytes: &[u8]| _ = counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let socket = InspectReader::new(socket, move |bytes: &[u8]| count(&incoming.bytes_in, bytes));
        let socket = InspectWriter::new(socket, move |bytes: &[u8]| count(&outgoing.bytes_out, bytes));
        match &self.tls {
            None => self.speak(socket, standing).await,
            Some(tls) => {
                let name = ServerName::try_from("holdfast.invalid")?;
                let connect = TlsConnector::from(tls.current().client).connect(name, socket);
                let stream = timeout(CONNECT, connect).await.context("no handshake in time")??;
                Box::pin(self.speak(stream, standing)).await
            }
        }
    }

    async fn speak(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        standing: &mut Standing,
    ) -> anyhow::Result<&'static str> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).header_table_size(0);
        let (mut sender, mut connection) = builder.handshake::<_, Bytes>(io).await?;
        self.tally.connects.fetch_add(1, Ordering::Relaxed);
        let streaming = async {
            loop {
                match self.stream(&mut sender, standing).await? {
                    Go::On => return Ok("stream ended"),
                    Go::Again => {}
                    Go::Away(reason) => return Ok(reason),
                }
            }
        };
        tokio::select! {
            // The connection moves the bytes; both in one task.
            ended = &mut connection => ended.map(|()| "connection ended").map_err(Into::into),
            done = streaming => done,
        }
    }

    async fn stream(&self, sender: &mut h2::client::SendRequest<Bytes>, standing: &mut Standing) -> anyhow::Result<Go> {
        standing.state = self.memo.restart(&standing.state);
        let hello = proto::hello(&self.name, "", standing.state.held());
        std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
        let uri = Uri::builder().scheme("http").authority("holdfast.invalid").path_and_query(FOLLOW_PATH).build()?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(proto::framed(&hello), true)?;
        let mut frames = timeout(SILENCE, response).await.context("no answer to the greeting")??.into_body();
        let mut bytes = BytesMut::new();
        loop {
            let chunk = timeout(SILENCE, frames.data()).await.context("silent for too long")?;
            let Some(chunk) = chunk else { return Ok(Go::On) };
            let chunk = chunk?;
            frames.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
            while let Some(frame) = split_bytes(&mut bytes, FRAME_BYTES_MAX)? {
                match self.take(&frame, standing) {
                    Go::On => {}
                    go => return Ok(go),
                }
            }
        }
    }

    fn take(&self, frame: &Bytes, standing: &mut Standing) -> Go {
        let (state, meaning, window) = match self.memo.step(&standing.state, frame) {
            Ok(step) => step,
            Err(broken) => {
                self.tally.moved(standing.counted.take(), None);
                return match broken {
                    Broken::Digest => {
                        self.tally.mismatch();
                        Go::Again
                    }
                    Broken::Gap => Go::Again,
                    Broken::Protocol => Go::Away("frame against the protocol"),
                };
            }
        };
        let delay = match meaning {
            Meaning::Changed(made) => u64::try_from(made.age(Clock::System.now()).as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        };
        self.tally.meant(meaning, delay);
        standing.state = state;
        standing.window_ms = window.unwrap_or(standing.window_ms);
        match meaning {
            Meaning::Changed(_) | Meaning::Replaced | Meaning::Fresh => {
                let root = Some(standing.state.root);
                self.tally.moved(std::mem::replace(&mut standing.counted, root), root);
                Go::On
            }
            Meaning::Leaving => Go::Away("hub is leaving"),
            _ => Go::On,
        }
    }
}

//! One simulated agent: a socket, TLS, HTTP/2, one stream, and a pointer to a shared state.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request, Uri, header};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    memo::{Broken, Meaning, Memo, State},
    tally::Tally,
};
use crate::{
    proto::{self, FOLLOW_PATH, FRAME_BYTES_MAX, GRPC_HEADER_BYTES},
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
            let followed = match self.follow(hub, &mut standing).await {
                Ok(reason) => {
                    self.tally.failed(reason);
                    standing.counted.is_some()
                }
                Err(error) => {
                    self.tally.failed(&error.to_string());
                    standing.counted.is_some()
                }
            };
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

    async fn follow(
        &self,
        hub: &str,
        standing: &mut Standing,
    ) -> Result<&'static str, Box<dyn std::error::Error + Send + Sync>> {
        let socket = timeout(CONNECT, TcpStream::connect(hub)).await.map_err(|_| "no connection in time")??;
        socket.set_nodelay(true)?;
        let socket = Counted { socket, tally: Arc::clone(&self.tally) };
        match &self.tls {
            None => self.speak(socket, standing).await,
            Some(tls) => {
                let name = ServerName::try_from("holdfast.invalid")?;
                let connect = TlsConnector::from(tls.current().client).connect(name, socket);
                let stream = timeout(CONNECT, connect).await.map_err(|_| "no handshake in time")??;
                Box::pin(self.speak(stream, standing)).await
            }
        }
    }

    async fn speak(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        standing: &mut Standing,
    ) -> Result<&'static str, Box<dyn std::error::Error + Send + Sync>> {
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

    async fn stream(
        &self,
        sender: &mut h2::client::SendRequest<Bytes>,
        standing: &mut Standing,
    ) -> Result<Go, Box<dyn std::error::Error + Send + Sync>> {
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
        let mut frames = timeout(SILENCE, response).await.map_err(|_| "no answer to the greeting")??.into_body();
        let mut bytes = BytesMut::new();
        loop {
            let chunk = timeout(SILENCE, frames.data()).await.map_err(|_| "silent for too long")?;
            let Some(chunk) = chunk else { return Ok(Go::On) };
            let chunk = chunk?;
            frames.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
            while let Some(frame) = whole(&mut bytes)? {
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

/// The next whole message, its header taken off.
fn whole(bytes: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    let Some(header) = bytes.first_chunk::<GRPC_HEADER_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *header;
    let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if compressed != 0 || len > FRAME_BYTES_MAX {
        return Err("not a frame");
    }
    if bytes.len() < GRPC_HEADER_BYTES + len {
        return Ok(None);
    }
    bytes.advance(GRPC_HEADER_BYTES);
    Ok(Some(bytes.split_to(len).freeze()))
}

/// A socket whose bytes are counted.
struct Counted {
    socket: TcpStream,
    tally: Arc<Tally>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.tally.bytes_in.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.tally.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

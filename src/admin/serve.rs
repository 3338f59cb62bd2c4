//! HTTP/1.1 over a listener, one request a connection, with every connection bounded in number and time.
//!
//! Nobody who connects and then does nothing, reads nothing or sends for ever keeps more than one of the connections, for
//! longer than its time limit.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::FutureExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::warn;

use super::port::Listening;

/// The time a request's head may take to arrive.
const HEAD: Duration = Duration::from_secs(5);
/// How long requests in progress are waited for at the end.
const GRACE: Duration = Duration::from_secs(1);
/// A pause after an accept that failed for want of resources, which would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// The most a request's head may have, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more are closed unread.
    pub connections: usize,
    /// The time from accept to the last byte of the answer.
    pub time: Duration,
    /// Counts the connections closed for being too many.
    pub refused: IntCounter,
}

pub enum Listener {
    Unix(UnixListener),
    Tcp(Listening),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(port) => Ok(Box::new(port.listener.accept().await?.0)),
        }
    }
}

/// Serves until `stop`, then lets requests in progress end for a moment.
pub async fn serve(listener: Listener, router: Router, limits: Limits, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => {
                        let answer = connection(stream, router.clone());
                        let time = limits.time;
                        connections.spawn(async move {
                            let _ = timeout(time, answer).await;
                            drop(slot);
                        });
                    }
                    Err(_) => limits.refused.inc(),
                },
                Err(error) => {
                    warn!(%error, "admin connection not accepted");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    // Who has connected already is answered: the kernel would reset them.
    while let (Some(Ok(stream)), Ok(slot)) = (listener.accept().now_or_never(), Arc::clone(&slots).try_acquire_owned())
    {
        let answer = connection(stream, router.clone());
        connections.spawn(async move {
            answer.await;
            drop(slot);
        });
    }
    drop(listener);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: Box<dyn Stream>, router: Router) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    // A client that went away or spoke nonsense is no event.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

//! DoH (RFC 8484): HTTP/2 over TLS, a request for each query, GET or POST of `/dns-query`.
//!
//! Owns the limits of requests: hyper bounds streams, headers and resets, this module time and bytes.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use super::{ALPN_HTTPS, alone};
use crate::{
    dns::{CloseCause, Transport, tcp::Shared},
    limits::{Activity, ConnectionSlot},
    wire::{Message, Rcode, Rtype, Section, TCP_BYTES_MAX},
};

/// The one path there is.
const PATH: &str = "/dns-query";
/// The media type of queries and answers (RFC 8484, 6).
const DNS_MESSAGE: &str = "application/dns-message";
/// Bytes of a request's headers; a GET carries its query there, in base64.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Bytes a client may send of one request, and of all together, before they are read.
const STREAM_WINDOW_BYTES: u32 = 65_535;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Streams that a client may open and reset before the connection ends (CVE-2023-44487).
const RESETS_MAX: usize = 16;
/// Answers longer than this count as large, and only this many of them wait for the client at once.
const SMALL_BYTES: usize = 4 * 1024;
const LARGE_MAX: usize = 4;
/// How long a connection has for its last answers when we leave or it was idle.
const LINGER: Duration = Duration::from_millis(200);

/// The state that a connection and its requests share.
struct Load {
    slot: ConnectionSlot,
    state: Mutex<Requests>,
    large: Arc<Semaphore>,
}

struct Requests {
    /// Requests whose answers have not left yet.
    open: usize,
    /// When a request came, or an answer left.
    last: Instant,
}

impl Load {
    fn requests(&self) -> std::sync::MutexGuard<'_, Requests> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> Open {
        let mut requests = self.requests();
        requests.open += 1;
        requests.last = Instant::now();
        self.slot.set(Activity::Answering);
        Open(Arc::clone(self))
    }
}

/// A request that is not answered yet, or whose answer has not left.
struct Open(Arc<Load>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut requests = self.0.requests();
        requests.open -= 1;
        requests.last = Instant::now();
        if requests.open == 0 {
            self.0.slot.set(Activity::Idle);
        }
    }
}

/// An answer on its way; gone when hyper has passed it on.
struct Answer {
    bytes: Bytes,
    _open: Open,
    _large: Option<OwnedSemaphorePermit>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// Puts the tasks of a connection's streams beside the connection, so that a drain waits for them.
#[derive(Clone)]
struct Beside(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves one connection from its TLS handshake to its end.
pub(in crate::dns) async fn run(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    client: SocketAddr,
    slot: ConnectionSlot,
) {
    shared.core.metrics.connections().inc();
    let cause = handshake_and_serve(&shared, &acceptor, stream, client, slot).await;
    shared.core.metrics.connections().dec();
    shared.core.metrics.connection_closed(cause);
}

async fn handshake_and_serve(
    shared: &Arc<Shared>,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    client: SocketAddr,
    slot: ConnectionSlot,
) -> CloseCause {
    slot.set(Activity::Receiving);
    let evicted = slot.evicted().clone();
    let stream = tokio::select! {
        () = evicted.cancelled() => return CloseCause::Evicted,
        () = shared.core.expired.cancelled() => return CloseCause::Drain,
        handshake = timeout(shared.config.partial, acceptor.accept(stream)) => match handshake {
            Err(_) => return CloseCause::Partial,
            Ok(Err(_)) => return CloseCause::Broken,
            Ok(Ok(stream)) => stream,
        },
    };
    // A client without ALPN speaks HTTP/1.1, which DoH is not served over.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTPS) {
        return CloseCause::Broken;
    }
    serve(shared, stream, client, slot).await
}

async fn serve(
    shared: &Arc<Shared>,
    stream: TlsStream<TcpStream>,
    client: SocketAddr,
    slot: ConnectionSlot,
) -> CloseCause {
    let config = &shared.config;
    let evicted = slot.evicted().clone();
    slot.set(Activity::Idle);
    let load = Arc::new(Load {
        slot,
        state: Mutex::new(Requests { open: 0, last: Instant::now() }),
        large: Arc::new(Semaphore::new(LARGE_MAX)),
    });
    let service = service_fn({
        let (shared, load) = (Arc::clone(shared), Arc::clone(&load));
        move |request| {
            let (shared, open) = (Arc::clone(&shared), load.begin());
            async move { Ok::<_, Infallible>(respond(&shared, request, client, open).await) }
        }
    });
    let connection = http2::Builder::new(Beside(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(config.in_flight_max).unwrap_or(u32::MAX))
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(TCP_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut ends = false;
    let mut cause = CloseCause::Client;
    let mut linger_until = Instant::now();
    loop {
        let (open, last) = {
            let requests = load.requests();
            (requests.open, requests.last)
        };
        let deadline = match (ends, open) {
            (true, 0) => linger_until,
            (false, 0) => last + config.idle,
            // Forwards have a time budget of their own, well below the two together.
            (_, _) => last + config.write + config.idle,
        };
        tokio::select! {
            biased;
            () = evicted.cancelled() => return CloseCause::Evicted,
            () = shared.core.expired.cancelled() => return CloseCause::Drain,
            () = shared.leaving.cancelled(), if !ends => {
                ends = true;
                (cause, linger_until) = (CloseCause::Drain, Instant::now() + LINGER);
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => return if ended.is_err() { CloseCause::Broken } else { cause },
            () = sleep_until(deadline) => {
                let requests = load.requests();
                if (requests.open, requests.last) != (open, last) {
                    continue;
                }
                if open > 0 {
                    return CloseCause::Write;
                }
                if ends {
                    return cause;
                }
                drop(requests);
                ends = true;
                (cause, linger_until) = (CloseCause::Idle, Instant::now() + LINGER);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Answers one request.
async fn respond(shared: &Arc<Shared>, request: Request<Incoming>, client: SocketAddr, open: Open) -> Response<Answer> {
    let message = match timeout(shared.config.partial, query(request)).await {
        Ok(Ok(message)) => message,
        Ok(Err(status)) => return refused(status, open),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, open),
    };
    let Some(answer) = alone::answer(&shared.core, &message, Transport::Https, client).await else {
        // A response, or shorter than a header: no query.
        return refused(StatusCode::BAD_REQUEST, open);
    };
    let large = if answer.len() > SMALL_BYTES { Arc::clone(&open.0.large).acquire_owned().await.ok() } else { None };
    let max_age = freshness(&answer);
    let mut response = Response::new(Answer { bytes: answer.into(), _open: open, _large: large });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(DNS_MESSAGE));
    // RFC 8484, 5.1: not longer than the shortest TTL.
    let cache = HeaderValue::from_str(&format!("max-age={max_age}"));
    headers.insert(CACHE_CONTROL, cache.expect("digits are a header's"));
    response
}

/// How long an answer may be kept, in seconds: the shortest TTL of its answer section, or what the SOA of a negative one says
/// (RFC 8484, 5.1; RFC 2308, 5). 0 for failures.
fn freshness(answer: &[u8]) -> u32 {
    let Ok(message) = Message::new(answer) else { return 0 };
    let Ok(records) = message.records() else { return 0 };
    let records: Vec<_> = records.map_while(Result::ok).collect();
    let of = |section| records.iter().filter(move |record| record.section == section);
    let negative = || {
        let soa = of(Section::Authority).find(|record| record.rtype == Rtype::SOA)?;
        let minimum = soa.rdata.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        Some(soa.ttl.min(minimum))
    };
    match message.rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => {
            of(Section::Answer).map(|record| record.ttl).min().or_else(negative).unwrap_or(0)
        }
        _ => 0,
    }
}

fn refused(status: StatusCode, open: Open) -> Response<Answer> {
    let mut response = Response::new(Answer { bytes: Bytes::new(), _open: open, _large: None });
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// The query in a request (RFC 8484, 4.1).
async fn query(request: Request<Incoming>) -> Result<Vec<u8>, StatusCode> {
    if request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET => from_url(request.uri().query().unwrap_or_default()),
        Method::POST => {
            let of_dns = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(DNS_MESSAGE.as_bytes());
            if !request.headers().get(CONTENT_TYPE).is_some_and(of_dns) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = Limited::new(request.into_body(), TCP_BYTES_MAX);
            match body.collect().await {
                Ok(body) => Ok(body.to_bytes().into()),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
                Err(_) => Err(StatusCode::BAD_REQUEST),
            }
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// The query in the part of a URL behind `?`: the value of `dns`, in base64url without padding.
fn from_url(parameters: &str) -> Result<Vec<u8>, StatusCode> {
    let value = parameters.split('&').find_map(|parameter| parameter.strip_prefix("dns="));
    let value = value.ok_or(StatusCode::BAD_REQUEST)?;
    let message = URL_SAFE_NO_PAD.decode(value).map_err(|_| StatusCode::BAD_REQUEST)?;
    if message.len() > TCP_BYTES_MAX { Err(StatusCode::URI_TOO_LONG) } else { Ok(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_from_a_url() {
        for (parameters, expected) in [
            ("dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB", Ok(33)),
            ("a=b&dns=AAAB&dns=AA", Ok(3)),
            ("", Err(StatusCode::BAD_REQUEST)),
            ("name=example.com", Err(StatusCode::BAD_REQUEST)),
            ("dns=AAA=", Err(StatusCode::BAD_REQUEST)),
            ("dns=a+/b", Err(StatusCode::BAD_REQUEST)),
        ] {
            assert_eq!(from_url(parameters).map(|message| message.len()), expected, "{parameters}");
        }
    }
}

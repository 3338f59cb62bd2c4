//! HTTP: from a connection to lists; leases and watches have files of their own.

use std::{convert::Infallible, io, io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt as _;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Seen, Shared,
    faults::{Fault, Reply},
    leases::lease,
    store::Selector,
    watches::watch_of,
};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Pieces = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    shared.running().await;
    shared.state().connections += 1;
    let slow = shared.state().slow;
    pause(slow.accept).await;
    match &shared.certificates {
        None => serve(stream, false, &shared).await,
        Some(certificates) => {
            pause(slow.tls).await;
            if let Ok(stream) = certificates.acceptor.accept(stream).await {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(stream, http2, &shared).await;
            }
        }
    }
}

/// A server with one slow CPU: requests are worked off one after the other, those of clients that left too.
async fn work(shared: &Arc<Shared>) {
    let starved = shared.state().slow.starved;
    if starved.is_zero() {
        return;
    }
    let (cpu, (done, worked)) = (Arc::clone(&shared.cpu), tokio::sync::oneshot::channel());
    tokio::spawn(async move {
        let _turn = cpu.lock().await;
        tokio::time::sleep(starved).await;
        let _ = done.send(());
    });
    let _ = worked.await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http2: bool, shared: &Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    if http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
        return;
    }
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    shared.running().await;
    let slow = shared.state().slow;
    pause(slow.headers).await;
    work(&shared).await;
    if let Some(path) = request.uri().path().strip_prefix("/apis/coordination.k8s.io/v1/namespaces/") {
        let path = path.to_owned();
        return lease(request, &path, &shared).await;
    }
    let resource = match request.uri().path() {
        "/api/v1/services" => "services",
        "/api/v1/namespaces" => "namespaces",
        "/apis/discovery.k8s.io/v1/endpointslices" => "endpointslices",
        _ => return status(404, "NotFound", None),
    };
    let params = params(request.uri().query().unwrap_or_default());
    let header =
        |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let gzip =
        request.headers().get(header::ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().starts_with(b"gzip"));
    let watch = params.iter().any(|(key, value)| key == "watch" && value == "true");
    let verb = if watch { "watch" } else { "list" };
    let seen = Seen {
        verb,
        resource: resource.to_owned(),
        params,
        accept: header(header::ACCEPT),
        authorization: header(header::AUTHORIZATION),
        user_agent: header(header::USER_AGENT),
    };
    let fault = note(&seen, &shared);
    match fault {
        None => {}
        Some(Reply::Silent) => return watch_of(&seen, shared, true),
        Some(reply) => return faulty(reply).await,
    }
    if watch { watch_of(&seen, shared, false) } else { list(&seen, &shared, gzip) }
}

/// Notes a request, and takes the fault that a test has set for it.
pub(super) fn note(seen: &Seen, shared: &Shared) -> Option<Reply> {
    let fault = {
        let mut state = shared.state();
        state.seen.push(seen.clone());
        state.faults.iter_mut().find(|fault| fits(fault, seen)).map(|fault| {
            fault.times -= 1;
            fault.reply.clone()
        })
    };
    shared.act();
    fault
}

fn fits(fault: &Fault, seen: &Seen) -> bool {
    fault.times > 0
        && fault.resource.as_ref().is_none_or(|resource| *resource == seen.resource)
        && fault.verb.as_ref().is_none_or(|verb| verb == seen.verb)
        && fault.continued.is_none_or(|continued| continued == seen.param("continue").is_some())
}

pub(super) async fn faulty(reply: Reply) -> Response<Body> {
    match reply {
        Reply::Status { code, reason, retry_after } => status(code, &reason, retry_after),
        Reply::Bare(code) => {
            let mut response = whole(Bytes::new(), false);
            *response.status_mut() = code.try_into().unwrap();
            response
        }
        Reply::ErrorEvent { code, reason } => whole(error_event(code, &reason), false),
        Reply::Body(text) => whole(text.into(), false),
        Reply::Cut(text) => {
            let (pieces, body) = streamed();
            tokio::spawn(async move {
                let _ = pieces.send(Ok(Frame::data(text.into()))).await;
                let _ = pieces.send(Err(io::Error::other("cut"))).await;
            });
            body
        }
        Reply::Hang => std::future::pending().await,
        Reply::Silent => unreachable!("handled before"),
    }
}

fn params(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                b'+' => b' ',
                byte => byte,
            };
            decoded.push(byte);
        }
        String::from_utf8(decoded).unwrap()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

// Lists.

fn list(seen: &Seen, shared: &Shared, gzip: bool) -> Response<Body> {
    let selector = Selector::new(seen.param("labelSelector"), seen.param("fieldSelector"));
    let state = shared.state();
    let mut version = state.store.version();
    let mut after = None;
    if let Some(token) = seen.param("continue") {
        let mut parts = token.split('/');
        version = parts.next().unwrap().parse().unwrap();
        after = Some((parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned()));
        if version < state.store.compacted() {
            return status(410, "Expired", None);
        }
    }
    // `limit` is ignored with a version of 0: the answer comes from the cache, whole.
    let limit = seen.param("limit").filter(|_| seen.param("resourceVersion") != Some("0"));
    let limit: usize = limit.map_or(usize::MAX, |limit| limit.parse().unwrap());
    let mut items = Vec::new();
    let mut next = String::new();
    let mut last = None;
    for (key, object) in state.store.list(&seen.resource, after).filter(|(_, object)| selector.matches(object)) {
        if items.len() == limit {
            let (namespace, name): (String, String) = last.unwrap();
            next = format!("{version}/{namespace}/{name}");
            break;
        }
        last = Some((key.1.clone(), key.2.clone()));
        items.push(shown(object, &seen.accept));
    }
    let (kind, api) = if seen.accept.contains("PartialObjectMetadataList") {
        ("PartialObjectMetadata", "meta.k8s.io/v1")
    } else {
        kind_of(&seen.resource)
    };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if !next.is_empty() {
        metadata["continue"] = next.into();
    }
    let kind = format!("{kind}List");
    let body = json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": items}).to_string();
    let gzip = gzip && body.len() >= state.gzip_from;
    whole(body.into(), gzip)
}

/// Nothing for no time: the runtime's sleep of nothing takes a tick of its timer, 1 ms, which for each event of a list is seconds.
pub(super) async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The kind and the API version of a resource's objects.
pub(super) fn kind_of(resource: &str) -> (&'static str, &'static str) {
    match resource {
        "services" => ("Service", "v1"),
        "namespaces" => ("Namespace", "v1"),
        _ => ("EndpointSlice", "discovery.k8s.io/v1"),
    }
}

/// The object as it was asked for: whole, or its metadata.
pub(super) fn shown(object: &Value, accept: &str) -> Value {
    if !accept.contains("as=PartialObjectMetadata") {
        return object.clone();
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

// Answers.

pub(super) fn error_event(code: u16, reason: &str) -> Bytes {
    format!("{}\n", json!({"type": "ERROR", "object": status_object(code, reason, None)})).into()
}

pub(super) fn status_object(code: u16, reason: &str, retry_after: Option<u64>) -> Value {
    let mut object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("scripted: {reason}"),
    });
    if let Some(seconds) = retry_after {
        object["details"] = json!({"retryAfterSeconds": seconds});
    }
    object
}

pub(super) fn status(code: u16, reason: &str, retry_after: Option<u64>) -> Response<Body> {
    let mut response = whole(status_object(code, reason, retry_after).to_string().into(), false);
    *response.status_mut() = code.try_into().unwrap();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

pub(super) fn whole(body: Bytes, gzip: bool) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    let (response, body) = if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        (response.header(header::CONTENT_ENCODING, "gzip"), encoder.finish().unwrap().into())
    } else {
        (response, body)
    };
    response.body(Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()).unwrap()
}

pub(super) fn streamed() -> (Pieces, Response<Body>) {
    let (pieces, body) = mpsc::channel(64);
    let body = StreamBody::new(ReceiverStream::new(body).boxed());
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    (pieces, response.body(body.boxed_unsync()).unwrap())
}

//! HTTP: from a connection to lists and watches.

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
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Seen, Shared,
    faults::{Fault, Reply},
    store::Selector,
};

/// How long a version ahead of the server's is waited for. Three seconds in a real one.
const AHEAD: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Pieces = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// What a test tells the open watches.
#[derive(Clone, Debug)]
pub(super) enum Command {
    End,
    Break,
    Mute,
    Bookmark,
    Send(Bytes),
}

pub(super) struct Watcher {
    pub(super) resource: String,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

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
    let fault = {
        let mut state = shared.state();
        state.seen.push(seen.clone());
        state.faults.iter_mut().find(|fault| fits(fault, &seen)).map(|fault| {
            fault.times -= 1;
            fault.reply.clone()
        })
    };
    shared.act();
    match fault {
        None => {}
        Some(Reply::Silent) => return watch_of(&seen, shared, true),
        Some(reply) => return faulty(reply).await,
    }
    if watch { watch_of(&seen, shared, false) } else { list(&seen, &shared, gzip) }
}

/// Reads, makes or replaces a lease; replacing takes the version it has.
async fn lease(request: Request<Incoming>, path: &str, shared: &Shared) -> Response<Body> {
    let mut parts = path.split('/');
    let (namespace, name) = (parts.next().unwrap().to_owned(), parts.nth(1).map(str::to_owned));
    let verb = match *request.method() {
        http::Method::POST => "create",
        http::Method::PUT => "update",
        _ => "get",
    };
    let seen = Seen {
        verb,
        resource: "leases".to_owned(),
        params: Vec::new(),
        accept: String::new(),
        authorization: String::new(),
        user_agent: String::new(),
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let fault = {
        let mut state = shared.state();
        state.seen.push(seen.clone());
        state.faults.iter_mut().find(|fault| fits(fault, &seen)).map(|fault| {
            fault.times -= 1;
            fault.reply.clone()
        })
    };
    shared.act();
    if let Some(reply) = fault {
        return faulty(reply).await;
    }
    let mut state = shared.state();
    let Some(name) = name else {
        let mut object: Value = serde_json::from_slice(&body).unwrap();
        object["metadata"]["namespace"] = namespace.as_str().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if state.store.get("leases", &namespace, &name).is_some() {
            return status(409, "AlreadyExists", None);
        }
        return put_lease(&mut state.store, shared, object);
    };
    let Some(held) = state.store.get("leases", &namespace, &name).cloned() else {
        let mut object = status_object(404, "NotFound", None);
        object["message"] = format!("leases.coordination.k8s.io \"{name}\" not found").into();
        let mut response = whole(object.to_string().into(), false);
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        return response;
    };
    if verb == "get" {
        return whole(held.to_string().into(), false);
    }
    let mut object: Value = serde_json::from_slice(&body).unwrap();
    object["metadata"]["namespace"] = namespace.into();
    if object["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"] {
        return status(409, "Conflict", None);
    }
    put_lease(&mut state.store, shared, object)
}

fn put_lease(store: &mut super::store::Store, shared: &Shared, object: Value) -> Response<Body> {
    let key = (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
    store.put(object);
    shared.version.send_replace(store.version());
    let kept = store.get("leases", key.0.as_str().unwrap(), key.1.as_str().unwrap()).unwrap();
    whole(kept.to_string().into(), false)
}

fn fits(fault: &Fault, seen: &Seen) -> bool {
    fault.times > 0
        && fault.resource.as_ref().is_none_or(|resource| *resource == seen.resource)
        && fault.verb.as_ref().is_none_or(|verb| verb == seen.verb)
        && fault.continued.is_none_or(|continued| continued == seen.param("continue").is_some())
}

async fn faulty(reply: Reply) -> Response<Body> {
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

/// The object as it was asked for: whole, or its metadata.
/// Nothing for no time: the runtime's sleep of nothing takes a tick of its timer, 1 ms, which for each event of a list is seconds.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The kind and the API version of a resource's objects.
fn kind_of(resource: &str) -> (&'static str, &'static str) {
    match resource {
        "services" => ("Service", "v1"),
        "namespaces" => ("Namespace", "v1"),
        _ => ("EndpointSlice", "discovery.k8s.io/v1"),
    }
}

fn shown(object: &Value, accept: &str) -> Value {
    if !accept.contains("as=PartialObjectMetadata") {
        return object.clone();
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

// Watches.

fn watch_of(seen: &Seen, shared: Arc<Shared>, silent: bool) -> Response<Body> {
    let initial = seen.param("sendInitialEvents") == Some("true");
    if initial && (!shared.state().streaming_lists || seen.param("resourceVersionMatch") != Some("NotOlderThan")) {
        return status(422, "Invalid", None);
    }
    let (pieces, response) = streamed();
    let (commands, commanded) = mpsc::unbounded_channel();
    let watcher = Arc::new(Watcher { resource: seen.resource.clone(), commands });
    {
        let mut state = shared.state();
        state.watchers.push(Arc::clone(&watcher));
        state.most_watchers = state.most_watchers.max(state.watchers.len());
    }
    shared.act();
    let selector = Selector::new(seen.param("labelSelector"), seen.param("fieldSelector"));
    let watching =
        Watching { seen: seen.clone(), shared: Arc::clone(&shared), pieces, commanded, selector, muted: silent };
    tokio::spawn(async move {
        let closed = watching.pieces.clone();
        // Whoever drops the connection ends the watch.
        tokio::select! {
            () = closed.closed() => {}
            _ = watching.run(initial) => {}
        }
        shared.state().watchers.retain(|other| !Arc::ptr_eq(other, &watcher));
        shared.act();
    });
    response
}

struct Watching {
    seen: Seen,
    shared: Arc<Shared>,
    pieces: Pieces,
    commanded: mpsc::UnboundedReceiver<Command>,
    selector: Selector,
    muted: bool,
}

struct Gone;

impl Watching {
    async fn run(mut self, initial: bool) -> Result<(), Gone> {
        let mut at = match self.seen.param("resourceVersion") {
            Some(version) if !initial => version.parse().unwrap(),
            _ => self.shared.state().store.version(),
        };
        if initial {
            self.send_initial().await?;
        } else {
            let (now, compacted) = {
                let state = self.shared.state();
                (state.store.version(), state.store.compacted())
            };
            if at > now {
                tokio::time::sleep(AHEAD).await;
                if self.shared.state().store.version() < at {
                    return self.send(error_event(504, "Timeout")).await;
                }
            }
            if at < compacted {
                return self.send(error_event(410, "Expired")).await;
            }
        }
        let seconds = self.seen.param("timeoutSeconds").map_or(1800, |seconds| seconds.parse().unwrap());
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut version = self.shared.version.subscribe();
        let every = self.shared.state().bookmark_every;
        let mut bookmarks = tokio::time::interval_at(Instant::now() + every, every);
        loop {
            self.shared.running().await;
            version.borrow_and_update();
            let news = self.shared.state().store.since(&self.seen.resource, at);
            for happened in news {
                at = happened.version;
                if let Some((kind, object)) = self.selector.event(&happened) {
                    self.send_event(kind, &object).await?;
                }
            }
            tokio::select! {
                _ = version.changed() => {}
                _ = bookmarks.tick() => self.send_bookmark(&mut at, false).await?,
                () = tokio::time::sleep_until(end) => {
                    return self.send_bookmark(&mut at, false).await;
                }
                Some(command) = self.commanded.recv() => match command {
                    Command::End => return Ok(()),
                    Command::Break => {
                        let _ = self.pieces.send(Err(io::Error::other("broken by the test"))).await;
                        return Ok(());
                    }
                    Command::Mute => self.muted = true,
                    Command::Bookmark => self.send_bookmark(&mut at, false).await?,
                    Command::Send(bytes) => self.send(bytes).await?,
                },
            }
        }
    }

    async fn send_initial(&self) -> Result<(), Gone> {
        let (objects, mut version): (Vec<Value>, u64) = {
            let state = self.shared.state();
            let listed = state.store.list(&self.seen.resource, None).map(|(_, object)| object.clone());
            (listed.filter(|object| self.selector.matches(object)).collect(), state.store.version())
        };
        for object in objects {
            self.send_event("ADDED", &object).await?;
        }
        if self.shared.state().ignores_initial_events {
            return Ok(());
        }
        self.send_bookmark(&mut version, true).await
    }

    async fn send_event(&self, kind: &str, object: &Value) -> Result<(), Gone> {
        self.send(format!("{}\n", json!({"type": kind, "object": shown(object, &self.seen.accept)})).into()).await
    }

    async fn send_bookmark(&self, at: &mut u64, ends_list: bool) -> Result<(), Gone> {
        if self.seen.param("allowWatchBookmarks") != Some("true") {
            return Ok(());
        }
        // A watch ahead of a restored server stays where it was.
        *at = (*at).max(self.shared.state().store.version());
        let mut metadata = json!({"resourceVersion": at.to_string(), "creationTimestamp": null});
        if ends_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, api) = kind_of(&self.seen.resource);
        let object = json!({"kind": kind, "apiVersion": api, "metadata": metadata, "spec": {}, "status": {}});
        let object = shown(&object, &self.seen.accept);
        self.send(format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.shared.running().await;
        let slow = self.shared.state().slow;
        pause(slow.chunk).await;
        if self.muted {
            return Ok(());
        }
        self.pieces.send(Ok(Frame::data(bytes))).await.map_err(|_| Gone)
    }
}

// Answers.

fn error_event(code: u16, reason: &str) -> Bytes {
    format!("{}\n", json!({"type": "ERROR", "object": status_object(code, reason, None)})).into()
}

fn status_object(code: u16, reason: &str, retry_after: Option<u64>) -> Value {
    let mut object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("scripted: {reason}"),
    });
    if let Some(seconds) = retry_after {
        object["details"] = json!({"retryAfterSeconds": seconds});
    }
    object
}

fn status(code: u16, reason: &str, retry_after: Option<u64>) -> Response<Body> {
    let mut response = whole(status_object(code, reason, retry_after).to_string().into(), false);
    *response.status_mut() = code.try_into().unwrap();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn whole(body: Bytes, gzip: bool) -> Response<Body> {
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

fn streamed() -> (Pieces, Response<Body>) {
    let (pieces, body) = mpsc::channel(64);
    let body = StreamBody::new(ReceiverStream::new(body).boxed());
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    (pieces, response.body(body.boxed_unsync()).unwrap())
}

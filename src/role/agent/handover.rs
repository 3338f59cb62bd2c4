//! From one agent to the next on the same node, with no query lost in between.
//!
//! ```text
//!   old                                        new, with the same flags
//!    │ answers                                  │ finds the store or the admin socket in use
//!    │◀────────── POST /handover ───────────────│
//!    │ saves its cache, flushes the store,      │
//!    │ lets go of it; answers from memory on    │
//!    │──────────── 200 ────────────────────────▶│ loads the store, joins every port, takes the socket's place
//!    │ asks there: /ready? ◀───────────────────▶│ answers, becomes ready
//!    │ leaves it the ports of probes and metrics│
//!    │ SIGTERM: leaves the ports, answers what  │
//!    │ it has received, ends                    │
//! ```
//!
//! The old process keeps the ports of probes and metrics until the new one is ready, so that no scraper takes one for the other. The old one looks after the new one for as long as both live: if that dies, at whatever step, store, socket and
//! ports are taken back. The supervisor sends SIGTERM.

use std::{
    io,
    net::SocketAddr,
    os::{linux::net::SocketAddrExt as _, unix::net},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use axum::{
    Json, Router,
    http::{Request, StatusCode, request::Builder},
    routing::post,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admin,
    config::Config,
    dns::forward::Forwarder,
    node,
    role::disk::Store,
    store::disk::{self, Owner},
    sys::{self, Lock},
};

/// The time the old process may take to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before asking again one that hung up without an answer.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Between two looks of the old process at the new one.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks in a row that find no new process before the old one takes everything back: a new one that was never seen may still
/// be opening the store.
const GONE_LOOKS: u32 = 15;
/// The same, of one that was seen.
const DIED_LOOKS: u32 = 2;
/// A refused process that has not asked for this long waits no more. It asks twice a second.
const WAITS: Duration = Duration::from_secs(2);
/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A newcomer's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Newcomer {
    role: String,
    /// As its own process namespace numbers it; for the log.
    pid: u32,
    listen: Vec<SocketAddr>,
}

impl Newcomer {
    fn of(config: &Config) -> Self {
        let listen = config.settings.every_listen_address();
        Self { role: config.role.as_str().to_owned(), pid: std::process::id(), listen }
    }

    /// Whether it has the addresses that no other process of the node has while `own` does not run.
    fn follows(&self, own: &Self) -> bool {
        let mut alone = own.listen.iter().filter(|address| node::is_link_local(address.ip()));
        self.role == own.role && alone.all(|address| self.listen.contains(address))
    }

    /// Why a process with this configuration does not hand over to it.
    fn refusal(&self, own: &Self) -> Option<String> {
        let ports = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if self.role != own.role {
            return Some(format!("it is a process of another kind: {}, not {}", own.role, self.role));
        }
        if self.listen != own.listen || own.listen.iter().any(|address| address.port() == 0) {
            return Some(format!("it listens on {}, not on {}", ports(&own.listen), ports(&self.listen)));
        }
        None
    }
}

/// The process that handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Predecessor {
    /// As it numbers itself; `None` if it is not known.
    pub pid: Option<u32>,
}

/// Asks the agent that runs here already to hand over. `None` if none does.
///
/// # Errors
/// If there is one that does not hand over, with the reason and what to do.
pub(super) async fn ask(config: &Config) -> anyhow::Result<Option<Predecessor>> {
    let store = config.settings.store_path.as_deref();
    let owner = store.and_then(disk::owner);
    let own_socket = config.settings.admin.clone();
    let socket = owner.as_ref().and_then(|owner| owner.admin.clone()).unwrap_or(own_socket);
    let newcomer = serde_json::to_vec(&Newcomer::of(config))?;
    let mut asked = ask_at(&ProcessAddress::Path(socket.clone()), &newcomer).await;
    // A process with other files, in another container, is found by its name in the network namespace.
    if asked == Reply::Nobody
        && let Some(name) = node::agent_name(&config.settings.every_listen_address())
    {
        asked = ask_at(&ProcessAddress::Name(name), &newcomer).await;
    }
    match asked {
        // A process that has the store and no socket is reported when the store is opened.
        Reply::Nobody => Ok(None),
        Reply::HandedOver => {
            let pid = owner.map(|owner| owner.pid).filter(|pid| *pid > 0);
            info!(from = pid, "the agent before handed over: joining its ports");
            Ok(Some(Predecessor { pid }))
        }
        Reply::Refused(reason) => refuse(store, owner, &socket, &reason),
    }
}

/// The result of a request at a socket.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Nobody,
    HandedOver,
    /// A process is there and hands nothing over; why.
    Refused(String),
}

/// Where a process on the node is reached.
#[derive(Clone, Debug)]
enum ProcessAddress {
    /// Its admin socket.
    Path(PathBuf),
    /// The name of an abstract socket, [`node::agent_name`].
    Name(String),
}

impl ProcessAddress {
    async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Path(path) => UnixStream::connect(path).await,
            Self::Name(name) => {
                let stream = net::UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(name)?)?;
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                let peer = stream.peer_cred()?.uid();
                // Any user may take an abstract name.
                if peer == 0 || sys::own_user() == Some(peer) {
                    return Ok(stream);
                }
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
    }
}

async fn ask_at(place: &ProcessAddress, newcomer: &[u8]) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Ok(stream) = place.connect().await else { return Reply::Nobody };
        let answer = exchange(stream, Request::post("/handover"), newcomer.to_vec());
        return match timeout_at(deadline, answer).await {
            Ok(Ok((200, _))) => Reply::HandedOver,
            Ok(Ok((409, reason))) => Reply::Refused(reason),
            Ok(Ok((404, _))) => Reply::Refused("it is a hub, or too old to hand over".into()),
            // Another program's socket.
            Ok(Ok((status, _))) => Reply::Refused(format!("it answers with status {status}")),
            // The connection broke: the process is ending, and the socket is free a moment later.
            Ok(Err(_)) if Instant::now() + ASK_AGAIN < deadline => {
                sleep(ASK_AGAIN).await;
                continue;
            }
            Ok(Err(error)) => Reply::Refused(format!("it does not answer: {error}")),
            Err(_) => Reply::Refused(format!("it does not answer within {PATIENCE:?}")),
        };
    }
}

fn refuse(
    store: Option<&Path>,
    owner: Option<Owner>,
    socket: &Path,
    reason: &str,
) -> anyhow::Result<Option<Predecessor>> {
    match (store, owner) {
        (Some(path), Some(owner)) => {
            let in_use = disk::OpenError::InUse { path: path.to_owned(), owner };
            Err(anyhow::Error::from(in_use).context(format!("no hand-over: {reason}")))
        }
        _ => bail!(
            "admin socket {}: another process answers on it and does not hand over: {reason}; stop that one, or give --admin \
             another path",
            socket.display()
        ),
    }
}

/// Sends a request with a body of JSON; returns status and text of the answer.
async fn exchange(stream: UnixStream, request: Builder, body: Vec<u8>) -> anyhow::Result<(u16, String)> {
    let request = request.header("content-type", "application/json");
    let answer = admin::exchange(stream, request, body.into(), ANSWER_BYTES_MAX).await;
    let (status, text) = answer.map_err(anyhow::Error::from_boxed)?;
    Ok((status.as_u16(), String::from_utf8_lossy(&text).trim().to_owned()))
}

#[derive(Clone, Copy, Debug)]
struct RefusedSuccessor {
    pid: u32,
    at: Instant,
    follows: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Handover {
    own: Newcomer,
    /// Tells this process from its successor, whose number may be the same in a namespace of its own.
    token: u64,
    /// Where a successor is found.
    places: Vec<ProcessAddress>,
    name: Option<String>,
    store: Arc<Store>,
    forwarder: Forwarder,
    /// The process that took over.
    to: watch::Sender<Option<u32>>,
    /// Whether there is a successor that is ready.
    given_away: watch::Sender<bool>,
    /// The process that was refused last.
    refused: Arc<Lock<Option<RefusedSuccessor>>>,
    stop: CancellationToken,
    /// The process has its name no more.
    withdrawn: CancellationToken,
}

impl Handover {
    pub(super) fn new(config: &Config, store: &Arc<Store>, forwarder: &Forwarder, stop: &CancellationToken) -> Self {
        let name = node::agent_name(&config.settings.every_listen_address());
        let path = ProcessAddress::Path(config.settings.admin.clone());
        Self {
            own: Newcomer::of(config),
            token: rand::random(),
            places: [path].into_iter().chain(name.clone().map(ProcessAddress::Name)).collect(),
            name,
            store: Arc::clone(store),
            forwarder: forwarder.clone(),
            to: watch::Sender::new(None),
            given_away: watch::Sender::new(false),
            refused: Arc::default(),
            stop: stop.clone(),
            withdrawn: stop.child_token(),
        }
    }

    /// Whether there is a successor, as far as is known.
    pub(super) fn is_done(&self) -> bool {
        self.to.borrow().is_some()
    }

    /// Whether a process that was refused waits for the end of this one, to have its addresses.
    pub(super) fn is_awaited(&self) -> bool {
        self.refused.lock().as_ref().is_some_and(|refused| refused.follows && refused.at.elapsed() < WAITS)
    }

    /// Gives up the name of this agent: it ends, and no watch is to take addresses for it.
    pub(super) fn withdraw(&self) {
        self.withdrawn.cancel();
    }

    /// Answers at the name of this agent in the network namespace, but while a successor does, until it is withdrawn.
    pub(super) async fn announce(self, router: Router, metrics: admin::Metrics) {
        let Some(name) = &self.name else { return };
        let mut to = self.to.subscribe();
        while !self.withdrawn.is_cancelled() {
            if self.is_done() {
                let _ = to.changed().await;
                continue;
            }
            // The process before lets go of it when it hands over, and a dead one has let go.
            let Ok(listener) = listen(name) else {
                sleep(LOOK_EVERY).await;
                continue;
            };
            let end = self.withdrawn.child_token();
            let serving = admin::serve_socket(listener, router.clone(), metrics.clone(), end.clone());
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                () = &mut serving => return,
                _ = to.wait_for(Option::is_some) => {}
            }
            end.cancel();
            serving.await;
        }
    }

    /// A newcomer's request.
    pub(super) fn router(&self) -> Router {
        let this = self.clone();
        let token = self.token.to_string();
        let asked = post(move |Json(newcomer): Json<Newcomer>| {
            let this = this.clone();
            async move { this.asked(&newcomer).await }
        });
        Router::new().route("/handover", asked.get(async || token))
    }

    async fn asked(&self, newcomer: &Newcomer) -> (StatusCode, String) {
        if let Some(reason) = newcomer.refusal(&self.own) {
            let refused =
                RefusedSuccessor { pid: newcomer.pid, at: Instant::now(), follows: newcomer.follows(&self.own) };
            let before = self.refused.lock().replace(refused);
            // It asks again and again while it waits.
            if before.is_none_or(|before| before.pid != newcomer.pid || before.at.elapsed() >= WAITS) {
                warn!(
                    pid = newcomer.pid,
                    reason, "refused to hand over to a new process: it was started with other flags"
                );
            }
            return (StatusCode::CONFLICT, reason);
        }
        let mut before = None;
        self.to.send_if_modified(|to| {
            before = *to;
            to.get_or_insert(newcomer.pid);
            before.is_none()
        });
        if let Some(pid) = before {
            return (StatusCode::CONFLICT, format!("it has handed over to pid {pid} already"));
        }
        self.forwarder.save().await;
        self.store.release().await;
        info!(pid = newcomer.pid, "handed over to the new process; answering from memory until SIGTERM");
        tokio::spawn(self.clone().watch());
        (StatusCode::OK, "handed over\n".into())
    }

    /// Looks after the successor until this process ends: what is its own while it is ready, and what is ours again when it
    /// dies.
    async fn watch(self) {
        let (mut seen, mut gone) = (false, 0);
        while !self.stop.is_cancelled() {
            sleep(LOOK_EVERY).await;
            let ready = self.is_ready().await;
            let alive = ready.is_some() || self.store.path().is_some_and(|path| disk::owner(path).is_some());
            seen |= alive;
            gone = if alive { 0 } else { gone + 1 };
            let ready = ready == Some(true);
            if alive && self.given_away.send_if_modified(|given| std::mem::replace(given, ready) != ready) && ready {
                info!("the new process is ready");
            }
            if gone >= (if seen { DIED_LOOKS } else { GONE_LOOKS }) && self.take_back() {
                return;
            }
        }
    }

    /// Takes back everything that a successor had. False if another process has the store.
    fn take_back(&self) -> bool {
        if self.store.path().is_some() && !self.store.take_back() {
            return false;
        }
        warn!("the new process died; this one took ports and store back");
        self.given_away.send_replace(false);
        self.to.send_replace(None);
        true
    }

    /// Whether a successor that is ready has the ports for probes and metrics.
    pub(super) fn given_away(&self) -> watch::Receiver<bool> {
        self.given_away.subscribe()
    }

    /// Whether the new process is ready; `None` as long as only this process answers, or none does.
    async fn is_ready(&self) -> Option<bool> {
        for place in &self.places {
            let asked = async {
                let (_, token) = get(place, "/handover").await?;
                let (status, _) = get(place, "/ready").await?;
                anyhow::Ok((token != self.token.to_string()).then_some(status == 200))
            };
            if let Ok(Ok(Some(ready))) = timeout(PATIENCE, asked).await {
                return Some(ready);
            }
        }
        None
    }
}

async fn get(place: &ProcessAddress, target: &str) -> anyhow::Result<(u16, String)> {
    exchange(place.connect().await?, Request::get(target), Vec::new()).await
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Closes the next connection without reading its request: the client sees a reset.
    async fn reset(listener: &UnixListener) {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ends_while_it_is_asked_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let ending = tokio::spawn(async move {
            reset(&listener).await;
            reset(&listener).await;
        });
        assert_eq!(ask_at(&ProcessAddress::Path(socket.clone()), b"{}").await, Reply::Nobody);
        ending.await.unwrap();
        assert!(socket.exists(), "nobody removed it, as after a SIGKILL");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_closes_the_connection_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answering = tokio::spawn(async move {
            reset(&listener).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        });
        assert_eq!(ask_at(&ProcessAddress::Path(socket.clone()), b"{}").await, Reply::HandedOver);
        answering.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_always_closes_the_connection_keeps_store_and_ports() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let hanging_up = tokio::spawn(async move {
            loop {
                reset(&listener).await;
            }
        });
        let begun = Instant::now();
        let asked = ask_at(&ProcessAddress::Path(socket.clone()), b"{}").await;
        assert!(matches!(&asked, Reply::Refused(reason) if reason.starts_with("it does not answer")), "{asked:?}");
        assert!((PATIENCE / 2..=PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        hanging_up.abort();
    }
}

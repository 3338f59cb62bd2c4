//! The listeners about a running process: the unix socket of the tools, health and readiness, metrics.
//!
//! Owns these three listeners and the documents (`view`) that the tools print. Changes pins and ends holds, by asking their
//! owners, and nothing else. The state of sources, DNS and the disk is handed in by `role`.

mod client;
mod coredns;
mod documents;
mod guard;
mod metrics;
mod peer;
mod pins;
mod port;
mod readiness;
mod scrape;
mod serve;
mod socket;
pub mod view;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use ipnet::IpNet;
use prometheus::{Histogram, Registry};
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use client::exchange;
pub use documents::{Documents, Rules, StatusInputs};
pub use guard::{GuardDoc, OutsideReleasedDoc, ReleaseFn, ReleasedDoc, guard_routes};
pub use metrics::Metrics;
pub use pins::{PinRequest, PinsDoc, UnpinRequest};
pub use readiness::{Latch, Readiness};
pub use serve::{NodeAddresses, ReadAddresses};
pub use socket::SocketError;

use crate::limits::Capacity;
use port::{Manner, Port, Signals};
use serve::{Limits, Listener};
use socket::AdminSocket;

/// Between two looks at whether the file of the socket is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Connections at once, for each listener, from addresses beyond the node. A node has a handful of probes and scrapers.
const CONNECTIONS: usize = 128;
/// Maximum connections of an address.
const CONNECTIONS_PER_SOURCE: usize = 16;
/// Further connections of the node itself: the kubelet's probes.
const CONNECTIONS_NODE: usize = 64;
/// A probe or scrape takes milliseconds. After this long its place may go to a new connection.
const ANSWERING_MAX: Duration = Duration::from_secs(2);
/// The time a whole exchange may take on the admin socket: the dump of a large cluster goes through a pipe to a person.
const ADMIN_TIME: Duration = Duration::from_secs(120);
/// The time a whole exchange may take with a probe or a scraper.
const PROBE_TIME: Duration = Duration::from_secs(15);

/// The places of a listener for probes or scrapers.
const CAPACITY: Capacity = Capacity {
    total: CONNECTIONS,
    per_source: CONNECTIONS_PER_SOURCE,
    node: CONNECTIONS_NODE,
    answering_max: Some(ANSWERING_MAX),
};
/// Limits of the admin socket, which only its user can open: a dump may go slowly through a pipe to a person.
const ADMIN_CAPACITY: Capacity =
    Capacity { total: CONNECTIONS, per_source: CONNECTIONS, node: CONNECTIONS, answering_max: None };

#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket of the tools.
    pub admin: PathBuf,
    /// `/health` and `/ready`; none for no listener.
    pub http: Option<SocketAddr>,
    /// `/metrics`; none for no listener.
    pub metrics: Option<SocketAddr>,
    /// Further addresses of `/health` and `/ready`.
    pub more_http: Vec<SocketAddr>,
    pub more_metrics: Vec<SocketAddr>,
    /// Metrics under CoreDNS's names too, as those of this server: `dns://169.254.20.10:53`.
    pub coredns_server: Option<String>,
    /// Networks that may ask `/health` and `/ready` besides this node; empty for any.
    pub http_allow: Vec<IpNet>,
    /// The same for `/metrics`.
    pub metrics_allow: Vec<IpNet>,
    /// Share the ports with the process we take over from, and take its socket's place.
    pub join: bool,
    /// Listen on addresses that no interface has yet.
    pub early: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admin: "/run/holdfast/agent.sock".into(),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9253))),
            more_http: Vec::new(),
            more_metrics: Vec::new(),
            coredns_server: None,
            http_allow: Vec::new(),
            metrics_allow: Vec::new(),
            join: false,
            early: false,
        }
    }
}

/// Listeners that are bound, and not served yet.
pub struct Bound {
    config: Config,
    admin: Result<(AdminSocket, UnixListener), SocketError>,
    http: Option<Port>,
    metrics: Option<Port>,
    more_http: Vec<Port>,
    more_metrics: Vec<Port>,
}

/// The subjects of the listeners.
#[derive(Clone)]
pub struct Handles {
    /// Whether the process is ready.
    pub readiness: Readiness,
    /// The metrics of the process.
    pub registry: Registry,
    pub metrics: Metrics,
    /// The inputs of the documents of the admin socket.
    pub documents: Documents,
    /// Further paths of the admin socket.
    pub more: Router,
    /// True while a successor is ready, which has the ports for probes and scrapers then.
    pub given_away: watch::Receiver<bool>,
    /// The addresses that the node's own probes come from.
    pub node: NodeAddresses,
}

/// Binds every listener.
///
/// A listener that cannot be bound is logged and left out: DNS must not be down because of it. The socket is tried again and again.
///
/// # Errors
/// If another process answers on the unix socket.
pub fn bind(config: &Config) -> Result<Bound, SocketError> {
    let admin = if config.join { socket::replace(&config.admin) } else { socket::bind_patiently(&config.admin) };
    match &admin {
        Err(SocketError::InUse { path }) => return Err(SocketError::InUse { path: path.clone() }),
        Err(error) => {
            error!(%error, "no admin socket, trying again: the tools cannot reach this process, DNS is not affected");
        }
        Ok(_) => {}
    }
    let manner = Manner { join: config.join, early: config.early };
    let open = |flag, address: &SocketAddr| match Port::open(flag, *address, manner) {
        Ok(port) => Some(port),
        Err(error) => {
            error!(%error, "cannot listen for probes or metrics: DNS is not affected");
            None
        }
    };
    let http = config.http.and_then(|address| open("--http", &address));
    let metrics = config.metrics.and_then(|address| open("--metrics", &address));
    let more_http = config.more_http.iter().filter_map(|address| open("http_more", address)).collect();
    let more_metrics = config.more_metrics.iter().filter_map(|address| open("metrics_more", address)).collect();
    Ok(Bound { config: config.clone(), admin, http, metrics, more_http, more_metrics })
}

impl Bound {
    /// The path of the unix socket.
    pub fn admin_path(&self) -> &Path {
        &self.config.admin
    }

    /// Why there is no unix socket, if there is none.
    pub fn socket_error(&self) -> Option<&SocketError> {
        self.admin.as_ref().err()
    }

    /// The address of `/health` and `/ready`, with the port that was found for port 0.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Port::address)
    }

    /// The address of `/metrics`, with the port that was found for port 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Port::address)
    }

    /// Serves until `stop`; removes the socket then.
    pub async fn serve(self, handles: Handles, stop: CancellationToken) {
        let limits = |listener, capacity, time, allow: &[IpNet]| Limits {
            capacity,
            time,
            refused: handles.metrics.refused.with_label_values(&[listener]),
            not_allowed: handles.metrics.not_allowed.with_label_values(&[listener]),
            allow: allow.to_vec(),
            node: handles.node.clone(),
        };
        let probes = probes(handles.readiness.clone(), handles.metrics.health.clone());
        let mut tasks = JoinSet::new();
        let documents = documents::router(handles.documents.clone(), handles.readiness.clone());
        let metrics = scrape::Metrics::new(handles.registry.clone(), self.config.coredns_server);
        // Only root and this user reach the socket, so a scrape there is always a new one.
        let admin = documents.merge(handles.more.clone()).merge(probes.clone()).merge(metrics.clone().fresh_route());
        let admin_limits = limits("admin", ADMIN_CAPACITY, ADMIN_TIME, &[]);
        tasks.spawn(keep_unix(self.config.admin, self.admin.ok(), admin, admin_limits, stop.clone()));
        let Handles { readiness, given_away, .. } = handles.clone();
        let signals = Signals { readiness, given_away, stop };
        for http in self.http.into_iter().chain(self.more_http) {
            let limits = limits("http", CAPACITY, PROBE_TIME, &self.config.http_allow);
            tasks.spawn(http.serve(probes.clone(), limits, signals.clone()));
        }
        let router = metrics.route();
        for port in self.metrics.into_iter().chain(self.more_metrics) {
            let limits = limits("metrics", CAPACITY, PROBE_TIME, &self.config.metrics_allow);
            tasks.spawn(port.serve(router.clone(), limits, signals.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Serves `router` on a socket for this user and root until `stop`.
pub async fn serve_socket(listener: UnixListener, router: Router, metrics: Metrics, stop: CancellationToken) {
    let limits = Limits {
        capacity: ADMIN_CAPACITY,
        time: PROBE_TIME,
        refused: metrics.refused.with_label_values(&["admin"]),
        not_allowed: metrics.not_allowed.with_label_values(&["admin"]),
        allow: Vec::new(),
        node: NodeAddresses::new(|| Ok(Vec::new())),
    };
    serve::serve(Listener::Unix(listener), router, limits, stop).await;
}

/// Serves the socket of the tools, and binds it again when its file was removed and no other process answers there: a cleaner of
/// temporary files removes it, or a successor that died. A socket that could not be bound is tried in the same way.
async fn keep_unix(
    path: PathBuf,
    mut had: Option<(AdminSocket, UnixListener)>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    loop {
        let Some((socket, listener)) = had.take() else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => had = socket::bind(&path).ok(),
            }
            continue;
        };
        let end = stop.child_token();
        let serving = serve::serve(Listener::Unix(listener), router.clone(), limits.clone(), end.clone());
        let mut serving = std::pin::pin!(serving);
        had = loop {
            tokio::select! {
                () = &mut serving => return,
                () = tokio::time::sleep(LOOK_EVERY) => if socket.is_lost() && let Ok(anew) = socket::bind(&path) {
                    break Some(anew);
                },
            }
        };
        end.cancel();
        serving.await;
    }
}

/// Why a request of a tool is not answered; it shows the text.
type Refused = (StatusCode, String);

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn bad_request(error: impl ToString) -> Refused {
    (StatusCode::BAD_REQUEST, error.to_string())
}

/// `/health`: this process runs. `/ready`: nothing is waited for any more.
pub fn probes(readiness: Readiness, health: Histogram) -> Router {
    let healthy = move || async move {
        let _timer = health.start_timer();
        "ok\n"
    };
    Router::new().route("/health", get(healthy)).route("/ready", get(ready)).with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let held = readiness.held();
    if held.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", held.join(", ")))
    }
}

#[cfg(test)]
fn limits_for_tests(connections: usize, time: Duration) -> Limits {
    let counter = || prometheus::IntCounter::new("refused", "refused").unwrap();
    Limits {
        capacity: Capacity { total: connections, per_source: connections, node: connections, answering_max: None },
        time,
        refused: counter(),
        not_allowed: counter(),
        allow: Vec::new(),
        node: NodeAddresses::new(|| Ok(Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpStream, UnixStream},
    };

    use super::*;

    /// A process with records and nothing else.
    struct RecordsOnly;

    impl StatusInputs for RecordsOnly {
        fn rules(&self) -> Rules {
            Rules {
                zone: crate::zone::Config::default(),
                answers: crate::dns::AnswerConfig::default(),
                discovery: std::sync::Arc::default(),
            }
        }

        fn disk(&self) -> Option<crate::store::disk::DiskStatus> {
            None
        }
    }

    struct Running {
        dir: tempfile::TempDir,
        http: SocketAddr,
        metrics: SocketAddr,
        readiness: Readiness,
        counted: Metrics,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let bound =
            bind(&Config { admin: dir.path().join("a.sock"), http: local, metrics: local, ..Config::default() })
                .unwrap();
        let (http, metrics) = (bound.http_address().unwrap(), bound.metrics_address().unwrap());
        let registry = Registry::new();
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let documents = Documents {
            role: "agent",
            started: crate::sys::UnixMillis(0),
            took_over_from: None,
            listeners: vec![],
            source: "a test".into(),
            reader: crate::store::open().1,
            clock: crate::sys::Clock::System,
            inputs: std::sync::Arc::new(RecordsOnly),
            pins: None,
        };
        let (counted, more) = (Metrics::register(&registry).unwrap(), Router::new());
        let metrics_handles = counted.clone();
        let handles = Handles {
            readiness: readiness.clone(),
            registry,
            metrics: metrics_handles,
            documents,
            more,
            given_away: watch::Sender::new(false).subscribe(),
            node: NodeAddresses::new(|| Ok(Vec::new())),
        };
        let task = tokio::spawn(bound.serve(handles, stop.clone()));
        Running { dir, http, metrics, readiness, counted, stop, task }
    }

    async fn get<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn tcp(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn health_is_up_at_once_and_ready_when_nothing_is_waited_for() {
        let running = start();
        let latch = running.readiness.latch("first records");
        assert!(get(tcp(running.http).await, "/health").await.starts_with("HTTP/1.1 200 "));
        let ready = get(tcp(running.http).await, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("waiting for first records\n"), "{ready}");
        drop(latch);
        assert!(get(tcp(running.http).await, "/ready").await.starts_with("HTTP/1.1 200 "));
        assert!(get(tcp(running.http).await, "/metrics").await.starts_with("HTTP/1.1 404 "), "one job a listener");
    }

    #[tokio::test]
    async fn metrics_are_text_and_the_socket_has_everything() {
        let running = start();
        running.counted.refused.with_label_values(&["http"]).inc();
        let line = "holdfast_admin_refused_total{listener=\"http\"} 1";
        assert!(get(tcp(running.metrics).await, "/metrics").await.contains(line));
        for path in ["/health", "/ready", "/metrics", "/status", "/dump", "/lookup?name=db.prod"] {
            let socket = UnixStream::connect(running.dir.path().join("a.sock")).await.unwrap();
            assert!(get(socket, path).await.starts_with("HTTP/1.1 200 "), "{path}");
        }
    }

    #[tokio::test]
    async fn the_longest_idle_connection_goes_for_a_new_one_and_is_counted() {
        let running = start();
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_NODE {
            idle.push(tcp(running.http).await);
        }
        assert!(get(tcp(running.http).await, "/health").await.starts_with("HTTP/1.1 200 "));
        let mut answer = Vec::new();
        let _ = idle[0].read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        assert_eq!(running.counted.refused.with_label_values(&["http"]).get(), 1);
        assert!(get(tcp(running.metrics).await, "/metrics").await.starts_with("HTTP/1.1 200 "), "each has its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_sends_a_request_is_closed() {
        let running = start();
        let mut half = tcp(running.http).await;
        half.write_all(b"GET /health HT").await.unwrap();
        let mut answer = Vec::new();
        half.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }

    #[tokio::test]
    async fn stopping_closes_the_listeners_and_removes_the_socket() {
        let running = start();
        running.stop.cancel();
        running.task.await.unwrap();
        assert!(TcpStream::connect(running.http).await.is_err());
        assert!(!running.dir.path().join("a.sock").exists());
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_flag_and_costs_that_listener_alone() {
        let dir = tempfile::tempdir().unwrap();
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Port::open("--metrics", address, Manner::default()).unwrap_err().to_string();
        let expect = format!(
            "--metrics {address}: Address already in use (os error 98); give --metrics another address, or none"
        );
        assert_eq!(error, expect);

        let http = Some("127.0.0.1:0".parse().unwrap());
        let bound =
            bind(&Config { admin: dir.path().join("a.sock"), http, metrics: Some(address), ..Config::default() })
                .unwrap();
        assert!(bound.http_address().is_some());
        assert_eq!(bound.metrics_address(), None);
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_made_costs_the_socket_alone_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let admin = dir.path().join("run").join("a.sock");
        std::fs::write(dir.path().join("run"), "in the way").unwrap();
        let http = Some("127.0.0.1:0".parse().unwrap());
        let bound = bind(&Config { admin: admin.clone(), http, metrics: None, ..Config::default() }).unwrap();
        let error = bound.socket_error().unwrap().to_string();
        assert!(error.starts_with(&format!("admin socket {}: make its directory: ", admin.display())), "{error}");
        let router = Router::new().route("/ready", axum::routing::get(async || "made"));
        let stop = CancellationToken::new();
        let limits = limits_for_tests(1, PROBE_TIME);
        let keeping = tokio::spawn(keep_unix(admin.clone(), None, router, limits, stop.clone()));
        std::fs::remove_file(dir.path().join("run")).unwrap();
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&admin).await {
                break stream;
            }
            tokio::task::yield_now().await;
        };
        assert!(get(stream, "/ready").await.ends_with("made"));
        stop.cancel();
        keeping.await.unwrap();
        assert!(!admin.exists());
    }
}

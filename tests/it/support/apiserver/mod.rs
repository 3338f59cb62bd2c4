//! A scripted apiserver: the list and watch semantics of a real one over real HTTP(S), and every way it can go wrong.
//!
//! ```ignore
//! let server = Apiserver::start().await;              // HTTP on a free port of 127.0.0.1; kube-system exists
//! let kubeconfig = server.kubeconfig(dir.path());     // for `--kubeconfig` or `apiserver::Config`
//! server.put(service("prod", "web", "10.0.0.1"));     // create or update; watchers see it at once
//! server.delete("services", "prod", "web");
//! server.stop(); server.start_again().await;          // the port refuses, then the same port answers
//! server.stall(); server.resume();                    // SIGSTOP and SIGCONT: TCP connects, nothing answers, TLS hangs
//! server.fail(Fault::on("services").verb("watch").with(Reply::status(410, "Expired")).times(2));
//! let backup = server.backup(); …; server.restore(&backup);   // etcd back in time: old watches are deaf, no error
//! assert_eq!(server.count("list", "services"), 1);
//! ```
//!
//! As observed on Kubernetes 1.36: streaming lists end with the annotated bookmark (none without `allowWatchBookmarks`, 422
//! without `resourceVersionMatch`, 422 everywhere after [`Apiserver::without_streaming_lists`]); `limit` pages only without
//! a version; a version ahead of the server's gets 200 and, after a while, an ERROR event 504; one that was compacted away
//! gets 200 and an ERROR event 410; an object that begins or ceases to match a watch's selector is ADDED or DELETED there;
//! lists are compressed where asked for, watches never; watches end after `timeoutSeconds`, with a bookmark before it.

mod faults;
mod leases;
mod objects;
mod serve;
mod store;
mod tls;
mod watches;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use holdfast::{record::ServiceKey, sys::Lock};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use self::{
    faults::{Fault, Reply},
    objects::{endpoints, external_name, headless, namespace, service, slice},
    store::Backup,
};
use self::{
    store::Store,
    tls::Certificates,
    watches::{Command, Watcher},
};

/// A request the server got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub verb: &'static str,
    pub resource: String,
    pub params: Vec<(String, String)>,
    pub accept: String,
    pub authorization: String,
    pub user_agent: String,
}

impl Seen {
    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// How slow each step of the server is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slow {
    /// Before a connection is looked at.
    pub accept: Duration,
    /// Before a TLS handshake.
    pub tls: Duration,
    /// Before an answer begins.
    pub headers: Duration,
    /// Before each piece of a watch.
    pub chunk: Duration,
    /// CPU time of one request, on the one CPU there is; spent even if its client has left.
    pub starved: Duration,
}

/// Everything that is behind a lock, held for moments only.
struct State {
    store: Store,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    watchers: Vec<Arc<Watcher>>,
    most_watchers: usize,
    streaming_lists: bool,
    ignores_initial_events: bool,
    slow: Slow,
    connections: usize,
    muted: bool,
    gzip_from: usize,
    bookmark_every: Duration,
}

struct Shared {
    state: Lock<State>,
    /// The version, for watchers to wait on.
    version: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
    /// Held by the request that is worked on while the server is starved.
    cpu: Arc<tokio::sync::Mutex<()>>,
    /// Counts requests and watches that came or went.
    activity: watch::Sender<u64>,
    certificates: Option<Certificates>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn act(&self) {
        self.activity.send_modify(|count| *count += 1);
    }

    /// Waits while the server is stalled.
    async fn running(&self) {
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }
}

/// The server. It stops when dropped.
pub struct Apiserver {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Lock<Option<JoinHandle<()>>>,
}

impl Drop for Apiserver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Apiserver {
    /// Starts one over HTTP with the namespaces `default` and `kube-system`.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts one over HTTPS that lets nobody in without the client certificate of its kubeconfig.
    pub async fn start_tls() -> Self {
        Self::start_with(Some(Certificates::issue())).await
    }

    async fn start_with(certificates: Option<Certificates>) -> Self {
        let mut store = Store::default();
        store.put(namespace("default"));
        store.put(namespace("kube-system"));
        let shared = Arc::new(Shared {
            version: watch::Sender::new(store.version()),
            state: Lock::new(State {
                store,
                faults: Vec::new(),
                seen: Vec::new(),
                watchers: Vec::new(),
                most_watchers: 0,
                streaming_lists: true,
                ignores_initial_events: false,
                slow: Slow::default(),
                connections: 0,
                muted: false,
                gzip_from: 128 << 10,
                bookmark_every: Duration::from_secs(60),
            }),
            stalled: watch::Sender::new(false),
            cpu: Arc::default(),
            activity: watch::Sender::new(0),
            certificates,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Lock::new(Some(tokio::spawn(serve::accept(listener, Arc::clone(&shared)))));
        Self { shared, address, accepting }
    }

    /// `http(s)://127.0.0.1:port`.
    pub fn url(&self) -> String {
        let scheme = if self.shared.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig for it into a directory.
    pub fn kubeconfig(&self, dir: &Path) -> PathBuf {
        self.kubeconfig_by(dir, self.address)
    }

    /// The same, for who reaches it at `address`.
    pub fn kubeconfig_by(&self, dir: &Path, address: SocketAddr) -> PathBuf {
        let path = dir.join("kubeconfig");
        let (cluster, user) = match &self.shared.certificates {
            None => (String::new(), "{token: test}".to_owned()),
            Some(certificates) => certificates.kubeconfig(dir),
        };
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\nclusters:\n- name: it\n  cluster:\n    server: {}\n{cluster}\
             users:\n- name: it\n  user: {user}\ncontexts:\n- name: it\n  context: {{cluster: it, user: it}}\n",
            self.url().replace(&self.address.to_string(), &address.to_string())
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    // What it holds.

    /// Creates or replaces an object, and returns its version.
    pub fn put(&self, object: Value) -> u64 {
        self.change(|store| store.put(object))
    }

    pub fn put_all(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            self.put(object);
        }
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.change(|store| store.delete(resource, namespace, name));
    }

    /// The lease of a name in a namespace, if there is one.
    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        self.shared.state().store.get("leases", namespace, name).cloned()
    }

    /// What it has of services, with the addresses each should answer with.
    pub fn records(&self) -> Vec<(ServiceKey, Vec<IpAddr>)> {
        let state = self.shared.state();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ready = |service: &(String, String)| -> Vec<IpAddr> {
            let slices = state.store.list("endpointslices", None).filter(|((_, namespace, _), slice)| {
                let of = text(&slice["metadata"]["labels"]["kubernetes.io/service-name"]);
                (namespace, &of) == (&service.0, &service.1)
            });
            let endpoints = slices.flat_map(|(_, slice)| slice["endpoints"].as_array().into_iter().flatten());
            let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
            let ips = ready.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
            ips.filter_map(|ip| text(ip).parse().ok()).collect()
        };
        let has = |((_, namespace, name), service): (&(String, String, String), &Value)| {
            let key = ServiceKey::new(namespace, name);
            match text(&service["spec"]["clusterIP"]).parse() {
                Ok(ip) => (key, vec![ip]),
                Err(_) => (key, ready(&(namespace.clone(), name.clone()))),
            }
        };
        state.store.list("services", None).map(has).collect()
    }

    /// Moves the version on without changing an object, as a write of another kind does.
    pub fn tick(&self) {
        self.change(Store::tick);
    }

    /// Forgets the history: whoever resumes at an older version is told 410.
    pub fn compact(&self) {
        self.shared.state().store.compact();
    }

    /// The objects and the version as they are.
    pub fn backup(&self) -> Backup {
        self.shared.state().store.backup()
    }

    /// Puts objects and version back to what they were. Open watches stay and hear nothing below their version.
    pub fn restore(&self, backup: &Backup) {
        self.change(|store| store.restore(backup));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut state = self.shared.state();
        let made = change(&mut state.store);
        let version = state.store.version();
        drop(state);
        self.shared.version.send_replace(version);
        made
    }

    // How it behaves.

    /// Refuses connections and drops those there are.
    pub fn stop(&self) {
        if let Some(accepting) = self.accepting.lock().take() {
            accepting.abort();
        }
    }

    /// Answers again at the port it had.
    pub async fn start_again(&self) {
        self.stop();
        let listener = loop {
            // The aborted task lets go of the port at its next turn.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        let accepting = tokio::spawn(serve::accept(listener, Arc::clone(&self.shared)));
        *self.accepting.lock() = Some(accepting);
    }

    /// As SIGSTOP: connections are taken and nothing is ever answered, no TLS handshake ends, watches fall silent.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    pub fn resume(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Answers `sendInitialEvents` with 422, as servers before 1.32 and 1.33 do.
    pub fn without_streaming_lists(&self) {
        self.shared.state().streaming_lists = false;
    }

    /// Takes its time at each step, from now on.
    pub fn slow(&self, slow: Slow) {
        self.shared.state().slow = slow;
    }

    /// Sends no bookmark after the initial events of a streaming list, as servers up to 1.26, which ignore the parameter.
    pub fn ignore_initial_events(&self) {
        self.shared.state().ignores_initial_events = true;
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Adds a fault; the first that fits a request is used.
    pub fn fail(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.muted = false;
    }

    /// Open watches deliver nothing any more, as when something between drops what they send. New ones work.
    pub fn mute_watches(&self) {
        self.command(None, &Command::Mute);
    }

    /// Ends the open watches of a resource, or of all, as at their timeout.
    pub fn end_watches(&self, resource: Option<&str>) {
        self.command(resource, &Command::End);
    }

    /// Breaks the connections of the open watches.
    pub fn break_watches(&self, resource: Option<&str>) {
        self.command(resource, &Command::Break);
    }

    /// Sends bytes as they are on the open watches of a resource.
    pub fn send_raw(&self, resource: &str, bytes: &str) {
        self.command(Some(resource), &Command::Send(bytes.to_owned().into()));
    }

    /// Sends every open watch a bookmark now.
    pub fn bookmark(&self) {
        self.command(None, &Command::Bookmark);
    }

    /// Sends bookmarks this often; every minute otherwise.
    pub fn bookmark_every(&self, every: Duration) {
        self.shared.state().bookmark_every = every;
    }

    /// Compresses lists from this many bytes on; 128 KiB otherwise.
    pub fn gzip_from(&self, bytes: usize) {
        self.shared.state().gzip_from = bytes;
    }

    fn command(&self, resource: Option<&str>, command: &Command) {
        for watcher in &self.shared.state().watchers {
            if resource.is_none_or(|resource| resource == watcher.resource) {
                let _ = watcher.commands.send(command.clone());
            }
        }
    }

    // What it saw.

    /// Waits until the server has seen what is wanted of it. Panics after a minute.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut activity = self.shared.activity.subscribe();
        let wait = async {
            while !holds(self) {
                activity.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "{what}: {:?}", self.seen());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many requests of a verb for a resource there were. The freshness probe is told apart by its field selector and
    /// not counted.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let fits =
            |seen: &&Seen| seen.verb == verb && seen.resource == resource && seen.param("fieldSelector").is_none();
        self.shared.state().seen.iter().filter(fits).count()
    }

    /// How many probes there were.
    pub fn probes(&self) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.param("fieldSelector").is_some()).count()
    }

    pub fn open_watches(&self) -> usize {
        self.shared.state().watchers.len()
    }

    /// Most watches that were ever open at once.
    pub fn most_watches(&self) -> usize {
        self.shared.state().most_watchers
    }
}

//! Hubs and agents of one test, in this process: real roles on real sockets, each with a home of its own.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use hickory_proto::rr::RecordType;
use holdfast::{
    config::{self, AgentFlags, Config, HubFlags, Role},
    role::{agent::Agent, hub::Hub},
    store::Reader,
    sys::Clock,
};
use tempfile::TempDir;

use super::process::{answers, ask, run};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Parser)]
struct AgentLine {
    #[command(flatten)]
    flags: AgentFlags,
}

#[derive(clap::Parser)]
struct HubLine {
    #[command(flatten)]
    flags: HubFlags,
}

/// What both roles are given: ports of their own, store and socket in `home`.
fn common(home: &Path) -> Vec<String> {
    let home = |name: &str| home.join(name).to_str().expect("UTF-8").to_owned();
    let (store, socket) = (home("store"), home("agent.sock"));
    let given = ["--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--store", &store, "--admin", &socket];
    given.map(str::to_owned).into()
}

/// An agent's configuration, as the command line reads it.
pub fn agent_config(home: &Path, arguments: &[&str]) -> Config {
    let mut line = vec!["agent".to_owned()];
    line.extend(["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9"].map(str::to_owned));
    line.extend(common(home).into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())));
    let line = AgentLine::parse_from(line);
    config::load(Role::Agent, &line.flags.0, |_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A hub's configuration, as the command line reads it.
pub fn hub_config(home: &Path, arguments: &[&str]) -> Config {
    let mut line = vec!["hub".to_owned()];
    line.extend(common(home).into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())));
    let line = HubLine::parse_from(line);
    config::load(Role::Hub, &line.flags.0, |_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// An address of loopback that nothing else in this process has. A port that a test binds twice has to be on one: as soon as it is free,
/// the kernel may give a port of 127.0.0.1 to a connection of another test.
fn own_loopback() -> Ipv4Addr {
    static GIVEN: AtomicU16 = AtomicU16::new(1);
    let [high, low] = GIVEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 101, high, low)
}

/// Where something lives; it outlives what runs in it.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("agent.sock")
    }

    /// Starts a hub here, in the clear, at `listen` or on a free port.
    pub async fn hub(&self, listen: Option<SocketAddr>, arguments: &[&str]) -> Hub {
        self.hub_by(listen, arguments, Clock::System).await
    }

    /// The same, by this clock.
    pub async fn hub_by(&self, listen: Option<SocketAddr>, arguments: &[&str], clock: Clock) -> Hub {
        let listen = listen.unwrap_or_else(|| (own_loopback(), 0).into()).to_string();
        let mut given = vec!["--tls", "insecure", "--listen", &listen];
        given.extend(arguments);
        Hub::start(hub_config(self.path(), &given), clock).await.unwrap()
    }

    /// Starts an agent here that follows these hubs, in the clear.
    pub async fn agent(&self, hubs: &[&str]) -> Agent {
        let hubs: Vec<&str> = hubs.iter().flat_map(|hub| ["--hub", *hub]).chain(["--tls", "insecure"]).collect();
        Agent::start(agent_config(self.path(), &hubs), Clock::System).await.unwrap()
    }

    /// The output of a tool asked at the socket here, as JSON, and its exit code.
    pub async fn tool(&self, arguments: &[&str]) -> (serde_json::Value, i32) {
        let socket = self.socket().to_str().expect("UTF-8").to_owned();
        let mut line: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        line.extend(["--admin".into(), socket, "-o".into(), "json".into()]);
        beside(move || {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let output = run(&line);
            let told = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{line:?}: {}", String::from_utf8_lossy(&output.stderr)));
            (told, output.status.code().expect("an exit code"))
        })
        .await
    }
}

/// Runs what blocks beside the runtime, which the roles need meanwhile.
pub async fn beside<T: Send + 'static>(blocking: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(blocking).await.expect("it does not panic")
}

/// Waits until the store says so.
pub async fn until(what: &str, reader: &Reader, holds: impl Fn(&Reader) -> bool) {
    let mut published = reader.subscribe();
    let wait = published.wait_for(|_| holds(reader));
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{what}: {:?} {:?}", reader.load().version(), reader.freshness());
}

/// Waits until both hold the same records at the same version.
pub async fn until_equal(agent: &Reader, hub: &Reader) {
    let equal = |_: &Reader| {
        let (agent, hub) = (agent.snapshot(), hub.snapshot());
        agent.root() == hub.root() && agent.version() == hub.version() && !hub.version().cluster.is_empty()
    };
    // Either may be the one that is behind.
    let both = futures::future::select(Box::pin(until("equal", agent, equal)), Box::pin(until("equal", hub, equal)));
    both.await;
}

/// The address a name is answered with.
pub async fn address(dns: SocketAddr, name: &str) -> Vec<String> {
    let name = name.to_owned();
    beside(move || answers(&ask(dns, &name, RecordType::A))).await
}

/// Asks for a name again and again until told to stop; the number of questions, and those that were not answered so.
pub struct Asking {
    stop: Arc<std::sync::atomic::AtomicBool>,
    asked: tokio::task::JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    pub fn begin(dns: SocketAddr, name: &str, expected: &str) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name, expected) = (Arc::clone(&stop), name.to_owned(), expected.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let (mut count, mut wrong) = (0, Vec::new());
            // Once at least, however soon it is told to stop.
            loop {
                let message = ask(dns, &name, RecordType::A);
                if !answers(&message).iter().any(|line| line.ends_with(&expected)) {
                    wrong.push(message.to_string());
                }
                count += 1;
                if stopped.load(Ordering::Relaxed) {
                    return (count, wrong);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, asked }
    }

    /// Panics if any question was not answered as expected.
    pub async fn all_answered(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, wrong) = self.asked.await.expect("it does not panic");
        assert!(wrong.is_empty(), "{} of {count} wrong, first {:?}", wrong.len(), wrong.first());
    }
}

/// Waits until a file that another thread writes says so: no event tells of it.
pub async fn until_file(path: &Path, holds: impl Fn(&str) -> bool) {
    let written = async {
        while !std::fs::read_to_string(path).is_ok_and(|text| holds(&text)) {
            tokio::task::yield_now().await;
        }
    };
    in_time(&format!("{} is written", path.display()), written).await;
}

/// A copy of a directory, without those in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Lets so much time pass at once: for timers, with sockets that are real.
pub async fn jump(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

/// Gives up on what takes too long.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

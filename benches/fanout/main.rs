//! Fan-out: a scripted apiserver, a hub and an agent, thousands of followers; each in a process of its own, mutual TLS
//! between hub and followers.
//!
//! `cargo bench --bench fanout [-- AGENTS…]` prints one table for each number of agents (7,500 if none is given), and ends with
//! an error if a row misses its target; `-- --curve [AGENTS…]` prints one line for each number. The hubs and the restarted
//! agent are the real binary; the apiserver is this program started again, so that the CPU and memory of each are its own.
//! `benches/README.md` says how to read the tables.

#![allow(clippy::unwrap_used, reason = "helpers shared with the tests fail by panicking, as tests do")]

mod cluster;
mod curve;
mod hub;
mod outage;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
mod table;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cluster::Remote;
use hickory_proto::rr::RecordType;
use holdfast::{
    record::{Kind, RootDigest},
    role::agent,
    simulate::{self, Options, Running},
    sys::Clock,
    tls,
};
use hub::Hub;
use support::{
    fleet,
    process::{Agent, answers, run},
};
use table::Table;
use tokio::runtime::Runtime;

/// The number of agents that load of the apiserver is compared with.
const FEW: usize = 75;
/// As many as one hub is to serve.
const MOST: usize = 7_500;
const CURVE: &str = "--curve";
/// The disk of the hub, and the one it has after it lost that.
const FIRST_DISK: &str = "hub";
const OTHER_DISK: &str = "hub-anew";
/// That of the agent which is a process of its own.
const AGENT_DISK: &str = "agent";
/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, home] = &arguments[..]
        && word == "apiserver"
    {
        return cluster::main(Path::new(home));
    }
    let curve = arguments.iter().any(|argument| argument == CURVE);
    let counts = arguments.iter().filter(|argument| *argument != CURVE);
    let mut counts: Vec<usize> = counts.map(|count| count.parse()).collect::<Result<_, _>>()?;
    if counts.is_empty() {
        counts = if curve { vec![500, 1_000, 2_000, 4_000, MOST] } else { vec![MOST] };
    }
    let certificates = tempfile::tempdir()?;
    tls::issue(certificates.path(), "bench", 30, Clock::System.now())?;
    if curve {
        return draw(certificates.path(), &counts);
    }
    let mut few = Table::new(FEW);
    let mut world = World::start(certificates.path(), FEW)?;
    world.until_restarted(&mut few)?;
    drop(world);
    let mut missed = 0;
    for count in counts {
        let mut table = Table::new(count);
        let mut world = World::start(certificates.path(), count)?;
        world.until_restarted(&mut table)?;
        table.apiserver(&few);
        world.until_the_end(&mut table)?;
        table.print();
        missed += table.missed();
    }
    anyhow::ensure!(missed == 0, "{missed} rows are not as they must be");
    Ok(())
}

/// One line for each number of agents.
fn draw(certificates: &Path, counts: &[usize]) -> anyhow::Result<()> {
    let mut points = Vec::new();
    for &count in counts {
        let mut table = Table::new(count);
        World::start(certificates, count)?.until_restarted(&mut table)?;
        points.push(table.point);
    }
    curve::print(&points);
    Ok(())
}

#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    rss_bytes: u64,
    rss_most_bytes: u64,
}

fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()).context("a number of kB")?;
        Ok::<u64, anyhow::Error>(number.parse::<u64>()? * 1_024)
    };
    Ok(Usage { cpu: Duration::from_millis(ticks * 10), rss_bytes: kib("VmRSS:")?, rss_most_bytes: kib("VmHWM:")? })
}

/// All processes of one run.
struct World {
    home: tempfile::TempDir,
    certificates: PathBuf,
    runtime: Runtime,
    apiserver: Remote,
    hub: Hub,
    /// The hub before anybody followed it.
    idle: Usage,
    /// The real agent, in this process: it tells when a change has arrived, and what the records then add up to.
    observer: agent::Agent,
    agents: Running,
}

impl World {
    /// Starts everything; the simulated agents are on their way.
    fn start(certificates: &Path, count: usize) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let certificates = certificates.to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let apiserver = Remote::start(home.path())?;
        let mut hub = start_hub(home.path(), &certificates, "127.0.0.1:0", FIRST_DISK)?;
        hub.wait_for("records complete")?;
        let idle = usage(hub.id())?;
        let agent_home = home.path().join("observer");
        std::fs::create_dir(&agent_home)?;
        let (address, tls) = (hub.address.to_string(), certificates.join("agent"));
        let config = fleet::agent_config(&agent_home, &["--hub", &address, "--tls", text(&tls)?]);
        let observer = runtime.block_on(agent::Agent::start(config, Clock::System))?;
        let options = Options {
            hubs: vec![address],
            tls: Some(tls),
            count,
            ramp: Duration::from_millis(u64::try_from(count)? / 2),
            watch: Duration::ZERO,
            patience: PATIENCE,
        };
        let agents = runtime.block_on(async { simulate::start(&options) })?;
        Ok(Self { home, certificates, runtime, apiserver, hub, idle, observer, agents })
    }

    /// Waits until the observer has a service at the address of this salt; the root of the records then.
    fn arrived(&self, n: u32, salt: u32) -> RootDigest {
        let (namespace, name) = cluster::name(n);
        let address = IpAddr::from(cluster::address(n, salt));
        let reader = self.observer.reader();
        let there = |reader: &holdfast::store::Reader| {
            reader.load().service(namespace.as_bytes(), name.as_bytes()).is_some_and(
                |service| matches!(service.kind(), Kind::ClusterIp(addresses) if addresses.contains(&address)),
            )
        };
        self.runtime.block_on(fleet::until("the change", reader, there));
        reader.load().root()
    }

    /// Waits until all agents hold these records; how long it took since `begun`.
    fn all_at(&self, root: RootDigest, begun: Instant) -> Option<Duration> {
        let reached = self.runtime.block_on(self.agents.all_at(root, PATIENCE)).map(|_| begun.elapsed());
        if reached.is_none() {
            eprintln!("not all agents are at {root}; the observer is at {}", self.observer.reader().load().root());
            eprintln!("the hub: {}", status(&self.hub.socket).unwrap_or_default());
            eprintln!("{:#?}", self.agents.report());
        }
        reached
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.hub.id())
    }

    /// First start, single changes, a burst, and a restart of the hub with nothing changed.
    fn until_restarted(&mut self, table: &mut Table) -> anyhow::Result<()> {
        let took = self.runtime.block_on(self.agents.all_live(PATIENCE));
        table.start(took, &self.agents.report(), self.idle, self.usage()?);

        let (mut singles, mut whole) = (Vec::new(), Vec::new());
        for salt in 11..18 {
            let begun = Instant::now();
            self.apiserver.change(5_000, 1, salt)?;
            let root = self.arrived(5_000, salt);
            whole.extend(self.all_at(root, begun));
            singles.push(self.agents.report().propagation_ms);
            std::thread::sleep(Duration::from_millis(700));
        }
        table.single(&mut singles, &mut whole);

        let before = self.usage()?;
        let begun = Instant::now();
        self.apiserver.burst(1_000, 2)?;
        let root = self.arrived(999, 2);
        let reached = self.all_at(root, begun);
        std::thread::sleep(Duration::from_millis(500));
        table.burst(reached, &self.agents.report(), before.cpu, self.usage()?);
        table.settled = self.apiserver.requests()?;

        // The hub is killed and comes back with its disk.
        let begun = self.restart_hub(FIRST_DISK, |_| Ok(()))?;
        let reached = self.all_at(root, begun);
        self.hub.wait_for("records complete")?;
        table.restart("hub restart, nothing changed", reached, &self.agents.report());
        // A list that it made under a new epoch reaches everybody, too.
        std::thread::sleep(Duration::from_secs(1));
        table.reconnected = self.apiserver.requests()?;
        Ok(())
    }

    /// A restart of the hub with some changed and no disk to begin with, a restart of an agent, and the outage.
    fn until_the_end(mut self, table: &mut Table) -> anyhow::Result<()> {
        let _ = self.agents.report();
        let begun = self.restart_hub(OTHER_DISK, |apiserver| apiserver.change(2_000, 100, 3))?;
        let root = self.arrived(2_099, 3);
        let reached = self.all_at(root, begun);
        table.restart("hub restart, 1 % changed, its disk lost", reached, &self.agents.report());

        self.restart_agent(table)?;
        table.most(self.usage()?);
        self.outage(table)?;
        let Self { runtime, agents, observer, mut hub, .. } = self;
        hub.kill()?;
        runtime.block_on(agents.stop());
        runtime.block_on(observer.stop());
        Ok(())
    }

    /// Kills the hub, and starts it at its address on that disk; from when on it is on its way back.
    fn restart_hub(
        &mut self,
        disk: &str,
        meanwhile: impl FnOnce(&mut Remote) -> anyhow::Result<()>,
    ) -> anyhow::Result<Instant> {
        let _ = self.agents.report();
        self.hub.kill()?;
        self.runtime.block_on(none_live(&self.agents));
        meanwhile(&mut self.apiserver)?;
        let begun = Instant::now();
        self.hub = start_hub(self.home.path(), &self.certificates, &self.hub.address.to_string(), disk)?;
        Ok(begun)
    }

    /// An agent that was up to date and missed ten changes: it answers while the hub is stopped, then resumes.
    fn restart_agent(&mut self, table: &mut Table) -> anyhow::Result<()> {
        let home = self.home.path().join(AGENT_DISK);
        std::fs::create_dir(&home)?;
        let (address, tls) = (self.hub.address.to_string(), self.certificates.join("agent"));
        let arguments = ["--hub", &address, "--tls", text(&tls)?];
        let mut agent = Agent::start(&home, &arguments);
        agent.wait_for("records complete");
        anyhow::ensure!(agent.terminate().success(), "the agent left badly");
        self.apiserver.change(3_000, 10, 4)?;
        self.arrived(3_009, 4);

        self.hub.signal("STOP")?;
        let agent = Agent::start(&home, &arguments);
        let (namespace, name) = cluster::name(3_000);
        let name = format!("{name}.{namespace}.svc.cluster.local.");
        let message = agent.ask(&name, RecordType::A);
        let up = agent.age();
        let old = answers(&message) == [format!("5 A {}", cluster::address(3_000, 1))];
        let resumed = Instant::now();
        self.hub.signal("CONT")?;
        let new = [format!("5 A {}", cluster::address(3_000, 4))];
        while answers(&agent.ask(&name, RecordType::A)) != new {
            anyhow::ensure!(resumed.elapsed() < PATIENCE, "the agent did not resume");
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = resumed.elapsed();
        table.agent(
            old.then_some(up),
            took,
            status(&home.join("agent.sock"))?["follows"]["resumed"].as_str().unwrap_or("nothing"),
        );
        agent.kill();
        Ok(())
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// `holdfast status` of the process with this socket.
fn status(socket: &Path) -> anyhow::Result<serde_json::Value> {
    let output = run(&["status", "--admin", text(socket)?, "-o", "json"]);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Starts the hub on a disk of that name, which begins empty.
fn start_hub(home: &Path, certificates: &Path, listen: &str, disk: &str) -> anyhow::Result<Hub> {
    Hub::start("hub", &home.join(disk), &home.join("kubeconfig"), &certificates.join("hub"), listen)
}

async fn none_live(agents: &Running) {
    while agents.progress().live > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

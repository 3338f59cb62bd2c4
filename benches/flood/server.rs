//! The apiserver of the bench, in a process of its own, with a share of a CPU where that is wanted.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    apiserver::{Apiserver, Slow, endpoints, headless, namespace, service},
    coredns,
    informer::{AGENT, FLOOD},
};

pub const SERVICES: usize = 3_001;
const HEADLESS: usize = 1_000;
/// Of each service: six of a headless one, three of another.
pub const ENDPOINTS: usize = HEADLESS * 6 + (SERVICES - HEADLESS) * 3;
const NAMESPACES: usize = 30;

/// How the server does.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub name: &'static str,
    /// Added to each step.
    pub pause_ms: u64,
    /// Its share of one CPU; 0 for no limit.
    pub cpu_percent: u32,
    /// Clients that list all endpoints again and again.
    pub floods: usize,
}

/// The process: reads orders from its standard input and answers each with one line.
pub fn main(home: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Apiserver::start_tls());
    server.put_all((0..NAMESPACES).map(|n| namespace(&format!("team-{n}"))));
    server.put_all((0..SERVICES).flat_map(|n| {
        let (of, name) = (format!("team-{}", n % NAMESPACES), format!("service-{n}"));
        let is_headless = n < HEADLESS;
        let ips: Vec<String> =
            (0..if is_headless { 6 } else { 3 }).map(|k| format!("10.{}.{}.{k}", 128 + n / 250, n % 250)).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        let object = if is_headless {
            headless(&of, &name)
        } else {
            service(&of, &name, &format!("10.96.{}.{}", n / 250, n % 250))
        };
        [object, endpoints(&of, &format!("{name}-x7k2p"), &name, is_headless, &ips)]
    }));
    server.kubeconfig(home);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", server.address())?;
    out.flush()?;
    for order in std::io::stdin().lock().lines() {
        let order = order?;
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["pause", ms] => {
                let pause = Duration::from_millis(ms.parse()?);
                server.slow(Slow { accept: pause, tls: pause, headers: pause, ..Slow::default() });
                writeln!(out, "done")?;
            }
            ["requests"] => {
                let seen = server.seen();
                let of = |agent: &str| seen.iter().filter(|seen| seen.user_agent.starts_with(agent)).count();
                let lease = seen.iter().filter(|seen| seen.resource == "leases").count();
                let hub = seen.len() - of(AGENT) - of(FLOOD) - of(coredns::AGENT) - lease;
                writeln!(out, "{hub} {lease} {} {}", of(AGENT), of(coredns::AGENT))?;
            }
            _ => anyhow::bail!("no such order: {order}"),
        }
        out.flush()?;
    }
    Ok(())
}

/// Whether a process may be given a share of a CPU here.
pub fn may_limit() -> bool {
    Group::new("probe", 50).is_ok()
}

/// A cgroup, removed when dropped.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Group {
    /// One with so many hundredths of a CPU, in version 2 of cgroups or in version 1.
    fn new(name: &str, percent: u32) -> anyhow::Result<Self> {
        let name = format!("holdfast-flood-{name}-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let second = root.join("cgroup.controllers").exists();
        let group = Self(if second { root.join(name) } else { root.join("cpu").join(name) });
        fs::create_dir(&group.0).with_context(|| group.0.display().to_string())?;
        // In microseconds of every 100 ms.
        let quota = percent * 1_000;
        if second {
            fs::write(group.0.join("cpu.max"), format!("{quota} 100000"))?;
        } else {
            fs::write(group.0.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(group)
    }

    fn take(&self, pid: u32) -> anyhow::Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }
}

/// Requests by client; the hub's for the Lease apart.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    pub hub: usize,
    pub lease: usize,
    pub informer: usize,
    pub coredns: usize,
}

/// The apiserver as another process sees it. Killed when dropped.
pub struct Remote {
    pub address: SocketAddr,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    // Dropped last: it is removed once no process is in it.
    _group: Option<Group>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Remote {
    /// Starts one that does so.
    pub fn start(home: &Path, state: State) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("apiserver")
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().context("a pipe")?;
        let mut answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let group = (state.cpu_percent > 0).then(|| Group::new("apiserver", state.cpu_percent)).transpose()?;
        if let Some(group) = &group {
            group.take(child.id())?;
        }
        let address = line.trim().parse().with_context(|| format!("{line:?} is no address"))?;
        let mut remote = Self { address, child, orders, answers, _group: group };
        remote.order(&format!("pause {}", state.pause_ms))?;
        Ok(remote)
    }

    fn order(&mut self, order: &str) -> anyhow::Result<String> {
        writeln!(self.orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub fn requests(&mut self) -> anyhow::Result<Requests> {
        let line = self.order("requests")?;
        let counts: Vec<usize> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [hub, lease, informer, coredns] = counts[..] else { anyhow::bail!("{line:?} is no answer") };
        Ok(Requests { hub, lease, informer, coredns })
    }
}

//! The cluster of the bench: 10,000 services, 1,000 of them headless with ten endpoints each, and an apiserver that has them
//! in a process of its own, goes away, and comes back with none of them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::apiserver::{Apiserver, Seen, endpoints, headless, namespace, service};

pub const SERVICES: u32 = 10_000;
/// Of the services; each has ten endpoints.
const HEADLESS: u32 = 1_000;
const NAMESPACES: u32 = 97;

/// Requests an apiserver got, but for probes of its version and for leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Lists, as pages or as the beginning of a watch.
    pub lists: usize,
    /// Watches that began where a list or another watch ended.
    pub watches: usize,
    /// Most long watches that were open at once.
    pub most: usize,
}

/// Namespace and name of a service, as clusters have them: some dozens of namespaces, names of a few words and a number.
pub fn name(n: u32) -> (String, String) {
    let words = ["frontend", "checkout", "payments-api", "user-profile", "recommendation", "cache", "search-indexer"];
    let word = words[n as usize % words.len()];
    (format!("team-{}", n % NAMESPACES), format!("{word}-{n}"))
}

/// Addresses are handed out at random in a real cluster.
pub fn address(n: u32, salt: u32) -> Ipv4Addr {
    (0x0a60_0000 + n.wrapping_mul(2_654_435_761).wrapping_add(salt) % (1 << 20)).into()
}

fn cluster_ip(n: u32, salt: u32) -> Value {
    let (namespace, name) = name(n);
    let mut object = service(&namespace, &name, &address(n, salt).to_string());
    object["spec"]["ports"] = json!([
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
        {"name": "metrics", "port": 9090, "protocol": "TCP", "targetPort": 9090},
    ]);
    object
}

fn headless_name(n: u32) -> (String, String) {
    (format!("team-{}", n % NAMESPACES), format!("db-{n}"))
}

fn headless_addresses(n: u32) -> Vec<Ipv4Addr> {
    (0..10).map(|k| (0x0af4_0000 + (n * 10 + k).wrapping_mul(2_654_435_761) % (1 << 18)).into()).collect()
}

fn headless_with_endpoints(n: u32) -> [Value; 2] {
    let (namespace, name) = headless_name(n);
    let ips: Vec<String> = headless_addresses(n).iter().map(Ipv4Addr::to_string).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    let mut slice = endpoints(&namespace, &format!("{name}-x7k2p"), &name, true, &ips);
    for k in 0..3 {
        slice["endpoints"][k]["hostname"] = format!("db-{k}").into();
    }
    [headless(&namespace, &name), slice]
}

/// The process of the apiserver: reads orders from its standard input and answers each with one line.
pub fn main(home: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = runtime.block_on(Apiserver::start());
    let empty = server.backup();
    server.put_all((0..NAMESPACES).map(|n| namespace(&format!("team-{n}"))));
    server.put_all((0..SERVICES - HEADLESS).map(|n| cluster_ip(n, 1)));
    server.put_all((0..HEADLESS).flat_map(headless_with_endpoints));
    server.kubeconfig(home);
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    for order in std::io::stdin().lock().lines() {
        let order = order?;
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["change", from, count, salt] => {
                let (from, count): (u32, u32) = (from.parse()?, count.parse()?);
                let salt = salt.parse()?;
                server.put_all((from..from + count).map(|n| cluster_ip(n, salt)));
                writeln!(out, "done")?;
            }
            ["burst", count, salt] => {
                let (count, salt): (u32, u32) = (count.parse()?, salt.parse()?);
                let begun = Instant::now();
                for n in 0..count {
                    server.put(cluster_ip(n, salt));
                    let due = Duration::from_secs(1) * (n + 1) / count;
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                }
                writeln!(out, "done")?;
            }
            ["stop"] => {
                server.stop();
                writeln!(out, "done")?;
            }
            ["return"] => {
                server.restore(&empty);
                server.compact();
                runtime.block_on(server.start_again());
                writeln!(out, "done")?;
            }
            ["requests"] => {
                let seen = server.seen();
                // Leases are read and renewed by name, and the version is probed by a field selector.
                let asked =
                    |seen: &&Seen| ["list", "watch"].contains(&seen.verb) && seen.param("fieldSelector").is_none();
                let list = |seen: &&Seen| seen.verb == "list" || seen.param("sendInitialEvents").is_some();
                let all = seen.iter().filter(asked).count();
                let lists = seen.iter().filter(asked).filter(list).count();
                writeln!(out, "{lists} {} {}", all - lists, server.most_watches())?;
            }
            _ => anyhow::bail!("what is {order:?}"),
        }
        out.flush()?;
    }
    Ok(())
}

/// An apiserver in a process of its own. Killed when dropped.
pub struct Remote {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// By which salt each service with a cluster IP has its address.
    salts: Vec<u32>,
}

/// A name, and the addresses that it stands for in any order.
pub struct Expected {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
}

impl Remote {
    /// Starts one that leaves its `kubeconfig` in `home`.
    pub fn start(home: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("apiserver")
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or_else(|| anyhow::anyhow!("no stdin"))?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(|| anyhow::anyhow!("no stdout"))?);
        let salts = vec![1; usize::try_from(SERVICES - HEADLESS)?];
        let mut remote = Self { child, orders, answers, salts };
        remote.answer()?;
        Ok(remote)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "the apiserver's process ended");
        Ok(line.trim().to_owned())
    }

    fn order(&mut self, order: &str) -> anyhow::Result<String> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    /// Gives so many services from one on the addresses of another salt.
    pub fn change(&mut self, from: u32, count: u32, salt: u32) -> anyhow::Result<()> {
        self.salts[from as usize..][..count as usize].fill(salt);
        self.order(&format!("change {from} {count} {salt}")).map(drop)
    }

    /// Changes the first services one by one, spread over a second.
    pub fn burst(&mut self, count: u32, salt: u32) -> anyhow::Result<()> {
        self.salts[..count as usize].fill(salt);
        self.order(&format!("burst {count} {salt}")).map(drop)
    }

    /// Closes its port and all connections.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.order("stop").map(drop)
    }

    /// Opens its port again, with nothing of the cluster but the namespaces every cluster begins with.
    pub fn return_empty(&mut self) -> anyhow::Result<()> {
        self.order("return").map(drop)
    }

    /// Every service by its name, with the addresses it was last given.
    pub fn expected(&self) -> Vec<Expected> {
        let of = |(namespace, name): (String, String), addresses| Expected {
            name: format!("{name}.{namespace}.svc.cluster.local."),
            addresses,
        };
        let cluster_ips = (0..).zip(&self.salts).map(|(n, &salt)| of(name(n), vec![address(n, salt)]));
        cluster_ips.chain((0..HEADLESS).map(|n| of(headless_name(n), headless_addresses(n)))).collect()
    }

    /// What it was asked so far.
    pub fn requests(&mut self) -> anyhow::Result<Requests> {
        let answer = self.order("requests")?;
        let numbers: Vec<usize> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [lists, watches, most] = numbers[..] else { anyhow::bail!("{answer}") };
        Ok(Requests { lists, watches, most })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

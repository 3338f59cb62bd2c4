//! Fan-out: one hub process, thousands of followers in another, mutual TLS between them.
//!
//! `cargo bench --bench fanout [-- AGENTS…]` prints one table for each number of agents (7,500 if none is given). The hub
//! is this program started again, so that its CPU and memory are its own; `benches/README.md` says how to read the table.

mod hub;
mod table;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast::{
    record::RootDigest,
    simulate::{self, Options, Running},
    sys::Clock,
    tls,
};
use table::Table;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, certificates, listen] = &arguments[..]
        && word == "hub"
    {
        return hub::main(Path::new(certificates), listen);
    }
    let mut counts: Vec<usize> = arguments.iter().map(|count| count.parse()).collect::<Result<_, _>>()?;
    if counts.is_empty() {
        counts.push(7_500);
    }
    let certificates = tempfile::tempdir()?;
    tls::issue(certificates.path(), "bench", 30, Clock::System.now())?;
    for count in counts {
        measure(count, certificates.path())?;
    }
    Ok(())
}

/// A hub in a process of its own, steered over its standard input.
struct Hub {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Hub {
    fn start(certificates: &Path, listen: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["hub".as_ref(), certificates.as_os_str(), listen.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or_else(|| anyhow::anyhow!("no stdin"))?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(|| anyhow::anyhow!("no stdout"))?);
        let mut hub = Self { child, orders, answers, address: String::new() };
        hub.address = hub.answer()?;
        Ok(hub)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "the hub's process ended");
        Ok(line.trim().to_owned())
    }

    /// Gives an order; the root of the hub's records after it.
    fn order(&mut self, order: &str) -> anyhow::Result<RootDigest> {
        writeln!(self.orders, "{order}")?;
        Ok(RootDigest(u128::from_str_radix(&self.answer()?, 16)?))
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.child.id())
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    rss_bytes: u64,
}

fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let pages: u64 =
        std::fs::read_to_string(format!("/proc/{pid}/statm"))?.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(Usage { cpu: Duration::from_millis(ticks * 10), rss_bytes: pages * 4_096 })
}

fn measure(count: usize, certificates: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut table = Table::new(count);
    let mut hub = Hub::start(&certificates.join("hub"), "127.0.0.1:0")?;
    let root = hub.order("list")?;
    let options = Options {
        hubs: vec![hub.address.clone()],
        tls: Some(certificates.join("agent")),
        count,
        ramp: Duration::from_millis(u64::try_from(count)? / 2),
        watch: Duration::ZERO,
        patience: Duration::from_secs(120),
    };
    let agents = runtime.block_on(async { simulate::start(&options) })?;
    let patience = Duration::from_secs(120);

    // First start: everybody needs a snapshot.
    let took = runtime.block_on(agents.all_live(patience));
    let report = agents.report();
    table.start(took, &report, hub.usage()?);

    // One change.
    let mut singles = Vec::new();
    for number in 0..7 {
        let root = hub.order(&format!("change 1 {number}"))?;
        runtime.block_on(agents.all_at(root, patience));
        singles.push(agents.report().propagation_ms);
        std::thread::sleep(Duration::from_millis(700));
    }
    table.single(&mut singles);

    // A burst of single changes, spread over a second.
    let before = hub.usage()?;
    let begun = Instant::now();
    let root_after = hub.order("burst 1000")?;
    let reached = runtime.block_on(agents.all_at(root_after, patience)).map(|_| begun.elapsed());
    std::thread::sleep(Duration::from_millis(500));
    table.burst(reached, &agents.report(), before.cpu, hub.usage()?);
    anyhow::ensure!(root != root_after, "the burst changed nothing");

    // The hub dies and comes back: nothing changed, then 1 % changed.
    let address = hub.address.clone();
    for (order, name) in [("list-again", "hub restart, nothing changed"), ("list-changed", "hub restart, 1 % changed")]
    {
        let _ = agents.report();
        hub.kill()?;
        runtime.block_on(none_live(&agents));
        let begun = Instant::now();
        hub = Hub::start(&certificates.join("hub"), &address)?;
        let root = hub.order(order)?;
        let reached = runtime.block_on(agents.all_at(root, patience)).map(|_| begun.elapsed());
        table.restart(name, reached, &agents.report());
        if order == "list-again" {
            // The state the next restart begins from.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    runtime.block_on(agents.stop());
    hub.kill()?;
    table.print();
    Ok(())
}

async fn none_live(agents: &Running) {
    while agents.progress().live > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

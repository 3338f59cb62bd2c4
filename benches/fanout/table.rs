//! The table the bench prints: what was measured beside what it should be.

use std::time::Duration;

use holdfast::simulate::{Millis, Report};

use super::{Usage, cluster::Requests, curve::Point};

const MISSED: &str = "missed";

pub struct Table {
    agents: usize,
    /// What the apiserver was asked until all were live and saw all changes.
    pub settled: Requests,
    /// And until all had come back to a hub that was restarted.
    pub reconnected: Requests,
    /// What the curve shows of it.
    pub point: Point,
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn new(agents: usize) -> Self {
        let point = Point { agents, ..Point::default() };
        Self { agents, settled: Requests::default(), reconnected: Requests::default(), point, rows: Vec::new() }
    }

    /// How many rows are not as they must be.
    pub fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row[3] == MISSED).count()
    }

    /// Something measured, and whether it meets its target; without a target it is just told.
    pub fn row(&mut self, what: &str, measured: String, target: &str, met: bool) {
        let verdict = if target.is_empty() {
            ""
        } else if met {
            "met"
        } else {
            MISSED
        };
        self.rows.push([what.into(), measured, target.into(), verdict.into()]);
    }

    fn each(&self, bytes: u64) -> u64 {
        bytes / u64::try_from(self.agents.max(1)).unwrap_or(1)
    }

    pub fn start(&mut self, took: Option<Duration>, report: &Report, idle: Usage, hub: Usage) {
        let bytes = self.each(report.bytes_received);
        self.row("first start, all live after", seconds(took), "", true);
        self.row(
            "snapshot bytes an agent, TLS included",
            format!("{} KB", bytes / 1_000),
            "≤ 300 KB",
            bytes <= 300_000,
        );
        let rss = hub.rss_bytes / 1_000_000;
        let beyond = self.each(hub.rss_bytes.saturating_sub(idle.rss_bytes));
        let measured = format!("{rss} MB; {:.1} kB a connection", to_kb(beyond));
        self.row("hub RSS with all agents", measured, "≤ 300 MB", rss <= 300);
        let cpu = hub.cpu.saturating_sub(idle.cpu);
        self.row("hub CPU for the first start", format!("{:.1} s", cpu.as_secs_f64()), "", true);
        self.point = Point { took, rss_bytes: hub.rss_bytes, each_bytes: beyond, start_cpu: cpu, ..self.point };
    }

    pub fn single(&mut self, runs: &mut [Millis], whole: &mut [Duration]) {
        runs.sort_by_key(|run| run.p99);
        whole.sort();
        let median = runs[runs.len() / 2];
        self.point.single = median;
        let measured = format!("p50 {} ms, p99 {} ms, max {} ms", median.p50, median.p99, median.max);
        self.row("one change to all agents, median of 7", measured, "p99 ≤ 250 ms", median.p99 <= 250);
        let whole = whole.get(whole.len() / 2).map_or_else(|| "not in time".into(), |took| millis(*took));
        self.row("… from the apiserver to the last agent", whole, "", true);
    }

    pub fn burst(&mut self, reached: Option<Duration>, report: &Report, before: Duration, hub: Usage) {
        let cpu = hub.cpu.saturating_sub(before).as_secs_f64();
        self.point = Point { burst_cpu_s: cpu, burst: report.propagation_ms, ..self.point };
        self.row("1,000 changes in a second, hub CPU", format!("{cpu:.2} s"), "≤ 3 s", cpu <= 3.0);
        self.row("… all agents equal after", seconds(reached), "", true);
        let each = report.batches / u64::try_from(self.agents.max(1)).unwrap_or(1);
        let p99 = report.propagation_ms.p99;
        self.row("… batches an agent, p99 of each", format!("{each}, {p99} ms"), "", true);
        self.row("… divergent, mismatches", format!("{}, {}", report.divergent, report.mismatches), "0, 0", {
            report.divergent == 0 && report.mismatches == 0
        });
    }

    pub fn restart(&mut self, name: &str, reached: Option<Duration>, report: &Report) {
        let within = reached.is_some_and(|took| took <= Duration::from_secs(10));
        self.point.restart = self.point.restart.or(reached);
        self.row(&format!("{name}: all proven equal after"), seconds(reached), "≤ 10 s", within);
        let bytes = self.each(report.bytes_received + report.bytes_sent);
        let (target, most) = if name.contains("nothing") { ("≤ 12 KB", 12_000) } else { ("≤ 400 KB", 400_000) };
        self.row("… bytes an agent, both ways", format!("{:.1} KB", to_kb(bytes)), target, bytes <= most);
        let snapshots = report.modes.get("snapshot").copied().unwrap_or(0);
        self.row("… snapshots sent; modes", format!("{snapshots}; {:?}", report.modes), "0", snapshots == 0);
    }

    /// What the apiserver was asked, here and with few agents.
    pub fn apiserver(&mut self, few: &Self) {
        let of = |agents: usize, requests: Requests| {
            format!("{agents} agents: {} LISTs {} watches", requests.lists, requests.watches)
        };
        let pairs = [
            ("apiserver: first start and changes", self.settled, few.settled),
            ("apiserver: … and a reconnect of all", self.reconnected, few.reconnected),
        ];
        for (what, ours, theirs) in pairs {
            let measured = format!("{}; {}", of(few.agents, theirs), of(self.agents, ours));
            self.row(what, measured, "identical", (ours.lists, ours.watches) == (theirs.lists, theirs.watches));
        }
        let most = self.reconnected.most;
        self.row("apiserver: long watches open at once", most.to_string(), "≤ 4", most <= 4);
    }

    /// An agent that was restarted: how long after exec it answered while the hub was stopped, and how it came back.
    pub fn agent(&mut self, up: Option<Duration>, resumed: Duration, mode: &str) {
        let answered = up.map_or_else(|| "it did not answer".into(), |up| format!("DNS up in {}", millis(up)));
        let measured = format!("{answered}, then {mode} in {}", millis(resumed));
        let met = up.is_some() && ["delta", "repair"].contains(&mode);
        self.row("agent start from disk, its hub stopped, resume", measured, "delta or repair, DNS first", met);
    }

    /// The most memory the last hub ever had.
    pub fn most(&mut self, hub: Usage) {
        let most = hub.rss_most_bytes / 1_000_000;
        self.row("hub RSS at its peak, restart of all included", format!("{most} MB"), "≤ 300 MB", most <= 300);
    }

    pub fn print(&self) {
        println!(
            "\n{} agents, one hub, mutual TLS on loopback; 10,000 services with 10,000 headless endpoints",
            self.agents
        );
        println!("load of the machine: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        for [what, measured, target, verdict] in &self.rows {
            println!("{what:<0$}  {measured:<1$}  {target:<2$}  {verdict}", widths[0], widths[1], widths[2]);
        }
    }
}

pub fn millis(took: Duration) -> String {
    format!("{:.0} ms", took.as_secs_f64() * 1e3)
}

pub fn seconds(took: Option<Duration>) -> String {
    took.map_or_else(|| "not in time".into(), |took| format!("{:.1} s", took.as_secs_f64()))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn to_kb(bytes: u64) -> f64 {
    bytes as f64 / 1_000.0
}

//! The outage of a control plane, minute by minute: what `status`, `guard` and the log of a hub and an agent say, and which alerts
//! fire, against a golden file that people review.
//!
//! The clock stands still between the steps, so that ages are exact. With `UPDATE_GOLDEN=1` the file is written anew, all but
//! its lines of alerts, which promtool checks against the metrics of each step.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::{Reader, SourceState},
    sys::{Clock, ManualClock, UnixMillis},
};
use regex::Regex;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    deploy::alert_rules,
    support::{
        apiserver::{Apiserver, endpoints, headless, namespace, service},
        fleet::{Home, agent_config, beside, hub_config, in_time, until, until_equal},
        http,
        process::run,
    },
};

/// 2024-12-11 18:00:00 UTC.
const START: UnixMillis = UnixMillis(1_733_940_000_000);

/// The steps: the title, and the time since the step before.
const STEPS: [(&str, u64); 6] = [
    ("before: all is well", 0),
    ("+0: the apiserver refuses connections", 0),
    ("+15 s", 15),
    ("+2 min", 105),
    ("+20 min", 1_080),
    ("back, 5 s later", 5),
];

/// The metrics that alerts of this outage are made from.
const METRICS: [&str; 10] = [
    "holdfast_source_up",
    "holdfast_source_age_seconds",
    "holdfast_hub_connected",
    "holdfast_guard_held",
    "holdfast_stream_refusing",
    "holdfast_store_digest_mismatch_total",
    "holdfast_disk_errors_total",
    "holdfast_disk_age_seconds",
    "holdfast_build_info",
    "holdfast_pins",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tools/outage.txt")
}

/// The log of this thread, which runs the hub and the agent.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Waits for the end of the loss at both, which is logged with the changes that come after it.
    async fn back(&self) {
        let told = || String::from_utf8_lossy(&self.0.lock().unwrap()).matches("back after").count();
        let both = async {
            while told() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        in_time("the apiserver is back in both logs", both).await;
    }

    /// The lines about the source since the last call. Those of hub and agent come in no order.
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let about = |line: &&str| ["lost ", "back after"].iter().any(|part| line.contains(part));
        let mut lines: Vec<String> = text.lines().filter(about).map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }
}

struct World {
    clock: ManualClock,
    server: Apiserver,
    homes: [Home; 2],
    hub: Hub,
    agent: Agent,
    log: Log,
    /// What stands for the addresses and paths of this run.
    names: Vec<(String, &'static str)>,
}

impl World {
    async fn start() -> Self {
        let server = Apiserver::start().await;
        server.put_all([namespace("kube-system"), namespace("prod")]);
        server.put_all((0..30).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
        server.put(headless("prod", "db"));
        server.put(endpoints("prod", "db-1", "db", true, &["10.128.0.1", "10.128.0.2"]));
        let clock = ManualClock::new(START);
        let homes = [Home::new(), Home::new()];
        let kubeconfig = server.kubeconfig(homes[0].path());
        let arguments = [
            "--tls",
            "insecure",
            "--listen",
            "127.0.0.1:0",
            "--name",
            "hub-0",
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
        ];
        let mut config = hub_config(homes[0].path(), &arguments);
        // A lease is looked at every fourth part of this, in real time.
        config.settings.lease_duration = Duration::from_secs(3);
        let hub = Hub::start(config, Clock::Manual(clock.clone())).await.unwrap();
        until("the hub lists", hub.reader(), |reader| reader.as_of().is_some()).await;
        let stream = hub.addresses().stream[0].to_string();
        let config = agent_config(homes[1].path(), &["--tls", "insecure", "--hub", &stream]);
        let agent = Agent::start(config, Clock::Manual(clock.clone())).await.unwrap();
        in_time("live", until_equal(agent.reader(), hub.reader())).await;
        let (of_hub, of_agent) = (hub.addresses(), agent.addresses());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let names = vec![
            (server.address().to_string(), "10.0.0.1:6443"),
            (stream, "10.0.3.7:7443"),
            (of_agent.dns[0].to_string(), "169.254.20.10:53"),
            (of_hub.http.unwrap().to_string(), "10.0.3.7:8080"),
            (of_hub.metrics.unwrap().to_string(), "10.0.3.7:9253"),
            (of_agent.http.unwrap().to_string(), "169.254.20.10:8080"),
            (of_agent.metrics.unwrap().to_string(), "10.0.5.9:9253"),
            ("127.0.0.1:9".into(), "10.0.0.2:53"),
            (text(&kubeconfig), "/etc/holdfast/kubeconfig"),
            (text(&homes[0].path().join("agent.sock")), "/run/holdfast/agent.sock"),
            (text(&homes[1].path().join("agent.sock")), "/run/holdfast/agent.sock"),
            (text(&homes[0].path().join("store")), "/var/lib/holdfast"),
            (text(&homes[1].path().join("store")), "/var/lib/holdfast"),
            (format!("pid {}", std::process::id()), "pid 42"),
            (format!(" {}, pid", env!("CARGO_PKG_VERSION")), " 0.1.0, pid"),
        ];
        Self { clock, server, homes, hub, agent, log: Log::default(), names }
    }

    /// Waits until both are as the step has them.
    async fn settle(&self, lost: bool) {
        let reason = |reader: &Reader| match reader.freshness().source {
            SourceState::Lost(reason) => Some(reason),
            _ => None,
        };
        let settled = |reader: &Reader| match reason(reader) {
            Some(reason) => lost && reason.contains("refused"),
            None => !lost && reader.freshness().source == SourceState::Up && reader.as_of() == Some(self.clock.now()),
        };
        until("the hub", self.hub.reader(), settled).await;
        until("the agent", self.agent.reader(), settled).await;
        let settled = async {
            loop {
                let (hub, _) = self.homes[0].tool(&["status"]).await;
                let (agent, _) = self.homes[1].tool(&["status"]).await;
                let failing =
                    hub["lease"]["failing"]["reason"].as_str().is_some_and(|reason| reason.contains("refused"));
                let written = [&hub, &agent].iter().all(|status| {
                    status["disk"]["version"]
                        == json!(format!("{}.{}", status["version"]["epoch"], status["version"]["rev"]))
                        || status["disk"]["version"]["rev"] == status["version"]["rev"]
                });
                if failing == lost && agent["follows"]["state"] == "live" && written {
                    return;
                }
            }
        };
        in_time("lease, stream and disk", settled).await;
    }

    async fn tool(&self, home: usize, command: &'static str) -> String {
        let socket = self.homes[home].path().join("agent.sock");
        let output = beside(move || run(&[command, "--admin", socket.to_str().unwrap()])).await;
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let text = self.names.iter().fold(text, |text, (from, to)| text.replace(from.as_str(), to));
        let lines: Vec<String> = text.lines().map(|line| wrapped(&masked(line))).collect();
        format!("{}\nexit code {}\n", lines.join("\n"), output.status.code().unwrap())
    }

    /// What a person sees now.
    async fn seen(&self) -> String {
        let mut text = String::new();
        for (of, home) in [("agent", 1), ("hub", 0)] {
            for command in ["status", "guard"] {
                let _ = write!(text, "\n$ holdfast {command}      # {of}\n{}", self.tool(home, command).await);
            }
        }
        let lines = self.log.take().join("\n");
        let lines = self.names.iter().fold(masked(&lines), |text, (from, to)| text.replace(from.as_str(), to));
        let _ = write!(
            text,
            "\nlog of both since the step before:\n{}\n",
            if lines.is_empty() { "(nothing)" } else { &lines }
        );
        text
    }

    /// The metrics of the alerts, by series with the labels of its target.
    async fn scraped(&self) -> BTreeMap<String, f64> {
        let targets = [
            (
                self.hub.addresses().metrics.unwrap(),
                "job=\"holdfast-hub\",pod=\"hub-0\",node=\"n1\",instance=\"10.0.3.7:9253\"",
            ),
            (
                self.agent.addresses().metrics.unwrap(),
                "job=\"holdfast-agent\",pod=\"a\",node=\"n2\",instance=\"10.0.5.9:9253\"",
            ),
        ];
        let mut series = BTreeMap::new();
        for (address, target) in targets {
            let text = beside(move || http::get(address, "/metrics")).await;
            series.insert(format!("up{{{target}}}"), 1.0);
            for line in text.lines() {
                let Some((name, value)) = line.rsplit_once(' ') else { continue };
                let (family, labels) = name.split_once('{').unwrap_or((name, "}"));
                if METRICS.contains(&family) {
                    let own = labels.trim_end_matches('}');
                    let comma = if own.is_empty() { "" } else { "," };
                    series.insert(format!("{family}{{{target}{comma}{own}}}"), value.parse().unwrap());
                }
            }
        }
        series
    }
}

/// A line without what differs from run to run.
fn masked(line: &str) -> String {
    let masks = [
        // The change comes with the first sign of life, or after it.
        (r"changes=\d+", "changes=…"),
        (r"digest [0-9a-f]{16}", "digest 3f9c2a7d10b4e855"),
        (r"records on disk are \S+ old, written \S+ ago", "records on disk are … old, written … ago"),
        (r"minute: \d+ requests, slowest [0-9.]+ s", "minute: … requests, slowest … s"),
    ];
    masks
        .iter()
        .fold(line.to_owned(), |line, (from, to)| Regex::new(from).unwrap().replace_all(&line, *to).into_owned())
}

/// A row of `status` as a terminal of 80 columns shows it.
fn wrapped(line: &str) -> String {
    let mut lines = vec![String::new()];
    for (nth, word) in line.split(' ').enumerate() {
        let last = lines.last_mut().unwrap();
        if nth > 0 && last.chars().count() + 1 + word.chars().count() > 80 {
            lines.push(format!("{:12}{word}", ""));
        } else {
            last.push_str(if nth > 0 { " " } else { "" });
            last.push_str(word);
        }
    }
    lines.join("\n")
}

/// Checks that these alerts fire at each step, if there is a promtool: samples between two steps lie on a line.
fn check_alerts(scraped: &[BTreeMap<String, f64>], firing: &[Vec<String>]) {
    const EVERY: u64 = 15;
    // All is well for five minutes; the last step lasts for two.
    let mut at = 300;
    let mut times = vec![0];
    for (nth, (_, since)) in STEPS.iter().enumerate().skip(1) {
        at += if nth == 1 { EVERY } else { since.next_multiple_of(EVERY) };
        times.push(at);
    }
    let end = at + 120;
    let series = scraped[0].keys().map(|name| {
        let value = |step: usize| scraped[step].get(name).copied().unwrap_or_else(|| panic!("{name} at step {step}"));
        let mut values = format!("{}x{} ", value(0), 300 / EVERY);
        for step in 1..STEPS.len() - 1 {
            let samples = (times[step + 1] - times[step]) / EVERY;
            let slope = (value(step + 1) - value(step)) / f64::from(u32::try_from(samples).unwrap());
            // What jumps when the apiserver is back does so at the last step.
            let slope = if step + 2 == STEPS.len() { 0.0 } else { slope };
            let sign = if slope < 0.0 { "" } else { "+" };
            let _ = write!(values, "{}{sign}{slope}x{} ", value(step), samples - 1);
        }
        let _ = write!(values, "{}x{}", value(STEPS.len() - 1), 120 / EVERY);
        json!({ "series": name, "values": values })
    });
    let tests = firing.iter().zip(&times).enumerate().map(|(step, (alerts, at))| {
        let samples: Vec<Value> = alerts
            .iter()
            .map(|alert| {
                let (name, severity) = alert.split_once(' ').unwrap();
                let severity = severity.trim_matches(['(', ')']);
                json!({ "labels": format!("{{alertname=\"{name}\",severity=\"{severity}\"}}"), "value": 1 })
            })
            .collect();
        let at = if step + 1 == STEPS.len() { end } else { *at };
        let expr = "count by (alertname, severity) (ALERTS{alertstate=\"firing\"})";
        json!({ "expr": expr, "eval_time": format!("{at}s"), "exp_samples": samples })
    });
    let file = json!({
        "rule_files": ["rules.yaml"], "evaluation_interval": "15s",
        "tests": [{
            "interval": format!("{EVERY}s"),
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": tests.collect::<Vec<_>>(),
        }],
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), alert_rules().to_string()).unwrap();
    std::fs::write(dir.path().join("tests.yaml"), file.to_string()).unwrap();
    match Command::new("promtool").args(["test", "rules", "tests.yaml"]).current_dir(dir.path()).output() {
        Ok(ran) => {
            let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
            assert!(ran.status.success(), "{said}");
        }
        Err(error) => {
            assert!(std::env::var_os("HOLDFAST_PROMTOOL").is_none(), "promtool: {error}");
            println!("NOT TESTED: alerts. promtool: {error} (Debian package prometheus)");
        }
    }
}

/// The alerts of each step as the golden file has them.
fn alerts_of(golden: &str) -> Vec<Vec<String>> {
    let lines = golden.lines().filter_map(|line| line.strip_prefix("alerts: "));
    lines.map(|line| line.split(", ").filter(|alert| *alert != "none").map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn an_outage_reads_as_its_golden_file() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().with_target(false);
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    let world = World { log, ..World::start().await };
    let wanted = std::fs::read_to_string(golden()).unwrap_or_default();
    let firing = alerts_of(&wanted);
    let (mut shown, mut scraped) = (String::new(), Vec::new());
    for (step, (title, since)) in STEPS.iter().enumerate() {
        world.clock.advance(Duration::from_secs(*since));
        match step {
            1 => world.server.stop(),
            5 => {
                world.server.put(service("prod", "new", "10.96.2.1"));
                world.server.start_again().await;
                let has_new = |reader: &Reader| reader.load().service(b"prod", b"new").is_some();
                until("the change", world.agent.reader(), has_new).await;
            }
            _ => {}
        }
        world.settle((1..=4).contains(&step)).await;
        if step == 5 {
            world.log.back().await;
        }
        let alerts = firing.get(step).map_or_else(|| "none".into(), |alerts| alerts.join(", "));
        let alerts = if alerts.is_empty() { "none" } else { &alerts };
        let _ = write!(shown, "== {title}\n{}\nalerts: {alerts}\n\n", world.seen().await);
        scraped.push(world.scraped().await);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden(), &shown).unwrap();
    } else {
        assert_eq!(shown, wanted, "UPDATE_GOLDEN=1 writes {} anew", golden().display());
    }
    check_alerts(&scraped, &firing);
    let World { hub, agent, .. } = world;
    agent.stop().await;
    hub.stop().await;
}

/// The part of the golden file that a command printed at a step, as one line.
fn printed(golden: &str, step: &str, command: &str) -> String {
    let found = golden.split("\n== ").find(|part| part.trim_start_matches("== ").starts_with(step));
    let step = found.unwrap_or_else(|| panic!("no step {step}"));
    let of = step.split("\n$ holdfast ").find(|part| part.starts_with(command));
    let of = of.unwrap_or_else(|| panic!("no {command}"));
    of.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_commands_of_the_runbook_show_what_it_says_they_must() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let golden = std::fs::read_to_string(golden()).unwrap();
    let must_show = |nth: usize| {
        let row = page.lines().find(|line| line.starts_with(&format!("| {nth} | "))).expect("a row of that number");
        let cell = row.split(" | ").nth(2).unwrap().to_owned();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    for (nth, command) in [(1, "status # agent"), (2, "status # hub"), (4, "guard # hub")] {
        // What a command shows is spelled with more blanks in the file.
        let command = command.replace(" #", "      #");
        let printed = printed(&golden, "+2 min", &command);
        let quoted = must_show(nth);
        assert!(!quoted.is_empty(), "{nth}");
        for quoted in quoted {
            // Times, and what stands for them.
            let pattern = regex::escape(&quoted).replace("2m3s", r"\S+").replace('…', "[^)]*");
            assert!(
                Regex::new(&pattern).unwrap().is_match(&printed),
                "{quoted:?} of command {nth} is not in:\n{printed}"
            );
        }
    }
    assert!(printed(&golden, "+2 min", "status      # agent").ends_with("exit code 5"));
}

//! The alerts, as Prometheus evaluates them: each fires on what it is for, and none on a node that is well.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{alert_rules, alerts, yaml::text};

/// Runs promtool over the rules. Without promtool: none, or a failure where `HOLDFAST_PROMTOOL` says that there is one.
fn promtool(dir: &Path, arguments: &[&str]) -> Option<Output> {
    std::fs::write(dir.join("rules.yaml"), alert_rules().to_string()).unwrap();
    match Command::new("promtool").args(arguments).current_dir(dir).output() {
        Ok(ran) => Some(ran),
        Err(error) => {
            assert!(std::env::var_os("HOLDFAST_PROMTOOL").is_none(), "promtool: {error}");
            println!("NOT TESTED: alerts. promtool: {error} (Debian package prometheus)");
            None
        }
    }
}

/// Plays `tests` on the rules, which are evaluated once in `every`.
fn play(every: &str, tests: &[Value]) {
    let dir = tempfile::tempdir().unwrap();
    let file = json!({ "rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": tests });
    std::fs::write(dir.path().join("tests.yaml"), file.to_string()).unwrap();
    let Some(ran) = promtool(dir.path(), &["test", "rules", "tests.yaml"]) else { return };
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ran.status.success(), "{said}");
}

#[test]
fn promtool_takes_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let Some(ran) = promtool(dir.path(), &["check", "rules", "rules.yaml"]) else { return };
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("rules found"), "{said}");
}

/// Series of one pod, with samples at equal distances: name, labels besides the target's, values, `N` times.
type Series = (&'static str, &'static str, &'static str);

/// What a pod that is well shows, so that no alert is quiet only for want of series.
const WELL: [Series; 36] = [
    ("up", "", "1xN"),
    ("holdfast_build_info", "version=\"0.1.0\"", "1xN"),
    ("holdfast_source_latency_seconds", "", "0.02xN"),
    ("holdfast_source_requests_per_minute", "", "60xN"),
    ("holdfast_source_busy_per_minute", "", "0xN"),
    ("holdfast_source_refused_per_minute", "", "0xN"),
    ("holdfast_dns_responses_total", "rcode=\"NOERROR\"", "0+6000xN"),
    ("holdfast_dns_responses_total", "rcode=\"SERVFAIL\"", "0+60xN"),
    ("holdfast_dns_request_duration_seconds_bucket", "from=\"cluster\",le=\"0.001\"", "0+6000xN"),
    ("holdfast_dns_request_duration_seconds_bucket", "from=\"cluster\",le=\"+Inf\"", "0+6000xN"),
    ("holdfast_source_up", "", "1xN"),
    ("holdfast_source_age_seconds", "", "4xN"),
    ("holdfast_guard_held", "kind=\"services\"", "0xN"),
    ("holdfast_stream_refusing", "", "0xN"),
    ("holdfast_store_digest_mismatch_total", "", "0xN"),
    ("holdfast_forward_servfail_total", "", "0xN"),
    ("holdfast_forward_failures_total", "kind=\"timeout\"", "0+1xN"),
    ("holdfast_forward_failures_total", "kind=\"servfail\"", "0xN"),
    ("holdfast_forward_queries_total", "proto=\"udp\"", "0+600xN"),
    ("holdfast_forward_queries_total", "proto=\"tcp\"", "0xN"),
    ("holdfast_forward_down_total", "", "0xN"),
    ("holdfast_forward_loops_total", "", "0xN"),
    ("holdfast_cache_held_names", "", "0xN"),
    ("holdfast_forward_bulk_denials_total", "upstream=\"10.0.0.53:53\"", "0xN"),
    ("holdfast_forward_files_missing", "", "0xN"),
    ("holdfast_node_hosts_file_errors_total", "", "0xN"),
    ("holdfast_disk_errors_total", "", "0xN"),
    ("holdfast_disk_age_seconds", "", "20xN"),
    ("holdfast_tls_certificate_expiry_timestamp_seconds", "", "10000000xN"),
    ("holdfast_tls_grace_total", "peer=\"hub\"", "0xN"),
    ("holdfast_node_setup_errors_total", "errortype=\"admin_socket\"", "0xN"),
    ("holdfast_node_watch_deaths_total", "", "0xN"),
    ("holdfast_node_intercept_released", "", "0xN"),
    ("holdfast_node_addresses_waiting", "", "0xN"),
    ("holdfast_node_process_deaths_total", "", "0xN"),
    ("holdfast_pins", "", "0xN"),
];

/// What goes wrong, in place of those series, and the one alert that fires.
const WRONG: [(&str, &str, &[Series]); 36] = [
    ("HoldfastSourceLost", "holdfast-hub", &[("holdfast_source_up", "", "0xN")]),
    ("HoldfastControlPlaneSlow", "holdfast-hub", &[("holdfast_source_latency_seconds", "", "1.2xN")]),
    ("HoldfastControlPlaneSlow", "holdfast-hub", &[("holdfast_source_busy_per_minute", "", "18xN")]),
    ("HoldfastHubsMissing", "holdfast-hub", &[("up", "", "0xN")]),
    ("HoldfastAgentsMissing", "holdfast-agent", &[("up", "", "0xN")]),
    ("HoldfastAgentDown", "holdfast-agent", &[("up", "", "0xN")]),
    ("HoldfastAgentsWithoutHub", "holdfast-agent", &[("holdfast_hub_connected", "", "0xN")]),
    ("HoldfastServfail", "holdfast-agent", &[("holdfast_dns_responses_total", "rcode=\"SERVFAIL\"", "0+600xN")]),
    (
        "HoldfastSlowAnswers",
        "holdfast-agent",
        &[
            ("holdfast_dns_request_duration_seconds_bucket", "from=\"cluster\",le=\"0.001\"", "0+5000xN"),
            ("holdfast_dns_request_duration_seconds_bucket", "from=\"cluster\",le=\"0.1\"", "0+6000xN"),
        ],
    ),
    ("HoldfastVersionsDiffer", "holdfast-agent", &[("holdfast_build_info", "version=\"0.2.0\"", "1xN")]),
    ("HoldfastRecordsOld", "holdfast-agent", &[("holdfast_source_age_seconds", "", "121xN")]),
    ("HoldfastGuardHolding", "holdfast-agent", &[("holdfast_guard_held", "kind=\"services\"", "7xN")]),
    ("HoldfastFollowersRefuse", "holdfast-hub", &[("holdfast_stream_refusing", "", "3xN")]),
    ("HoldfastDigestMismatch", "holdfast-agent", &[("holdfast_store_digest_mismatch_total", "", "0+1xN")]),
    (
        "HoldfastUpstreamsFailing",
        "holdfast-agent",
        &[
            ("holdfast_forward_servfail_total", "", "0+60xN"),
            ("holdfast_forward_failures_total", "kind=\"timeout\"", "0+200xN"),
            ("holdfast_forward_failures_total", "kind=\"servfail\"", "0+200xN"),
        ],
    ),
    (
        "HoldfastUpstreamsFailing",
        "holdfast-agent",
        // There are none, and so nobody is asked.
        &[
            ("holdfast_forward_servfail_total", "", "0+60xN"),
            ("holdfast_forward_queries_total", "proto=\"udp\"", "0xN"),
            ("holdfast_forward_failures_total", "kind=\"timeout\"", "0xN"),
            ("holdfast_forward_down_total", "", "0+60xN"),
        ],
    ),
    ("HoldfastForwardLoop", "holdfast-agent", &[("holdfast_forward_loops_total", "", "0+1xN")]),
    ("HoldfastNamesDenied", "holdfast-agent", &[("holdfast_cache_held_names", "", "3xN")]),
    (
        "HoldfastUpstreamDenies",
        "holdfast-agent",
        &[("holdfast_forward_bulk_denials_total", "upstream=\"10.0.0.53:53\"", "0+1xN")],
    ),
    (
        "HoldfastKeptNameUnresolved",
        "holdfast-agent",
        &[("holdfast_forward_keep_unresolved_seconds", "name=\"registry.example.\"", "0+60xN")],
    ),
    ("HoldfastFilesUnusable", "holdfast-agent", &[("holdfast_forward_files_missing", "", "1xN")]),
    ("HoldfastFilesUnusable", "holdfast-agent", &[("holdfast_node_hosts_file_errors_total", "", "0+12xN")]),
    ("HoldfastDiskFailing", "holdfast-agent", &[("holdfast_disk_errors_total", "", "0+1xN")]),
    ("HoldfastDiskFailing", "holdfast-agent", &[("holdfast_disk_age_seconds", "", "400xN")]),
    (
        "HoldfastCertificateExpiring",
        "holdfast-agent",
        &[("holdfast_tls_certificate_expiry_timestamp_seconds", "", "1000000xN")],
    ),
    ("HoldfastExpiredCertificatesInUse", "holdfast-agent", &[("holdfast_tls_grace_total", "peer=\"hub\"", "0+1xN")]),
    (
        "HoldfastNodeSetupFailing",
        "holdfast-agent",
        &[("holdfast_node_setup_errors_total", "errortype=\"admin_socket\"", "0+1xN")],
    ),
    ("HoldfastNodeWatchDying", "holdfast-agent", &[("holdfast_node_watch_deaths_total", "", "0+1xN")]),
    ("HoldfastInterceptReleased", "holdfast-agent", &[("holdfast_node_intercept_released", "", "1xN")]),
    ("HoldfastAddressesNotTaken", "holdfast-agent", &[("holdfast_node_addresses_waiting", "", "1xN")]),
    ("HoldfastProcessDying", "holdfast-agent", &[("holdfast_node_process_deaths_total", "", "0+1xN")]),
    // A process that died once is started again, and `status` says so.
    ("", "holdfast-agent", &[("holdfast_node_process_deaths_total", "", "0x95 1x25")]),
    ("HoldfastPinned", "holdfast-agent", &[("holdfast_pins", "", "1xN")]),
    // Names that fail upstream are no fault of the upstreams.
    ("", "holdfast-agent", &[("holdfast_forward_servfail_total", "", "0+60xN")]),
    ("", "holdfast-agent", &[("holdfast_store_digest_mismatch_total", "", "0x95 1x25")]),
    ("", "holdfast-hub", &[]),
];

/// One pod for so many minutes, with a sample in each `every`, and what fires then.
fn case((alert, job, wrong): &(&str, &str, &[Series]), every: usize, minutes: usize) -> Value {
    let samples = &(minutes / every).to_string();
    let is_wrong = |well: &&Series| wrong.iter().any(|(name, labels, _)| (*name, *labels) == (well.0, well.1));
    let all = wrong.iter().chain(WELL.iter().filter(|well| !is_wrong(well)));
    // Other pods of each kind, which are well: a fleet of one shows no share.
    let beside = if *alert == "HoldfastAgentDown" { 20 } else { 1 };
    let mut series: Vec<Value> =
        [("holdfast-hub", "up"), ("holdfast-agent", "up"), ("holdfast-agent", "holdfast_hub_connected")]
            .iter()
            .filter(|(job, _)| *alert != "HoldfastHubsMissing" || *job != "holdfast-hub")
            .flat_map(|(job, name)| {
                (0..beside).map(move |n| {
                    let target = format!("job=\"{job}\",pod=\"well-{n}\",node=\"m\",instance=\"10.0.1.{n}:9253\"");
                    json!({ "series": format!("{name}{{{target}}}"), "values": format!("1x{samples}") })
                })
            })
            .collect();
    series.extend(all.map(|(name, labels, values)| {
        let target = format!("job=\"{job}\",pod=\"p\",node=\"n\",instance=\"10.0.0.1:9253\"");
        let values = values.replace('N', samples);
        json!({ "series": format!("{name}{{{target},{labels}}}"), "values": values })
    }));
    let fires = if alert.is_empty() {
        json!([])
    } else {
        json!([{ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }])
    };
    let alerting = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
    json!({
        "name": format!("{alert} {wrong:?}"),
        "interval": format!("{every}m"),
        "input_series": series,
        "promql_expr_test": [{ "expr": alerting, "eval_time": format!("{}m", minutes - 10), "exp_samples": fires }],
    })
}

#[test]
fn every_alert_fires_on_what_it_is_for_and_on_nothing_else() {
    let tried: BTreeSet<&str> = WRONG.iter().map(|(alert, ..)| *alert).filter(|alert| !alert.is_empty()).collect();
    let all = alerts();
    assert_eq!(tried, all.iter().map(|alert| text(alert, "/alert")).collect());
    let (slow, others): (Vec<_>, Vec<_>) = WRONG.iter().partition(|(alert, ..)| *alert == "HoldfastPinned");
    play("1m", &others.into_iter().map(|of| case(of, 1, 120)).collect::<Vec<_>>());
    // Fires after a day.
    play("5m", &slow.into_iter().map(|of| case(of, 5, 25 * 60)).collect::<Vec<_>>());
}

/// One hub that leads, one that follows it, and this many agents.
const AGENTS: usize = 20;

/// The series of the outage: up to `down` all is well, up to `back` the apiserver is silent, `every` seconds a scrape.
fn outage(every: usize, down: usize, back: usize, end: usize) -> Vec<Value> {
    let samples = |seconds: usize| seconds / every;
    let steps = |well: &str, lost: &str| {
        let (before, during, after) = (samples(down), samples(back - down), samples(end - back));
        format!("{well}x{} {lost}x{} {well}x{}", before - 1, during - 1, after - 1)
    };
    let pod = |job: &str, pod: String, name: &str, values: String| {
        let target = format!("job=\"{job}\",pod=\"{pod}\",node=\"node-{pod}\",instance=\"{pod}:9253\"");
        json!({ "series": format!("{name}{{{target}}}"), "values": values })
    };
    let age = format!("4x{} 15+{every}x{} 4x{}", samples(down) - 1, samples(back - down) - 1, samples(end - back) - 1);
    let mut series = Vec::new();
    let hubs = (0..2).map(|n| ("holdfast-hub", format!("hub-{n}")));
    let agents = (0..AGENTS).map(|n| ("holdfast-agent", format!("agent-{n}")));
    for (job, name) in hubs.chain(agents) {
        series.push(pod(job, name.clone(), "up", steps("1", "1")));
        // A follower learns from its hub that the apiserver is lost, and the connection to the hub stands.
        series.push(pod(job, name.clone(), "holdfast_source_up", steps("1", "0")));
        series.push(pod(job, name.clone(), "holdfast_source_age_seconds", age.clone()));
        if job == "holdfast-agent" {
            series.push(pod(job, name, "holdfast_hub_connected", steps("1", "1")));
        } else {
            series.push(pod(job, name.clone(), "holdfast_source_latency_seconds", steps("0.02", "30")));
            series.push(pod(job, name.clone(), "holdfast_source_requests_per_minute", steps("60", "12")));
            series.push(pod(job, name.clone(), "holdfast_source_busy_per_minute", steps("0", "0")));
            series.push(pod(job, name, "holdfast_source_refused_per_minute", steps("0", "0")));
        }
    }
    series
}

/// The alerts that fire so many seconds after the apiserver went silent (before it: negative), pages first.
const PLAYED: [(i64, &[(&str, &str)]); 9] = [
    (-15, &[]),
    (0, &[]),
    (15, &[]),
    (120, &[("HoldfastSourceLost", "critical")]),
    (180, &[("HoldfastSourceLost", "critical"), ("HoldfastRecordsOld", "warning")]),
    (240, &[("HoldfastSourceLost", "critical"), ("HoldfastRecordsOld", "warning")]),
    (300, &[("HoldfastSourceLost", "critical"), ("HoldfastRecordsOld", "warning")]),
    (1_185, &[("HoldfastSourceLost", "critical"), ("HoldfastRecordsOld", "warning")]),
    // Back since a minute.
    (1_260, &[]),
];

#[test]
fn one_outage_is_one_page_within_two_minutes_and_the_right_one() {
    let (down, back, end) = (300, 1_500, 1_800);
    let tests: Vec<Value> = [15, 30]
        .into_iter()
        .map(|every| {
            let expressions: Vec<Value> = PLAYED
                .iter()
                .map(|(at, fires)| {
                    let samples: Vec<Value> = fires
                        .iter()
                        .map(|(alert, severity)| {
                            let labels = format!("{{alertname=\"{alert}\",severity=\"{severity}\"}}");
                            json!({ "labels": labels, "value": 1 })
                        })
                        .collect();
                    let expr = "count by (alertname, severity) (ALERTS{alertstate=\"firing\"})";
                    json!({ "expr": expr, "eval_time": format!("{}s", down + at), "exp_samples": samples })
                })
                .collect();
            json!({
                "name": format!("a scrape every {every} s"),
                "interval": format!("{every}s"),
                "input_series": outage(every, usize::try_from(down).unwrap(), back, end),
                "promql_expr_test": expressions,
            })
        })
        .collect();
    play("15s", &tests);
}

/// How a series goes on from the beginning of an incident.
#[derive(Clone, Copy)]
enum Goes {
    /// It has this value.
    Is(f64),
    /// It grows by this much a second.
    Grows(f64),
}
use Goes::{Grows, Is};

const ALL: &str = "holdfast-";
const HUBS: &str = "holdfast-hub";
const NODES: &str = "holdfast-agent";

/// Series of every pod of a job while all is well: job, name, labels besides the target's.
const FLEET: [(&str, &str, &str, Goes); 17] = [
    (ALL, "up", "", Is(1.0)),
    (ALL, "holdfast_source_up", "", Is(1.0)),
    (ALL, "holdfast_source_age_seconds", "", Is(4.0)),
    (ALL, "holdfast_guard_held", "kind=\"services\"", Is(0.0)),
    (ALL, "holdfast_guard_held", "kind=\"endpoints\"", Is(0.0)),
    (ALL, "holdfast_stream_refusing", "", Is(0.0)),
    (HUBS, "holdfast_source_latency_seconds", "", Is(0.02)),
    (HUBS, "holdfast_source_requests_per_minute", "", Is(60.0)),
    (HUBS, "holdfast_source_busy_per_minute", "", Is(0.0)),
    (HUBS, "holdfast_source_refused_per_minute", "", Is(0.0)),
    (NODES, "holdfast_hub_connected", "", Is(1.0)),
    (NODES, "holdfast_dns_responses_total", "rcode=\"NOERROR\"", Grows(100.0)),
    (NODES, "holdfast_dns_responses_total", "rcode=\"SERVFAIL\"", Grows(0.1)),
    (NODES, "holdfast_forward_queries_total", "proto=\"udp\"", Grows(10.0)),
    (NODES, "holdfast_forward_servfail_total", "", Grows(0.01)),
    (NODES, "holdfast_forward_failures_total", "kind=\"timeout\"", Grows(0.01)),
    (NODES, "holdfast_forward_down_total", "", Grows(0.0)),
];

/// An incident: how many of a job's pods it meets, and how their series go on; the alert that fires, how soon, in seconds, and
/// whether it is a page.
type Incident =
    (&'static str, &'static [(&'static str, usize, &'static str, &'static str, Goes)], &'static str, u64, bool);

const INCIDENTS: [Incident; 9] = [
    (
        "the apiserver is silent",
        &[
            (ALL, AGENTS, "holdfast_source_up", "", Is(0.0)),
            (ALL, AGENTS, "holdfast_source_age_seconds", "", Grows(1.0)),
            (HUBS, 2, "holdfast_source_latency_seconds", "", Is(30.0)),
            (HUBS, 2, "holdfast_source_requests_per_minute", "", Is(12.0)),
        ],
        "HoldfastSourceLost",
        120,
        true,
    ),
    (
        "one hub of two is cut off from the apiserver: it follows the other",
        &[(HUBS, 1, "holdfast_source_latency_seconds", "", Is(0.0))],
        "",
        0,
        false,
    ),
    (
        "every hub is gone",
        &[
            (HUBS, 2, "up", "", Is(0.0)),
            (NODES, AGENTS, "holdfast_source_up", "", Is(0.0)),
            (NODES, AGENTS, "holdfast_hub_connected", "", Is(0.0)),
            (NODES, AGENTS, "holdfast_source_age_seconds", "", Grows(1.0)),
        ],
        "HoldfastHubsMissing",
        120,
        true,
    ),
    (
        "a quarter of the agents reaches no hub",
        &[
            (NODES, AGENTS / 4, "holdfast_source_up", "", Is(0.0)),
            (NODES, AGENTS / 4, "holdfast_hub_connected", "", Is(0.0)),
            (NODES, AGENTS / 4, "holdfast_source_age_seconds", "", Grows(1.0)),
        ],
        "HoldfastAgentsWithoutHub",
        120,
        true,
    ),
    ("a quarter of the agents is gone", &[(NODES, AGENTS / 4, "up", "", Is(0.0))], "HoldfastAgentsMissing", 120, true),
    (
        "the list is empty",
        &[
            (ALL, AGENTS, "holdfast_guard_held", "kind=\"services\"", Is(3_000.0)),
            (ALL, AGENTS, "holdfast_guard_held", "kind=\"endpoints\"", Is(500.0)),
        ],
        "HoldfastGuardHolding",
        60,
        true,
    ),
    (
        "the upstreams do not answer",
        &[
            (NODES, AGENTS, "holdfast_dns_responses_total", "rcode=\"SERVFAIL\"", Grows(20.0)),
            (NODES, AGENTS, "holdfast_forward_servfail_total", "", Grows(20.0)),
            (NODES, AGENTS, "holdfast_forward_failures_total", "kind=\"timeout\"", Grows(30.0)),
        ],
        "HoldfastUpstreamsFailing",
        120,
        true,
    ),
    (
        "names of the cluster fail",
        &[(NODES, AGENTS, "holdfast_dns_responses_total", "rcode=\"SERVFAIL\"", Grows(20.0))],
        "HoldfastServfail",
        120,
        true,
    ),
    (
        "the apiserver is slow and refuses a third of all requests",
        &[
            (HUBS, 2, "holdfast_source_latency_seconds", "", Is(1.2)),
            (HUBS, 2, "holdfast_source_busy_per_minute", "", Is(18.0)),
        ],
        "HoldfastControlPlaneSlow",
        60,
        false,
    ),
];

/// The samples of one series: it goes on as in FLEET up to `down`, then as the incident has it. A pod that is gone has no samples.
fn samples(every: u64, (down, end): (u64, u64), (well, wrong): (Goes, Option<Goes>), gone: bool) -> String {
    let mut value = 0.0;
    let mut text = String::new();
    for at in (0..=end).step_by(usize::try_from(every).unwrap()) {
        if gone && at >= down {
            text.push_str(if at < down + every { "stale " } else { "_ " });
            continue;
        }
        value = match if at < down { well } else { wrong.unwrap_or(well) } {
            Is(is) => is,
            Grows(rate) => value + rate * f64::from(u32::try_from(every).unwrap()),
        };
        let _ = write!(text, "{value} ");
    }
    text
}

fn incident((name, broken, alert, within, page): &Incident, every: u64) -> Value {
    let (down, end) = (300, 600);
    let pods = [(HUBS, 2), (NODES, AGENTS)].into_iter().flat_map(|(job, many)| (0..many).map(move |n| (job, n)));
    let series: Vec<Value> = pods
        .flat_map(|(job, n)| {
            let met = move |name: &str, labels: &str| {
                let row =
                    broken.iter().find(|row| job.starts_with(row.0) && n < row.1 && (row.2, row.3) == (name, labels));
                row.map(|row| row.4)
            };
            let gone = matches!(met("up", ""), Some(Is(0.0)));
            FLEET.iter().filter(move |row| job.starts_with(row.0)).map(move |(_, name, labels, well)| {
                let target = format!("job=\"{job}\",pod=\"{job}-{n}\",node=\"node-{n}\",instance=\"{job}-{n}:9253\"");
                let values = samples(every, (down, end), (*well, met(name, labels)), gone && *name != "up");
                json!({ "series": format!("{name}{{{target},{labels}}}"), "values": values })
            })
        })
        .collect();
    let firing = |matcher: &str| format!("count by (alertname) (ALERTS{{alertstate=\"firing\",{matcher}}})");
    let mut expressions = Vec::new();
    for at in (0..=300).step_by(60) {
        let others = firing(&format!("severity=\"critical\",alertname!=\"{}\"", if *page { alert } else { "" }));
        let at = down + at;
        expressions.push(json!({ "expr": others, "eval_time": format!("{at}s"), "exp_samples": [] }));
        if !alert.is_empty() && at >= down + within {
            let samples = json!([{ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }]);
            let this = firing(&format!("alertname=\"{alert}\""));
            expressions.push(json!({ "expr": this, "eval_time": format!("{at}s"), "exp_samples": samples }));
        }
    }
    json!({
        "name": format!("{name}, a scrape every {every} s"),
        "interval": format!("{every}s"),
        "input_series": series,
        "promql_expr_test": expressions,
    })
}

#[test]
fn every_incident_is_one_page_at_most_and_the_right_one() {
    let tests: Vec<Value> = INCIDENTS.iter().flat_map(|of| [15, 30].map(|every| incident(of, every))).collect();
    play("15s", &tests);
}

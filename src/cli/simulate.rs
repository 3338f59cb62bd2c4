//! `holdfast simulate`: the load of thousands of agents on a hub, and of clients on a DNS server.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::{Exit, Failed, Output, print};
use crate::simulate::{self, Options, Report, queries};

/// What can be simulated.
#[derive(Debug, Subcommand)]
pub enum Simulate {
    /// Connect N agents to hubs; each verifies its records. Exit code 1 if one is not in sync at the end, or differs
    Agents(Agents),
    /// Send queries at a steady rate and count those that are lost, fail or get no record. Exit code 1 if there are any
    Queries(Queries),
}

/// Arguments of `holdfast simulate queries`.
#[derive(Debug, clap::Args)]
pub struct Queries {
    /// The server to ask
    #[arg(long, value_name = "IP:PORT")]
    server: std::net::SocketAddr,
    /// The name to ask for
    #[arg(long, value_name = "NAME", default_value = "kubernetes.default.svc.cluster.local")]
    name: String,
    /// Transport of the queries; tls, https and quic need --ca or --insecure
    #[arg(long, value_name = "PROTOCOL", default_value = "udp")]
    proto: Proto,
    /// Queries per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    qps: u32,
    /// Number of connections, each with one query at a time; not for udp
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Open a new connection, with a full handshake, for each query
    #[arg(long)]
    new_connections: bool,
    /// PEM file with the CA that signed the server's certificate
    #[cfg(feature = "encrypted")]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// The name in the server's certificate (default: the address in --server)
    #[cfg(feature = "encrypted")]
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// Accept any certificate
    #[cfg(feature = "encrypted")]
    #[arg(long)]
    insecure: bool,
    /// Additional TCP connections, each with five queries per second
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tcp: u32,
    /// Duration of the test; ^C ends it
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Time after which a query without an answer counts as lost
    #[arg(long, value_name = "S", default_value_t = 5)]
    timeout: u64,
    /// Output format
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// The transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Proto {
    Udp,
    Tcp,
    #[cfg(feature = "encrypted")]
    Tls,
    #[cfg(feature = "encrypted")]
    Https,
    #[cfg(feature = "encrypted")]
    Quic,
}

/// Arguments of `holdfast simulate agents`.
#[derive(Debug, clap::Args)]
pub struct Agents {
    /// A hub to follow; may be repeated, the agents are spread
    #[arg(long, value_name = "HOST:PORT", required = true)]
    hub: Vec<String>,
    /// Directory with an agent's ca.crt, tls.crt and tls.key, or `insecure` for a hub on loopback without TLS
    #[arg(long, value_name = "DIR")]
    tls: PathBuf,
    /// Number of agents; each takes a file descriptor here and one at the hub
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// How long to watch after all are in sync; ^C ends it
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// Output format
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(super) fn run(simulate: &Simulate) -> anyhow::Result<Exit> {
    let args = match simulate {
        Simulate::Agents(args) => args,
        Simulate::Queries(args) => return queries(args),
    };
    let count = usize::try_from(args.count)?;
    let options = Options {
        hubs: args.hub.clone(),
        tls: (args.tls.as_os_str() != "insecure").then(|| args.tls.clone()),
        count,
        // As after a restart of the hub, which asks for this many a second.
        ramp: Duration::from_millis(u64::from(args.count) * 2 / 3),
        watch: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(120),
    };
    let bar = ProgressBar::new(u64::from(args.count)).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} in sync  {elapsed}  {msg}").context("progress bar")?,
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(simulate::run(&options, interrupted(), |progress| {
        bar.set_position(progress.live as u64);
        let failed =
            progress.failed.as_ref().map(|(count, reason)| format!(", {count} failed: {}", reason.escape_debug()));
        let (received, batches) = (HumanBytes(progress.bytes), progress.batches);
        bar.set_message(format!("{received} received, {batches} batches{}", failed.unwrap_or_default()));
    }))?;
    bar.finish_and_clear();
    match args.output {
        Output::Table => print(table(&report))?,
        Output::Json => print(format!("{}\n", serde_json::to_string(&report)?))?,
    }
    let equal = report.live == report.agents && report.divergent == 0 && report.mismatches == 0;
    Ok(if equal { Exit::Ok } else { Exit::No })
}

/// Resolves on ^C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn queries(args: &Queries) -> anyhow::Result<Exit> {
    let transport = transport(args).map_err(Failed::Usage)?;
    let options = queries::Options {
        server: args.server,
        name: args.name.clone(),
        transport,
        qps: args.qps,
        connections: args.connections,
        new_connections: args.new_connections,
        tcp: args.tcp,
        tcp_every: Duration::from_millis(200),
        watch: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(args.timeout),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(queries::run(&options, interrupted()))?;
    match args.output {
        Output::Table => print(queries_table(&report))?,
        Output::Json => print(format!("{}\n", serde_json::to_string(&report)?))?,
    }
    let bad = |kind: &queries::Kind| kind.lost + kind.failed + kind.wrong;
    Ok(if report.kinds().iter().all(|(_, kind)| bad(kind) == 0) { Exit::Ok } else { Exit::No })
}

#[cfg(not(feature = "encrypted"))]
#[expect(clippy::unnecessary_wraps, reason = "other transports may lack a certificate")]
fn transport(args: &Queries) -> Result<queries::Transport, String> {
    match args.proto {
        Proto::Udp => Ok(queries::Transport::Udp),
        Proto::Tcp => Ok(queries::Transport::Tcp),
    }
}

#[cfg(feature = "encrypted")]
fn transport(args: &Queries) -> Result<queries::Transport, String> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use simulate::encrypted::{Protocol, Trust};
    let protocol = match args.proto {
        Proto::Udp => return Ok(queries::Transport::Udp),
        Proto::Tcp => return Ok(queries::Transport::Tcp),
        Proto::Tls => Protocol::Tls,
        Proto::Https => Protocol::Https,
        Proto::Quic => Protocol::Quic,
    };
    let Some(path) = &args.ca else {
        return if args.insecure {
            Ok(queries::Transport::Encrypted(protocol, Trust::Any))
        } else {
            Err("--proto tls, https and quic take --ca FILE to check the server's certificate, or --insecure".into())
        };
    };
    let wrong = |error: &dyn std::fmt::Display| format!("--ca {}: {error}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    let name = match &args.server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|error| format!("--server-name {name}: {error}"))?,
        None => ServerName::IpAddress(args.server.ip().into()),
    };
    Ok(queries::Transport::Encrypted(protocol, Trust::Authority { roots: roots.into(), name }))
}

/// A line for each transport that was asked over, and its errors below it.
fn queries_table(report: &queries::Report) -> String {
    let mut text = String::new();
    for (name, kind) in report.kinds().into_iter().filter(|(_, kind)| kind.asked > 0) {
        let rcodes: Vec<String> = kind.rcodes.iter().map(|(rcode, count)| format!("{count} {rcode}")).collect();
        let _ = write!(
            text,
            "{name}  sent {}, good {}, lost {}, failed {}, wrong {} ({}), sent again {}, longest gap {} ms, slowest {} ms",
            kind.asked,
            kind.good,
            kind.lost,
            kind.failed,
            kind.wrong,
            if rcodes.is_empty() { "no answer".into() } else { rcodes.join(", ") },
            kind.asked_again,
            kind.longest_gap_ms,
            kind.slowest_ms
        );
        if kind.connections > 0 {
            let _ = write!(text, ", connections {}", kind.connections);
        }
        text.push('\n');
        for (error, count) in &kind.errors {
            let _ = writeln!(text, "     {count} times: {}", error.escape_debug());
        }
    }
    text
}

fn table(report: &Report) -> String {
    let each = |bytes: u64| bytes / (report.agents as u64).max(1);
    let propagation = &report.propagation_ms;
    let mut rows = vec![
        ("agents in sync", format!("{} of {}", report.live, report.agents)),
        ("all in sync after", report.all_live_ms.map_or("never".into(), |ms| format!("{ms} ms"))),
        ("watched", format!("{:.1} s", report.seconds)),
        ("connections", report.connects.to_string()),
        ("received per agent", format!("{} bytes", each(report.bytes_received))),
        ("sent per agent", format!("{} bytes", each(report.bytes_sent))),
        ("batches per agent", each(report.batches).to_string()),
        ("propagation", format!("p50 {} ms, p99 {} ms, max {} ms", propagation.p50, propagation.p99, propagation.max)),
        ("digest mismatches", report.mismatches.to_string()),
        ("records differ", report.divergent.to_string()),
    ];
    rows.extend(report.modes.iter().map(|(mode, count)| (*mode, count.to_string())));
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<20}{value}");
    }
    for (reason, count) in &report.failures {
        let _ = writeln!(text, "{:<20}{count} times: {}", "failed", reason.escape_debug());
    }
    text
}

//! The hub's process: a store that is told what to hold, under the real server.

use std::{
    io::{BufRead as _, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use holdfast::{
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey},
    store::{self, Origin, Update, Writer},
    stream,
    sys::Clock,
    tls::{self, Tls},
};

const SERVICES: u32 = 10_000;
/// Of the services; each has ten endpoints.
const HEADLESS: u32 = 1_000;

pub fn main(certificates: &Path, listen: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut writer, reader) = store::open();
    let registry = prometheus::Registry::new();
    let tls = Tls::open(certificates.to_owned(), Clock::System, Arc::new(|| None), tls::Metrics::register(&registry)?)?;
    let config = stream::Config { listen: vec![listen.parse()?], node: "hub".into(), ..stream::Config::default() };
    let parts = stream::Parts {
        reader,
        clock: Clock::System,
        metrics: stream::Metrics::register(&registry)?,
        tls: Some(tls),
        surroundings: tokio::sync::watch::channel(stream::Surroundings::default()).1,
    };
    let bound = runtime.block_on(async { stream::bind(config, true) })?;
    let address = bound.addresses()[0];
    runtime.spawn(bound.serve(parts, tokio_util::sync::CancellationToken::new()));
    say(&address.to_string())?;
    for order in std::io::stdin().lock().lines() {
        obey(&order?, &mut writer)?;
        let root = writer.reader().load().root();
        say(&root.to_string())?;
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn obey(order: &str, writer: &mut Writer) -> anyhow::Result<()> {
    let words: Vec<&str> = order.split(' ').collect();
    let now = Clock::System.now();
    let origin = |new_epoch| Origin::Watched { cluster: "bench".into(), new_epoch };
    // What a restarted hub finds on its disk: the records of the burst.
    let moved = |from: u32, count: u32, salt: u32| (from..from + count).map(move |n| cluster_ip(n, salt));
    match words[..] {
        ["list"] => {
            let records = cluster().collect();
            writer.apply(Update::Reset { origin: origin(false), records, as_of: now })?;
        }
        ["list-again"] => {
            let records: store::Records = cluster().chain(moved(0, 1_000, 2)).collect();
            restore(writer, records)?;
        }
        ["list-changed"] => {
            let records: store::Records = cluster().chain(moved(0, 1_000, 2)).chain(moved(2_000, 100, 3)).collect();
            restore(writer, records)?;
        }
        ["change", count, salt] => {
            let changes = moved(5_000, count.parse()?, salt.parse::<u32>()? + 10).collect();
            writer.apply(Update::Changes { origin: origin(false), changes, as_of: now })?;
        }
        ["burst", count] => {
            let count: u32 = count.parse()?;
            // What the single changes before it changed is put back, so that a restart can list it.
            let back = vec![cluster_ip(5_000, 1)];
            writer.apply(Update::Changes { origin: origin(false), changes: back, as_of: now })?;
            for n in 0..count {
                let changes = moved(n, 1, 2).collect();
                writer.apply(Update::Changes { origin: origin(false), changes, as_of: now })?;
                std::thread::sleep(Duration::from_secs(1) / count);
            }
        }
        _ => anyhow::bail!("what is {order:?}"),
    }
    Ok(())
}

/// As after a restart: a new epoch, later than all before.
fn restore(writer: &mut Writer, records: store::Records) -> anyhow::Result<()> {
    let epoch = Clock::System.now().0;
    let version = holdfast::record::Version { cluster: "bench".into(), epoch, rev: 1 };
    writer.apply(Update::Reset { origin: Origin::Stamped(version), records, as_of: Clock::System.now() })?;
    Ok(())
}

fn cluster() -> impl Iterator<Item = Change> {
    (0..SERVICES - HEADLESS).map(|n| cluster_ip(n, 1)).chain((0..HEADLESS).map(headless))
}

fn name(n: u32) -> ServiceKey {
    // As clusters have it: some dozens of namespaces, names of a few words and a number.
    let words = ["frontend", "checkout", "payments-api", "user-profile", "recommendation", "cache", "search-indexer"];
    let word = words[n as usize % words.len()];
    ServiceKey::new(&format!("team-{}", n % 97), &format!("{word}-{n}"))
}

fn port(name: &str, port: u16) -> Port {
    Port { name: name.into(), protocol: Protocol::Tcp, port }
}

fn cluster_ip(n: u32, salt: u32) -> Change {
    // Addresses are handed out at random in a real cluster.
    let random = n.wrapping_mul(2_654_435_761).wrapping_add(salt) % (1 << 20);
    let kind = Kind::ClusterIp([std::net::IpAddr::from((0x0a60_0000 + random).to_be_bytes())].into());
    let ports = vec![port("http", 80), port("metrics", 9_090)];
    Change::Put(Arc::new(Service::new(name(n), kind, ports, vec![])))
}

fn headless(n: u32) -> Change {
    let ports: Arc<[Port]> = [port("client", 5_432)].into();
    let endpoints = (0..10)
        .map(|k| Endpoint {
            ip: std::net::IpAddr::from(
                (0x0af4_0000 + (n * 10 + k).wrapping_mul(2_654_435_761) % (1 << 18)).to_be_bytes(),
            ),
            hostname: (k < 3).then(|| format!("db-{k}").into()),
            ports: Arc::clone(&ports),
            ready: true,
        })
        .collect();
    let key = ServiceKey::new(&format!("team-{}", n % 97), &format!("db-{n}"));
    Change::Put(Arc::new(Service::new(key, Kind::Headless, vec![port("client", 5_432)], endpoints)))
}

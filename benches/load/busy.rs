//! A holdfast whose records change a thousand times a second and whose cache is saved over and over, while a file says so.
//!
//! The parts are those of an agent and are wired as there: a store that the disk follows, a cache of the default size that
//! is full, the listeners. Only the source is this bench, so that what is measured is what changes cost, whoever sends them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use holdfast::{
    dns::{self, AnswerConfig, Context, cache, forward},
    record::{Change, Endpoint, Kind, Service, ServiceKey},
    store::{self, Origin, What, disk},
    sys::Clock,
    zone::{self, Zone},
};
use prometheus::Registry;

use crate::traffic::Cluster;

/// As long as it is there, records change and the cache is saved.
pub const FLAG: &str = "busy";
/// Changes a second.
const CHANGES: u32 = 1_000;
/// How soon the flag is seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Said once the cache file has been read.
pub const CACHE_LOADED: &str = "cache loaded";

pub fn run(address: SocketAddr, home: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (registry, clock) = (Registry::new(), Clock::System);
    let (mut writer, reader) = store::open();
    let metrics = disk::Metrics::register(&registry, &clock).unwrap();
    let (disk, _) =
        disk::open(&disk::Config { path: home.join("store"), ..disk::Config::default() }, &clock, &metrics).unwrap();
    let _follower = disk.follow(&reader).unwrap();
    let cluster = Cluster::new();
    let records = records(&cluster).into_iter().collect();
    writer.apply(What::Reset { origin: origin(), records, as_of: clock.now() }).unwrap();

    let bound = dns::bind(dns::Config { listen: vec![address], ..dns::Config::default() }).unwrap();
    let context = Arc::new(Context::new(Zone::new(&zone::Config::default()), reader, AnswerConfig::default()));
    let cache_metrics = cache::Metrics::register(&registry).unwrap();
    let surroundings = forward::Environment {
        clock: clock.clone(),
        metrics: forward::Metrics::register(&registry).unwrap(),
        cache_metrics: cache_metrics.clone(),
        cache_file: Some(home.join("cache.zst")),
        resolv_conf_cache: forward::ResolvConfCache::default(),
        listen: vec![address],
        records: Arc::clone(&context),
    };
    let forwarder =
        forward::Forwarder::new(&forward::Config::default(), cache::Config::default(), surroundings).unwrap();
    let metrics = dns::Metrics::register(&registry).unwrap();
    let _running = bound.serve(context, Arc::new(forwarder.clone()), clock.clone(), metrics);

    let upkeep = forwarder.clone();
    runtime.spawn(async move { upkeep.run().await });
    while cache_metrics.entries.get() == 0 {
        thread::sleep(LOOK_EVERY);
    }
    println!("{CACHE_LOADED}");

    let flag = home.join(FLAG);
    let saved = flag.clone();
    runtime.spawn(async move {
        loop {
            if saved.exists() {
                forwarder.save_at_leisure().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    // Made beforehand: the server is not charged for what its source does.
    let changes: Vec<Change> = (0..2 * cluster.headless.len()).map(|nth| change(&cluster, nth)).collect();
    let mut changes = changes.iter().cycle().cloned();
    loop {
        if !flag.exists() {
            thread::sleep(LOOK_EVERY);
            continue;
        }
        let begun = Instant::now();
        // A hundred milliseconds' worth, then another look.
        for nth in 0..CHANGES / 10 {
            let changes = changes.next().into_iter().collect();
            writer.apply(What::Changes { origin: origin(), changes, as_of: clock.now() }).unwrap();
            thread::sleep(
                (begun + Duration::from_secs(1) / CHANGES * (nth + 1)).saturating_duration_since(Instant::now()),
            );
        }
    }
}

fn origin() -> Origin {
    Origin::Watched { cluster: "load".into(), new_epoch: false }
}

fn records(cluster: &Cluster) -> Vec<Change> {
    let services =
        cluster.services.iter().map(|(name, ip)| put(name, Kind::ClusterIp([ip.parse().unwrap()].into()), Vec::new()));
    let headless = cluster
        .headless
        .iter()
        .map(|(name, ips)| put(name, Kind::Headless, ips.iter().map(|ip| endpoint(ip, true)).collect()));
    services.chain(headless).collect()
}

/// The next change: the second endpoint of a headless service goes or comes back.
fn change(cluster: &Cluster, nth: usize) -> Change {
    let (name, ips) = &cluster.headless[nth % cluster.headless.len()];
    let there = nth / cluster.headless.len() % 2 == 1;
    let endpoints = ips.iter().enumerate().map(|(place, ip)| endpoint(ip, place != 1 || there)).collect();
    put(name, Kind::Headless, endpoints)
}

fn put(name: &str, kind: Kind, endpoints: Vec<Endpoint>) -> Change {
    let (name, namespace) = name.split_once('.').unwrap();
    Change::Put(Arc::new(Service::new(ServiceKey::new(namespace, name), kind, Vec::new(), endpoints)))
}

fn endpoint(ip: &str, ready: bool) -> Endpoint {
    Endpoint { ip: ip.parse().unwrap(), hostname: None, ports: [].into(), ready }
}

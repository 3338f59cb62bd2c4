//! The store: one change among many services, and a restart from disk. `benches/README.md` says how to read it.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use holdfast::{
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey, Snapshot, Version},
    store::{
        self, Origin, What,
        disk::{self, Config},
    },
    sys::{Clock, UnixMillis},
};

fn port(name: &str, port: u16) -> Port {
    Port { name: name.into(), protocol: Protocol::Tcp, port }
}

fn ip(net: u8, n: usize) -> std::net::IpAddr {
    let [_, a, b, c] = u32::try_from(n).expect("fewer addresses than there are").to_be_bytes();
    [net, a, b, c].into()
}

/// Service `n`, with `endpoints` headless endpoints or with a cluster IP; `web` is a port that can be changed.
fn service(n: usize, endpoints: usize, web: u16) -> Arc<Service> {
    let key = ServiceKey::new(&format!("team-{:03}", n % 200), &format!("checkout-service-{n:05}"));
    if endpoints == 0 {
        let kind = Kind::ClusterIp([ip(10, n)].into());
        return Arc::new(Service::new(key, kind, vec![port("http", web), port("metrics", 9090)], vec![]));
    }
    let ports: Arc<[Port]> = [port("pg", web)].into();
    let endpoints = (0..endpoints).map(|i| Endpoint {
        ip: ip(11, n * 100 + i),
        hostname: Some(format!("checkout-service-{n:05}-{i}").into()),
        ports: Arc::clone(&ports),
        ready: true,
    });
    Arc::new(Service::new(key, Kind::Headless, vec![port("pg", web)], endpoints.collect()))
}

/// A tenth of the services are headless with 10 endpoints each, so there are as many endpoints as services.
fn cluster(services: usize) -> impl Iterator<Item = Change> {
    (0..services).map(|n| Change::Put(service(n, if n % 10 == 0 { 10 } else { 0 }, 80)))
}

fn snapshot(services: usize) -> Snapshot {
    Snapshot::default().apply(cluster(services), Version { cluster: "bench".into(), epoch: 1, rev: 1 })
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply one change among");
    for total in [1_000, 10_000, 100_000] {
        let before = snapshot(total);
        for (kind, endpoints, n) in [("cluster ip", 0, 501), ("headless of 10", 10, 500)] {
            let changes = [service(n, endpoints, 81), service(n, endpoints, 82)];
            let version = before.version().clone();
            let mut held = before.clone();
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(kind, total), |b| {
                b.iter(|| {
                    turn ^= 1;
                    let change = Change::Put(Arc::clone(&changes[turn]));
                    held = black_box(&held).apply([change], version.clone());
                });
            });
        }
    }
    group.finish();
}

fn config(directory: &Path) -> Config {
    Config { path: directory.to_owned(), ..Config::default() }
}

fn metrics() -> disk::Metrics {
    disk::Metrics::register(&prometheus::Registry::new(), &Clock::System).expect("a new registry")
}

fn reset(services: usize) -> What {
    What::Reset {
        origin: Origin::Watched { cluster: "bench".into(), new_epoch: false },
        records: cluster(services).collect(),
        as_of: UnixMillis(1),
    }
}

fn from_disk(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let within = Duration::from_secs(60);
    let mut group = c.benchmark_group("disk");
    group.sample_size(20);
    for services in [1_000, 10_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, reader) = store::open();
        writer.apply(reset(services)).expect("a first list");
        let (disk, _) = disk::open(&config(directory.path()), &Clock::System, &metrics()).expect("an empty store");
        let follower = disk.follow(&reader).expect("a thread");
        runtime.block_on(follower.flush(within)).expect("a disk that works");
        group.bench_function(BenchmarkId::new("load, verified, after a kill", services), |b| {
            b.iter(|| disk::read(directory.path()).expect("a whole store"));
        });
        let mut turn = 80;
        group.bench_function(BenchmarkId::new("commit of one change", services), |b| {
            b.iter_batched(
                || {
                    turn = 80 + (turn + 1) % 2;
                    let changes = vec![Change::Put(service(501, 0, turn))];
                    let origin = Origin::Watched { cluster: "bench".into(), new_epoch: false };
                    writer.apply(What::Changes { origin, changes, as_of: UnixMillis(2) }).expect("a change");
                },
                |()| runtime.block_on(follower.flush(within)).expect("a disk that works"),
                BatchSize::PerIteration,
            );
        });
        runtime.block_on(follower.release(within)).expect("a disk that works");
        let bytes = disk::read(directory.path()).expect("a whole store").bytes;
        println!("{services} services and as many endpoints take {bytes} bytes on disk");
        group.bench_function(BenchmarkId::new("load, verified", services), |b| {
            b.iter(|| disk::read(directory.path()).expect("a whole store"));
        });
    }
    group.finish();
}

criterion_group!(benches, apply, from_disk);
criterion_main!(benches);

//! The disk in every state it may be met in.

mod damage;
mod faults;
mod following;
mod reading;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub(super) use self::faults::{Faults, FaultyFile};
use super::{Config, Disk, Follower, Loaded, Metrics, OpenError, open};
use crate::{
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey, Snapshot},
    store::{self, Origin, Reader, What, Writer},
    sys::{Clock, ManualClock, UnixMillis},
};

const LONG: Duration = Duration::from_secs(20);

fn clock() -> Clock {
    Clock::Manual(ManualClock::new(UnixMillis(1_733_941_800_250)))
}

fn config(path: &Path) -> Config {
    Config { path: path.to_owned(), admin: Some("/run/agent.sock".into()), ..Config::default() }
}

fn metrics() -> Metrics {
    Metrics::register(&prometheus::Registry::new(), &clock()).unwrap()
}

fn try_open(config: &Config) -> Result<(Disk, Option<Loaded>), OpenError> {
    open(config, &clock(), &metrics())
}

/// A service that differs with `n` and with `rev`.
fn service(n: u64, rev: u64) -> Change {
    let port = |port| Port { name: "pg".into(), protocol: Protocol::Tcp, port };
    let key = ServiceKey::new(&format!("ns-{}", n % 7), &format!("svc-{n}"));
    let address = |a: u8| [10, a, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()];
    let service = if n.is_multiple_of(3) {
        let endpoints = (0..3_u8)
            .map(|i| Endpoint {
                ip: address(i).into(),
                hostname: Some(format!("db-{i}").into()),
                ports: [port(5432)].into(),
                ready: rev.is_multiple_of(2),
            })
            .collect();
        Service::new(key, Kind::Headless, vec![], endpoints)
    } else {
        let port = port(u16::try_from(rev % 60_000).unwrap() + 1);
        Service::new(key, Kind::ClusterIp([address(96).into()].into()), vec![port], vec![])
    };
    Change::Put(Arc::new(service))
}

/// The complete list of state `rev`: `count` services in 7 namespaces.
fn list(count: u64, rev: u64) -> What {
    let namespaces = (0..8).map(|n| Change::PutNamespace(format!("ns-{n}").into()));
    What::Reset {
        origin: Origin::Watched { cluster: "uid".into(), new_epoch: false },
        records: namespaces.chain((0..count).map(|n| service(n, rev))).collect(),
        as_of: UnixMillis(rev * 1_000),
    }
}

/// A store in memory that holds state `rev`.
fn memory(count: u64, rev: u64) -> (Writer, Reader) {
    let (mut writer, reader) = store::open();
    writer.apply(list(count, rev)).unwrap();
    (writer, reader)
}

/// A disk that follows `reader` from whatever is in `path`.
fn follow(config: &Config, reader: &Reader) -> Follower {
    try_open(config).unwrap().0.follow(reader).unwrap()
}

/// The bytes of a store of `count` services that was closed cleanly.
async fn stored_bytes(count: u64) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (_writer, reader) = memory(count, 1);
    follow(&config(directory.path()), &reader).release(LONG).await.unwrap();
    std::fs::read(directory.path().join("records-1.redb")).unwrap()
}

/// Puts a records file into a new directory.
fn directory_with(bytes: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("records-1.redb"), bytes).unwrap();
    directory
}

fn assert_same(loaded: &Snapshot, expected: &Snapshot) {
    assert_eq!(loaded.version(), expected.version());
    assert_eq!(loaded.root(), expected.root());
    assert_eq!(loaded.counts(), expected.counts());
}

/// Keeps panics that are expected from filling the output: redb's, over files damaged on purpose.
fn quiet_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_none_or(|at| !at.file().contains("redb")) {
                before(info);
            }
        }));
    });
}

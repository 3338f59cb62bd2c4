//! A synthetic cluster of any size, and a store on disk that holds it.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use holdfast::{
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey},
    store::{self, Origin, What, disk},
    sys::Clock,
};
use prometheus::Registry;

const PER_NAMESPACE: u32 = 100;
/// Endpoints of one headless service.
const PER_HEADLESS: u32 = 10;

fn key(number: u32) -> ServiceKey {
    ServiceKey::new(&format!("team-{:03}", number / PER_NAMESPACE), &format!("service-{number:05}"))
}

/// Namespace and name of a service of [`records`].
pub fn parts(number: u32) -> (String, String) {
    let key = key(number);
    (key.namespace().to_owned(), key.name().to_owned())
}

/// The address of a ClusterIP service of [`records`].
pub fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 10)) + number)
}

/// The name of a service of [`records`].
pub fn name(number: u32) -> String {
    let (namespace, name) = parts(number);
    format!("{name}.{namespace}.svc.cluster.local.")
}

/// `services` services, the first of which are headless until these have `endpoints` endpoints between them; the others
/// have a cluster IP.
pub fn records(services: u32, endpoints: u32) -> Vec<Change> {
    records_of(services, endpoints / PER_HEADLESS, PER_HEADLESS)
}

/// `services` services, the first `headless` of which have so many endpoints each.
pub fn records_of(services: u32, headless: u32, endpoints: u32) -> Vec<Change> {
    let http = Port { name: "http".into(), protocol: Protocol::Tcp, port: 8080 };
    (0..services)
        .map(|number| {
            let service = if number < headless {
                let ports: Arc<[Port]> = [http.clone()].into();
                let endpoint = |index: u32| Endpoint {
                    ip: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + number * endpoints + index).into(),
                    hostname: Some(format!("pod-{index}").into()),
                    ports: Arc::clone(&ports),
                    ready: true,
                };
                let endpoints = (0..endpoints).map(endpoint).collect();
                Service::new(key(number), Kind::Headless, vec![http.clone()], endpoints)
            } else {
                let kind = Kind::ClusterIp([cluster_ip(number).into()].into());
                Service::new(key(number), kind, vec![http.clone()], vec![])
            };
            Change::Put(Arc::new(service))
        })
        .collect()
}

/// Puts these records into a new store in this directory.
pub async fn store_with(directory: &Path, records: Vec<Change>) {
    let clock = Clock::System;
    let metrics = disk::Metrics::register(&Registry::new(), &clock).expect("a fresh registry");
    let config = disk::Config { path: directory.to_owned(), ..disk::Config::default() };
    let (disk, _) = disk::open(&config, &clock, &metrics).expect("a new store");
    let (mut writer, reader) = store::open();
    let follower = disk.follow(&reader).expect("a thread");
    let origin = Origin::Watched { cluster: "synthetic".into(), new_epoch: false };
    let records = records.into_iter().collect();
    writer.apply(What::Reset { origin, records, as_of: clock.now() }).expect("a first list");
    follower.release(Duration::from_secs(60)).await.expect("a store that was written");
}

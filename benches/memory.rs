//! What the records take: exactly, by the allocator, and as the system sees a running agent. See docs/performance.md.

#![expect(clippy::unwrap_used, reason = "shared with the tests")]

#[path = "../tests/it/support/apiserver/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[expect(unused_imports, reason = "shared with the tests, which use more of it")]
mod apiserver;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/process.rs"]
mod process;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/synthetic.rs"]
mod synthetic;

use std::{net::Ipv4Addr, path::Path};

use allocation_counter::measure;
use apiserver::Apiserver;
use holdfast::{
    record::Change,
    store::{self, Origin, What},
    sys::UnixMillis,
};
use process::Agent;
use serde_json::json;

const MIB: f64 = 1024.0 * 1024.0;

/// A cluster: services, how many of them are headless, endpoints of each of these.
struct Size {
    services: u32,
    headless: u32,
    endpoints: u32,
    resident_mib_max: u32,
}

const SIZES: [Size; 2] = [
    Size { services: 10_000, headless: 1_000, endpoints: 10, resident_mib_max: 40 },
    Size { services: 10_000, headless: 10_000, endpoints: 15, resident_mib_max: 120 },
];

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for size in SIZES {
        println!(
            "{} services, {} of them headless with {} endpoints each: at most {} MiB resident",
            size.services, size.headless, size.endpoints, size.resident_mib_max
        );
        by_the_allocator(&size);
        runtime.block_on(from_disk(&size));
        runtime.block_on(from_an_apiserver(&size));
    }
}

fn records(size: &Size) -> Vec<Change> {
    synthetic::records_of(size.services, size.headless, size.endpoints)
}

fn reset(records: Vec<Change>) -> What {
    let origin = Origin::Watched { cluster: "memory".into(), new_epoch: false };
    What::Reset { origin, records: records.into_iter().collect(), as_of: UnixMillis(1) }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: impl TryInto<i64>) -> f64 {
    bytes.try_into().unwrap_or(i64::MAX) as f64 / MIB
}

/// The records alone; and what an update takes beyond what is held before it.
fn by_the_allocator(size: &Size) {
    let (mut writer, _reader) = store::open();
    let listed = measure(|| {
        writer.apply(reset(records(size))).expect("a first list");
    });
    println!(
        "  allocated   held {:6.1} MiB, while the first list came {:6.1} MiB",
        mib(listed.bytes_current),
        mib(listed.bytes_max)
    );
    let again = measure(|| {
        writer.apply(reset(records(size))).expect("an equal list");
    });
    println!(
        "              an equal list again: {:+.1} MiB meanwhile, {:+.1} MiB after",
        mib(again.bytes_max),
        mib(again.bytes_current)
    );
    let first = records(size).swap_remove(0);
    let Change::Put(service) = &first else { unreachable!("services only") };
    let without_ports = holdfast::record::Service::new(
        service.key().clone(),
        service.kind().clone(),
        Vec::new(),
        service.endpoints().to_vec(),
    );
    let origin = Origin::Watched { cluster: "memory".into(), new_epoch: false };
    let changes = vec![Change::Put(std::sync::Arc::new(without_ports))];
    let update = What::Changes { origin, changes, as_of: UnixMillis(2) };
    let touched = measure(|| {
        writer.apply(update).expect("a change");
    });
    println!(
        "              one change: {} bytes meanwhile, {:+} bytes after",
        touched.bytes_max, touched.bytes_current
    );
}

fn show(what: &str, agent: &Agent) {
    println!(
        "  resident    {what}: {:6.1} MiB, {:6.1} MiB at most",
        mib(agent.resident_bytes()),
        mib(agent.resident_bytes_most())
    );
}

async fn from_disk(size: &Size) {
    let home = tempfile::tempdir().expect("a folder");
    synthetic::store_with(&home.path().join("store"), records(size)).await;
    let agent = Agent::start(home.path(), &["--manifests", "/nonexistent/cluster.yaml"]);
    show("loaded from disk     ", &agent);
    agent.kill();
}

async fn from_an_apiserver(size: &Size) {
    let home = tempfile::tempdir().expect("a folder");
    let server = Apiserver::start().await;
    fill(&server, size);
    let kubeconfig = server.kubeconfig(home.path());
    let kubeconfig = kubeconfig.to_str().expect("a path").to_owned();
    let start = |home: &Path| Agent::start(home, &["--kubeconfig", &kubeconfig]);
    let mut agent = tokio::task::block_in_place(|| start(home.path()));
    tokio::task::block_in_place(|| agent.wait_for("records complete"));
    show("listed               ", &agent);
    // The history is gone: the agent has to list everything again.
    server.compact();
    server.end_watches(None);
    tokio::task::block_in_place(|| agent.wait_for_nth("records complete", 2));
    show("listed a second time ", &agent);
    agent.kill();
}

fn fill(server: &Apiserver, size: &Size) {
    for number in 0..size.services {
        let (namespace, name) = synthetic::parts(number);
        if number >= size.headless {
            server.put(apiserver::service(&namespace, &name, &synthetic::cluster_ip(number).to_string()));
            continue;
        }
        server.put(apiserver::headless(&namespace, &name));
        let ips: Vec<String> = (0..size.endpoints)
            .map(|nth| {
                Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + number * size.endpoints + nth).to_string()
            })
            .collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        let mut slice = apiserver::endpoints(&namespace, &format!("{name}-x7k2p"), &name, true, &ips);
        for (nth, endpoint) in slice["endpoints"].as_array_mut().expect("a list").iter_mut().enumerate() {
            endpoint["hostname"] = json!(format!("pod-{nth}"));
            endpoint["targetRef"] = json!({"kind": "Pod", "name": format!("{name}-{nth}"), "namespace": namespace});
        }
        server.put(slice);
    }
}

//! From exec to the first answer with 10,000 services and 10,000 headless endpoints on disk, and the memory then.
//! See benches/README.md.

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/process.rs"]
mod process;
#[path = "../tests/it/support/synthetic.rs"]
mod synthetic;

use std::time::Duration;

use hickory_proto::rr::RecordType;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10_000;
const STARTS: usize = 21;

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(synthetic::store_with(&home.path().join("store"), synthetic::records(SERVICES, ENDPOINTS)));

    let mut times = Vec::new();
    let mut resident = Vec::new();
    let number = SERVICES - 1;
    for _ in 0..STARTS {
        let agent = process::Agent::start(home.path(), &["--manifests", "/nonexistent/cluster.yaml"]);
        let message = agent.ask(&synthetic::name(number), RecordType::A);
        times.push(agent.age());
        assert_eq!(process::answers(&message), [format!("5 A {}", synthetic::cluster_ip(number))]);
        resident.push(agent.resident_bytes());
        agent.kill();
    }
    times.sort();
    resident.sort_unstable();
    let show = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!("cold start, {SERVICES} services + {ENDPOINTS} headless endpoints on disk, {STARTS} starts");
    println!("exec to first answer   median {}  worst {}", show(times[STARTS / 2]), show(times[STARTS - 1]));
    println!("resident after it      median {} KiB", resident[STARTS / 2] / 1024);
}

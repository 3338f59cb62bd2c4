//! A network that loses a third of what is sent, made by nftables in a network namespace of its own.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;

use super::world::{World, short};
use crate::support::upstream::Upstream;

const QUESTIONS: usize = 1_000;
/// Set in the process that has the namespace.
const INSIDE: &str = "HOLDFAST_TEST_INSIDE_NETNS";

/// Runs a command to its end, or says why it could not.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{command:?}: {} {} {}", output.status, text(&output.stdout), text(&output.stderr)))
}

/// The loopback of this namespace, up, and losing three of ten datagrams to each of `ports`.
fn lose(ports: &[u16]) -> Result<(), String> {
    let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rules = format!(
        "table inet loss {{ chain loss {{ type filter hook input priority 0; \
         udp dport {{ {ports} }} numgen random mod 10 < 3 counter drop; }}; }}"
    );
    run(Command::new("nft").arg(rules)).map(drop)
}

/// In real time, because the kernel loses the packets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_third_of_all_queries_lost_cold_questions_are_answered_in_time() {
    if std::env::var_os(INSIDE).is_none() {
        let this = std::env::current_exe().unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        if let Err(why) =
            run(Command::new("unshare").args(["--net", "true"])).and_then(|_| run(Command::new("nft").arg("-v")))
        {
            eprintln!("skipped: {why}");
            return;
        }
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(this).args([&name, "--exact", "--nocapture"]).env(INSIDE, "1");
        let said = run(&mut inside).unwrap();
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"])).unwrap();
    let one = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let two = Upstream::with_a(60, [192, 0, 2, 1]).await;
    lose(&[one.address.port(), two.address.port()]).unwrap();
    let world = Arc::new(World::new(&[&one, &two]));
    let mut clients = tokio::task::JoinSet::new();
    for nth in 0..QUESTIONS {
        let world = Arc::clone(&world);
        clients.spawn(async move {
            tokio::time::sleep(Duration::from_millis(2 * nth as u64)).await;
            let started = Instant::now();
            let reply = world.ask(&format!("n{nth}.example"), RecordType::A).await;
            short(&reply) == "NoError 192.0.2.1" && started.elapsed() <= Duration::from_secs(5)
        });
    }
    let answered = clients.join_all().await.into_iter().filter(|ok| *ok).count();
    assert!(answered * 1_000 >= QUESTIONS * 999, "{answered} of {QUESTIONS}");
    let sent = world.metrics.queries_udp.get();
    assert!(sent > QUESTIONS as u64 * 12 / 10, "some had to be asked again: {sent} queries");
}

//! A network that loses a third of what is sent, made by nftables in a network namespace of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;
use tokio::sync::Semaphore;

use super::world::{World, short};
use crate::support::{netns, upstream::Upstream};

const QUESTIONS: usize = 1_000;
/// Questions that wait for an answer at once: so many clients does a busy node have.
const AT_ONCE: usize = 100;

/// In real time, because the kernel loses the packets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_third_of_all_queries_lost_cold_questions_are_answered_in_time() {
    if !netns::entered() {
        return;
    }
    let one = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let two = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let ports = [one.address.port(), two.address.port()].map(|port| port.to_string()).join(", ");
    netns::on_input(&format!("udp dport {{ {ports} }} numgen random mod 10 < 3 counter drop"));
    let world = Arc::new(World::new(&[&one, &two]));
    let mut clients = tokio::task::JoinSet::new();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for nth in 0..QUESTIONS {
        let (world, turns) = (Arc::clone(&world), Arc::clone(&turns));
        clients.spawn(async move {
            let _turn = turns.acquire().await.expect("never closed");
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

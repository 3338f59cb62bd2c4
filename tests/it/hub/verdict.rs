//! One verdict, over real sockets: two hubs and an agent serve and hold the same after each step, `diff` says so, and one
//! command at the hub that leads ends what is held everywhere.

use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::{
    pair::{Pair, stream},
    trio::Trio,
};
use crate::support::{
    apiserver::{namespace, service},
    fleet::beside,
    process::run,
};

/// Hubs and agent at the scripted apiserver.
struct World {
    pair: Pair,
    trio: Trio,
}

impl World {
    async fn begin() -> Self {
        // Longer than this test takes: the Lease does not move.
        let pair = Pair::with_lease("300s").await;
        let (leader, second) = pair.both().await;
        let agent = pair.homes[2].agent(&[&stream(&second)]).await;
        let world = Self { pair, trio: Trio { leader, second, agent } };
        world.all_serve("the first list", 100, 0).await;
        world
    }

    async fn all_serve(&self, what: &str, services: usize, held: usize) {
        self.trio.all_serve(&self.pair.homes, what, services, held).await;
    }

    fn put(&self, of: &str, count: usize) {
        let named = |n: usize| service(of, &format!("{of}-{n}"), &format!("10.96.2.{n}"));
        self.pair.server.put_all([namespace(of)].into_iter().chain((0..count).map(named)));
    }

    /// `holdfast guard release` at a terminal, where the operator answers so.
    async fn release_at_a_terminal(&self, answer: &str) -> Output {
        let line = format!(
            "{} guard release --admin {}",
            env!("CARGO_BIN_EXE_holdfast"),
            self.pair.homes[0].socket().display()
        );
        let answer = answer.to_owned();
        beside(move || {
            let mut child = Command::new("script")
                .args(["--quiet", "--return", "--command", &line, "/dev/null"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("script (util-linux) runs");
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, answer.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            drop(stdin);
            output
        })
        .await
    }
}

#[tokio::test]
async fn two_hubs_and_an_agent_hold_the_same_and_one_command_releases_it() {
    let world = World::begin().await;
    let server = &world.pair.server;

    // A namespace is deleted, as the namespace controller does it.
    world.put("ci", 30);
    world.all_serve("a namespace comes", 130, 0).await;
    let mut ending = namespace("ci");
    ending["metadata"]["deletionTimestamp"] = "2024-12-11T18:30:00Z".into();
    server.put(ending);
    (0..30).for_each(|n| server.delete("services", "ci", &format!("ci-{n}")));
    server.delete("namespaces", "", "ci");
    world.all_serve("a namespace is deleted", 100, 0).await;

    // etcd is restored from a backup that lacks 60 of 160.
    let backup = server.backup();
    world.put("late", 60);
    world.all_serve("services come", 160, 0).await;
    let epoch = world.trio.agent.reader().load().version().epoch;
    server.stop();
    server.restore(&backup);
    server.start_again().await;
    world.all_serve("etcd is restored", 160, 60).await;
    assert!(world.trio.agent.reader().load().version().epoch > epoch, "another history");
    let (told, _) = world.pair.homes[0].tool(&["status"]).await;
    assert!(told["apiserver"]["went_back_at"].is_string(), "{told:#}");
    let (told, _) = world.pair.homes[2].tool(&["guard"]).await;
    assert_eq!(told["held"]["rows"][0]["reason"], "the source's list is missing 60 of 160 services", "{told:#}");

    // Only the hub that leads releases; the others name it.
    let leader = format!(":{}", world.trio.leader.addresses().stream[0].port());
    for home in &world.pair.homes[1..3] {
        for line in [&["guard", "release", "--yes"][..], &["guard", "release", "--dry-run"]] {
            let (told, code) = home.tool(line).await;
            assert_eq!((code, &told["held_upstream"]), (1, &json!(61)), "{told:#}");
            let hubs = told["hubs"].as_array().unwrap();
            let named = hubs.last().and_then(|hub| hub.as_str()).is_some_and(|hub| hub.ends_with(&leader));
            assert!(named, "the last hub on the way is the one that decides, {leader}: {told:#}");
        }
    }
    world.all_serve("nothing is released by that", 160, 60).await;

    // More than a fifth is not released without a word: --yes, or a person at a terminal.
    let socket = world.pair.homes[0].socket();
    let asked = beside(move || run(&["guard", "release", "--admin", socket.to_str().unwrap()])).await;
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.code() == Some(2) && told.contains("give --yes if it is meant"), "{told}");
    let told = world.release_at_a_terminal("n\n").await;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.code() == Some(1) && text.contains("This deletes 60 of 160 services on every node"), "{text}");
    world.all_serve("nothing is released by that", 160, 60).await;
    let told = world.release_at_a_terminal("y\n").await;
    assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stdout));
    world.all_serve("released by a person", 100, 0).await;

    // Four fifths are deleted by events.
    (0..80).for_each(|n| server.delete("services", "prod", &format!("web-{n}")));
    world.all_serve("four fifths are deleted", 100, 80).await;
    let (_, code) = world.pair.homes[0].tool(&["guard", "release", "--yes"]).await;
    assert_eq!(code, 0);
    world.all_serve("released by one command", 20, 0).await;

    world.trio.stop().await;
}

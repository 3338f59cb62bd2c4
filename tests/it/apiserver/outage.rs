//! A server that goes away, comes back, and is not always who it was.

use std::time::Duration;

use holdfast::store::SourceState;

use super::{Following, Sent};
use crate::support::apiserver::{Apiserver, endpoints, headless, namespace, service};

#[tokio::test]
async fn a_server_that_is_down_is_named_and_everything_stands() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    following.server.stop();
    let reason = following.until_lost("connect: ").await;
    assert_eq!(reason, format!("apiserver {}: connect: Connection refused (os error 111)", following.server.url()));
    let at = following.reader.as_of();
    following.clock.advance(Duration::from_secs(3600));
    following.server.put(service("prod", "b", "10.0.0.2"));
    following.server.delete("services", "prod", "a");
    assert_eq!(super::names(&following.reader), ["a"]);
    assert_eq!(following.reader.as_of(), at);

    following.server.start_again().await;
    following.until_names(&["b"]).await;
    following.until_up().await;
    following.until("young again", |reader| reader.as_of() > at).await;
    assert_eq!((following.resets(), following.lists()), (1, 4), "the watches resumed");
}

#[tokio::test]
async fn a_server_that_stops_answering_is_noticed_and_its_return_too() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    following.server.stall();
    let reason = following.until_lost("answer").await;
    assert!(reason.starts_with(&format!("apiserver {}: ", following.server.url())), "{reason}");
    following.server.put(service("prod", "b", "10.0.0.2"));
    following.server.resume();
    following.until_names(&["a", "b"]).await;
    following.until_up().await;
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn a_stalled_tls_handshake_is_told_from_a_stalled_answer() {
    let server = Apiserver::start_tls().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.stall();
    let mut following = Following::start(server);
    let reason = following.until_lost("TLS handshake").await;
    assert_eq!(reason, format!("apiserver {}: TLS handshake timed out (1s)", following.server.url()));
    following.server.resume();
    following.until_names(&["a"]).await;
    following.until_up().await;
}

#[tokio::test]
async fn little_but_the_probe_is_sent_while_the_server_is_away() {
    let server = Apiserver::start().await;
    let mut following = Following::synced(server).await;
    let before = following.server.seen().len() - following.server.probes();
    following.server.stall();
    following.until_lost("answer").await;
    let (server, probes) = (&following.server, following.server.probes());
    // Stalled requests are seen once the server goes on, so count those that come after.
    following.server.resume();
    server.until("probes", |server| server.probes() > probes).await;
    following.until_up().await;
    let others = following.server.seen().len() - following.server.probes();
    assert!(others <= before + 8, "each watch resumes once or twice: {before} {others}");
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_waited_for() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.stop();
    let mut following = Following::start(server);
    following.until_lost("Connection refused").await;
    assert!(matches!(following.reader.freshness().source, SourceState::Lost(_)));
    following.server.start_again().await;
    following.until_names(&["a"]).await;
    following.until_up().await;
}

#[tokio::test]
async fn an_etcd_restored_from_a_backup_begins_a_new_epoch() {
    let server = Apiserver::start().await;
    server.put_all([
        service("prod", "old", "10.0.0.1"),
        headless("prod", "db"),
        endpoints("prod", "db-a", "db", true, &["10.1.0.1"]),
    ]);
    let backup = server.backup();
    server.put(service("prod", "new", "10.0.0.2"));
    server.delete("services", "prod", "old");
    for _ in 0..50 {
        server.tick();
    }
    let mut following = Following::synced(server).await;
    following.until_names(&["db=10.1.0.1", "new"]).await;
    assert_eq!(following.reader.load().version().epoch, 1);

    following.server.restore(&backup);
    // What happens now, the old watches never hear: it is below their version.
    following.server.put(endpoints("prod", "db-a", "db", true, &["10.1.0.7"]));
    following.until_names(&["db=10.1.0.7", "old"]).await;
    assert_eq!(following.reader.load().version().epoch, 2);
    assert!(following.sent.lock().unwrap().contains(&Sent::Reset { new_epoch: true }));

    following.server.put(service("prod", "after", "10.0.0.3"));
    following.until_names(&["after", "db=10.1.0.7", "old"]).await;
    assert_eq!(following.reader.load().version().epoch, 2, "once");
}

#[tokio::test]
async fn an_etcd_restored_while_the_server_was_away_begins_a_new_epoch() {
    let server = Apiserver::start().await;
    server.put(service("prod", "old", "10.0.0.1"));
    let backup = server.backup();
    server.put(service("prod", "new", "10.0.0.2"));
    let mut following = Following::synced(server).await;
    following.until_names(&["new", "old"]).await;
    following.server.stop();
    following.until_lost("Connection refused").await;
    following.server.restore(&backup);
    following.server.start_again().await;
    following.until_names(&["old"]).await;
    assert_eq!(following.reader.load().version().epoch, 2);
}

#[tokio::test]
async fn another_cluster_at_the_same_address_is_listed_anew() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    let mut other = namespace("kube-system");
    other["metadata"]["uid"] = "another".into();
    following.server.put(other);
    following.until("the other cluster", |reader| &*reader.load().version().cluster == "another").await;
    assert_eq!(super::names(&following.reader), ["a"]);
    assert_eq!(following.lists(), 8);
}

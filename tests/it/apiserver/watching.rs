//! Lists and watches as they should go.

use std::{sync::Arc, time::Duration};

use holdfast::{source::EndpointsMode, store::SourceState, sys::UnixMillis};

use super::{Following, Sent, names, timing};
use crate::support::apiserver::{
    Apiserver, Fault, Reply, endpoints, external_name, headless, namespace, service, slice,
};

#[tokio::test]
async fn the_objects_of_the_cluster_and_their_changes_arrive() {
    let server = Apiserver::start().await;
    server.put_all([
        namespace("prod"),
        service("prod", "web", "10.0.0.1"),
        headless("prod", "db"),
        external_name("prod", "ext", "db.example"),
        endpoints("prod", "db-a", "db", true, &["10.1.0.1"]),
        slice("prod", "db-by-hand", "db", &["10.1.0.2"]),
        endpoints("prod", "web-a", "web", false, &["10.1.0.9"]),
    ]);
    let mut following = Following::synced(server).await;
    following.until_names(&["db=10.1.0.1,10.1.0.2", "ext", "web"]).await;
    let snapshot = following.reader.snapshot();
    assert_eq!(&*snapshot.version().cluster, "uid-of-kube-system");
    assert!(snapshot.has_namespace(b"prod") && snapshot.has_namespace(b"default"));

    following.server.put(endpoints("prod", "db-a", "db", true, &["10.1.0.1", "10.1.0.3"]));
    following.until_names(&["db=10.1.0.1,10.1.0.2,10.1.0.3", "ext", "web"]).await;
    following.server.delete("services", "prod", "ext");
    following.server.delete("endpointslices", "prod", "db-by-hand");
    following.until_names(&["db=10.1.0.1,10.1.0.3", "web"]).await;
    following.server.put(namespace("dev"));
    following.until("dev", |reader| reader.load().has_namespace(b"dev")).await;
    following.server.delete("namespaces", "", "dev");
    following.until("no dev", |reader| !reader.load().has_namespace(b"dev")).await;
    assert_eq!(following.resets(), 1, "changes are changes");
    assert_eq!(following.reader.freshness().source, SourceState::Up);
}

/// A namespace finalized by force leaves its services behind: their pods may run on.
#[tokio::test]
async fn services_outlive_a_namespace_that_is_gone_in_a_watch_and_in_a_list() {
    let server = Apiserver::start().await;
    server.put_all([namespace("prod"), service("prod", "web", "10.0.0.1"), headless("prod", "db")]);
    server.put(endpoints("prod", "db-a", "db", true, &["10.1.0.1"]));
    let mut following = Following::synced(server).await;
    following.until_names(&["db=10.1.0.1", "web"]).await;
    following.server.delete("namespaces", "", "prod");
    following.server.put(service("prod", "late", "10.0.0.2"));
    following.until_names(&["db=10.1.0.1", "late", "web"]).await;

    let Following { server, feed, .. } = following;
    drop(feed);
    let mut listed = Following::synced(server).await;
    listed.until_names(&["db=10.1.0.1", "late", "web"]).await;
    assert!(listed.reader.load().service(b"prod", b"web").is_some());
}

#[tokio::test]
async fn a_cluster_costs_four_watches_and_no_slice_of_a_cluster_ip_service_travels() {
    let server = Apiserver::start().await;
    let following = Following::synced(server).await;
    let seen = following.server.seen();
    assert_eq!((following.server.most_watches(), following.lists()), (4, 4));
    let selectors: Vec<Option<&str>> =
        seen.iter().filter(|seen| seen.resource == "endpointslices").map(|seen| seen.param("labelSelector")).collect();
    assert_eq!(selectors.len(), 2);
    assert!(selectors.contains(&Some("service.kubernetes.io/headless")));
    for seen in seen.iter().filter(|seen| seen.resource == "namespaces") {
        assert!(seen.accept.contains("as=PartialObjectMetadata"), "{seen:?}");
    }
    assert!(following.metric("holdfast_source_requests_total", "endpointslices") >= 2.0);
    assert!(following.metric("holdfast_source_requests_total", "services") >= 1.0);
}

#[tokio::test]
async fn all_endpoints_are_one_watch_without_a_selector() {
    let server = Apiserver::start().await;
    server.put_all([service("prod", "web", "10.0.0.1"), endpoints("prod", "web-a", "web", false, &["10.1.0.9"])]);
    let mut following = Following::start_with(server, |config| config.endpoints = EndpointsMode::All);
    following.until_names(&["web=10.1.0.9"]).await;
    assert_eq!(following.server.most_watches(), 3);
    assert!(following.server.seen().iter().all(|seen| seen.param("labelSelector").is_none()));
}

#[tokio::test]
async fn nothing_is_published_before_everything_was_listed() {
    let server = Apiserver::start().await;
    server.put(service("prod", "web", "10.0.0.1"));
    server.fail(Fault::on("endpointslices").with(Reply::Hang).times(1));
    let mut following = Following::start_with(server, |config| config.timing.answer = Duration::from_millis(400));
    following.until_names(&["web"]).await;
    let sent = following.sent.lock().unwrap().clone();
    let before: Vec<&Sent> = sent.iter().take_while(|sent| **sent != Sent::Reset { new_epoch: false }).collect();
    assert!(before.iter().all(|sent| matches!(sent, Sent::Lost(_))), "{sent:?}");
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_listed_in_pages() {
    let server = Apiserver::start().await;
    server.without_streaming_lists();
    server.gzip_from(1);
    for index in 0..1100 {
        server.put(service("prod", &format!("s{index}"), &format!("10.1.{}.{}", index / 250, index % 250)));
    }
    let mut following = Following::synced(server).await;
    assert_eq!(following.reader.load().counts().services, 1100);
    assert_eq!(following.server.count("list", "services"), 3);
    for seen in following.server.seen().iter().filter(|seen| seen.verb == "list") {
        assert_eq!(seen.param("resourceVersion"), None, "a version would be answered from the past, in one piece");
    }
    following.server.put(service("prod", "s0", "10.9.9.9"));
    following.until("the change", |reader| reader.load().holders("10.9.9.9".parse().unwrap()).len() == 1).await;
    assert_eq!(following.server.count("list", "services"), 3);
}

#[tokio::test]
async fn a_list_that_expires_between_its_pages_begins_again() {
    let server = Apiserver::start().await;
    server.without_streaming_lists();
    for index in 0..600 {
        server.put(service("prod", &format!("s{index}"), &format!("10.1.{}.{}", index / 250, index % 250)));
    }
    server.fail(Fault::on("services").verb("list").continued().with(Reply::status(410, "Expired")).times(1));
    let following = Following::synced(server).await;
    assert_eq!(following.reader.load().counts().services, 600);
    assert_eq!(following.server.count("list", "services"), 4);
}

#[tokio::test]
async fn a_streaming_list_that_never_says_its_end_gives_way_to_pages() {
    let server = Apiserver::start().await;
    server.put(service("prod", "web", "10.0.0.1"));
    server.fail(Fault::on("services").verb("watch").with(Reply::Silent).times(1));
    let mut following = Following::start_with(server, |config| config.timing.idle_list = Duration::from_millis(200));
    following.until_names(&["web"]).await;
    assert!(following.server.count("list", "services") >= 1);
}

#[tokio::test]
async fn a_watch_that_ends_resumes_without_a_list() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    for (index, name) in ["b", "c", "d"].into_iter().enumerate() {
        let requests = following.server.count("watch", "services");
        if index == 2 {
            following.server.break_watches(Some("services"));
        } else {
            following.server.end_watches(Some("services"));
        }
        // While nobody watches: it must be told on resuming.
        following.server.put(service("prod", name, "10.0.0.2"));
        following.until(name, |reader| reader.load().service(b"prod", name.as_bytes()).is_some()).await;
        let server = &following.server;
        server.until("resumed", |server| server.count("watch", "services") > requests).await;
    }
    assert_eq!((following.resets(), following.lists()), (1, 4));
}

#[tokio::test]
async fn a_watch_lasts_as_long_as_asked_and_then_resumes() {
    let server = Apiserver::start().await;
    let mut following = Following::start_with(server, |config| config.timing.watch = Duration::from_millis(1));
    following.until_synced().await;
    let server = &following.server;
    server.until("resumed after a second", |server| server.count("watch", "services") > 1).await;
    assert!(
        server.seen().iter().filter(|seen| seen.verb == "watch").all(|seen| seen.param("timeoutSeconds") == Some("1"))
    );
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn a_version_too_old_lists_that_kind_again() {
    for plain in [false, true] {
        let server = Apiserver::start().await;
        server.put_all([service("prod", "a", "10.0.0.1"), service("prod", "b", "10.0.0.2")]);
        let mut following = Following::synced(server).await;
        if plain {
            following.server.fail(Fault::on("services").with(Reply::status(410, "Gone")).times(1));
        } else {
            following.server.compact();
        }
        following.server.end_watches(Some("services"));
        let sent = Arc::clone(&following.sent);
        let resets = move || sent.lock().unwrap().iter().filter(|sent| matches!(sent, Sent::Reset { .. })).count();
        following.until("listed again", |_| resets() == 2).await;
        following.server.put(service("prod", "c", "10.0.0.3"));
        following.until_names(&["a", "b", "c"]).await;
        assert_eq!((following.lists(), following.resets()), (5, 2), "plain: {plain}");
    }
}

#[tokio::test]
async fn deletions_nobody_was_told_of_are_found_by_the_relist() {
    let server = Apiserver::start().await;
    server.put_all([
        service("prod", "a", "10.0.0.1"),
        service("prod", "b", "10.0.0.2"),
        headless("prod", "db"),
        endpoints("prod", "db-a", "db", true, &["10.1.0.1"]),
        endpoints("prod", "db-b", "db", true, &["10.1.0.2"]),
    ]);
    let mut following = Following::synced(server).await;
    following.server.stop();
    following.until_lost("Connection refused").await;
    following.server.delete("services", "prod", "a");
    following.server.delete("endpointslices", "prod", "db-a");
    following.server.compact();
    following.server.start_again().await;
    following.until_names(&["b", "db=10.1.0.2"]).await;
    following.until_up().await;
}

#[tokio::test]
async fn a_slice_that_changes_its_label_moves_between_the_watches_without_a_gap() {
    let server = Apiserver::start().await;
    server.put_all([headless("prod", "db"), slice("prod", "db-a", "db", &["10.1.0.1"])]);
    let mut following = Following::synced(server).await;
    following.until_names(&["db=10.1.0.1"]).await;
    for round in 0..10 {
        let ip = format!("10.1.1.{round}");
        let moved = if round % 2 == 0 {
            endpoints("prod", "db-a", "db", true, &["10.1.0.1", &ip])
        } else {
            slice("prod", "db-a", "db", &["10.1.0.1", &ip])
        };
        following.server.put(moved);
        following.until_names(&[&format!("db=10.1.0.1,{ip}")]).await;
    }
}

#[tokio::test]
async fn events_of_objects_never_listed_are_taken_and_unknown_deletions_ignored() {
    let server = Apiserver::start().await;
    let mut following = Following::synced(server).await;
    let event = |kind: &str, name: &str| {
        let mut object = service("prod", name, "10.0.0.7");
        object["metadata"]["resourceVersion"] = "101".into();
        format!("{}\n", serde_json::json!({"type": kind, "object": object}))
    };
    following.server.send_raw("services", &event("DELETED", "never"));
    following.server.send_raw("services", &event("MODIFIED", "surprise"));
    following.until_names(&["surprise"]).await;
    following.server.send_raw("services", &event("DELETED", "surprise"));
    following.until_names(&[]).await;
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn age_moves_on_a_bookmark_an_event_and_a_probe_and_on_nothing_else() {
    let server = Apiserver::start().await;
    let mut following = Following::start_with(server, |config| config.timing.probe = Duration::from_secs(3600));
    following.until_synced().await;
    let begin = following.reader.as_of().unwrap();

    following.clock.advance(Duration::from_secs(100));
    following.server.put(service("prod", "a", "10.0.0.1"));
    following.until_names(&["a"]).await;
    assert_eq!(following.reader.as_of(), Some(begin), "the other watches said nothing");

    following.server.bookmark();
    let later = UnixMillis(begin.0 + 100_000);
    following.until("a bookmark on each", |reader| reader.as_of() == Some(later)).await;
}

#[tokio::test]
async fn a_probe_vouches_for_open_watches_at_the_time_it_was_sent() {
    let server = Apiserver::start().await;
    let mut following = Following::synced(server).await;
    let begin = following.reader.as_of().unwrap();
    following.clock.advance(Duration::from_secs(100));
    following.until("vouched", |reader| reader.as_of() == Some(UnixMillis(begin.0 + 100_000))).await;
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn a_watch_that_fell_silent_is_dropped_and_resumed() {
    let server = Apiserver::start().await;
    server.bookmark_every(Duration::from_millis(100));
    let mut following = Following::start_with(server, |config| {
        config.timing = holdfast::source::apiserver::Timing { idle_watch: Duration::from_millis(800), ..timing() };
    });
    following.until_synced().await;
    following.server.mute_watches();
    following.server.put(service("prod", "a", "10.0.0.1"));
    following.until_names(&["a"]).await;
    assert_eq!(following.lists(), 4, "resumed, not listed: {:?}", names(&following.reader));
}

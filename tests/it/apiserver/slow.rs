//! A server that is slow rather than dead: it is waited for, no work of its is thrown away, and what it delivers counts.

use std::time::Duration;

use holdfast::{report::Reach, store::SourceState};

use super::Following;
use crate::support::apiserver::{Apiserver, Fault, Reply, Slow, endpoints, headless, service};

const SLOW: Duration = Duration::from_millis(200);

/// Far more patience with answers than silence that is told.
fn patient(config: &mut holdfast::source::apiserver::Config) {
    config.timing.handshake = Duration::from_secs(30);
    config.timing.answer = Duration::from_secs(60);
    config.timing.silence = Duration::from_millis(150);
    config.timing.probe = Duration::from_secs(30);
}

#[tokio::test]
async fn a_slow_server_is_waited_for_and_no_request_is_given_up() {
    for tls in [false, true] {
        let server = if tls { Apiserver::start_tls().await } else { Apiserver::start().await };
        server.put_all([service("prod", "a", "10.0.0.1"), headless("prod", "db")]);
        server.put(endpoints("prod", "db-a", "db", true, &["10.1.0.1"]));
        server.slow(Slow { accept: SLOW, tls: SLOW, headers: SLOW, ..Slow::default() });
        let mut following = Following::start_with(server, patient);
        let reason = following.until_lost("timed out").await;
        assert!(reason.starts_with("apiserver http"), "{reason}");
        following.until_names(&["a", "db=10.1.0.1"]).await;
        following.until_up().await;
        let measures = following.metrics.health().measures();
        assert_eq!(measures.abandoned_total, 0, "{measures:?}");
        assert_eq!(following.lists(), 4);
        if tls {
            assert_eq!(following.server.connections(), 1, "all requests share one connection");
        }
    }
}

#[tokio::test]
async fn a_starved_server_works_off_what_was_asked_once() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.slow(Slow { starved: SLOW, ..Slow::default() });
    let mut following = Following::start_with(server, patient);
    following.until_names(&["a"]).await;
    following.until_up().await;
    assert!(following.server.seen().len() <= 5, "four lists and a probe: {:?}", following.server.seen().len());
    let status = following.metrics.health().status(SLOW / 2);
    assert_eq!((status.state, status.measures.abandoned_total), (Reach::Slow, 0), "{status:?}");
    assert!(status.measures.latency_seconds >= SLOW.as_secs_f64(), "{status:?}");
}

#[tokio::test]
async fn a_server_that_was_silent_and_sends_its_first_lists_is_slow_and_not_lost() {
    let server = Apiserver::start().await;
    let names: Vec<String> = (10..40).map(|n| format!("a{n}")).collect();
    server.put_all(names.iter().map(|name| service("prod", name, "10.0.0.1")));
    // Each piece comes well before the silence that is told.
    server.slow(Slow { headers: SLOW, chunk: Duration::from_millis(30), ..Slow::default() });
    let mut following = Following::start_with(server, patient);
    following.until_lost("timed out").await;
    following.until("listing", |reader| reader.freshness().source == SourceState::Starting).await;
    let status = following.metrics.health().status(SLOW / 2);
    assert_eq!((status.state, status.reason), (Reach::Slow, None));
    assert_eq!(following.reader.as_of(), None, "the list is not complete");
    following.until_names(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(following.lost().len(), 1, "{:?}", following.lost());
}

#[tokio::test]
async fn a_server_that_is_asked_for_the_first_lists_is_not_probed_beside() {
    let server = Apiserver::start().await;
    server.fail(Fault::on("services").verb("watch").with(Reply::Hang));
    let mut following = Following::start_with(server, |config| {
        patient(config);
        config.timing.probe = Duration::from_millis(1);
    });
    following.until_lost("watch services: answer timed out").await;
    assert_eq!(following.server.probes(), 0);
}

#[tokio::test]
async fn a_watch_that_delivers_keeps_the_source_up_while_probes_get_no_answer() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start_with(server, |config| {
        config.timing.answer = Duration::from_millis(300);
        config.timing.silence = Duration::from_secs(20);
    });
    following.until_synced().await;
    following.server.bookmark_every(Duration::from_millis(50));
    following.server.end_watches(None);
    following.server.until("resumed", |server| server.open_watches() == 4).await;
    following.server.fail(Fault::on("namespaces").verb("list").with(Reply::Hang));
    let probes = following.server.probes();
    following.server.until("three probes without an answer", |server| server.probes() > probes + 3).await;
    let before = following.lost().len();
    for n in 0..5 {
        let name = format!("b{n}");
        following.server.put(service("prod", &name, "10.0.0.2"));
        following.until("the change", |reader| reader.load().service(b"prod", name.as_bytes()).is_some()).await;
        // Whatever the probe says.
        let watches = following.server.count("watch", "services");
        following.server.end_watches(Some("services"));
        let resumed = |server: &Apiserver| server.count("watch", "services") > watches && server.open_watches() == 4;
        following.server.until("resumed", resumed).await;
    }
    assert_eq!(following.lost().len(), before, "{:?}", following.lost());
    assert_eq!(following.reader.freshness().source, SourceState::Up);
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn a_streaming_list_that_fails_in_any_way_is_made_again_in_pages() {
    for code in [400, 422, 500, 501, 504] {
        let server = Apiserver::start().await;
        server.put(service("prod", "a", "10.0.0.1"));
        let reason = Reply::error_event(code, "storage feature RequestWatchProgress is disabled");
        server.fail(Fault::on_all().verb("watch").with(reason).times(4));
        let mut following = Following::start(server);
        following.until_names(&["a"]).await;
        following.until_up().await;
        assert_eq!(following.server.count("list", "services"), 1, "{code}");
        assert!(following.lost().is_empty(), "{code}: {:?}", following.lost());
    }
}

#[tokio::test]
async fn a_server_that_ignores_streaming_lists_is_listed_in_pages() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.ignore_initial_events();
    let mut following = Following::start(server);
    following.until_names(&["a"]).await;
    following.until_up().await;
    assert_eq!(following.server.count("list", "services"), 1);
    assert!(following.lost().is_empty(), "{:?}", following.lost());
}

#[tokio::test]
async fn a_refusal_just_after_an_outage_is_waited_out_before_it_is_told() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start_with(server, |config| config.timing.restarting = Duration::from_secs(30));
    following.until_synced().await;
    following.server.stop();
    following.until_lost("Connection refused").await;
    following.server.fail(Fault::on_all().with(Reply::status(403, "Forbidden")).times(12));
    following.server.start_again().await;
    following.until_up().await;
    assert!(following.lost().iter().all(|reason| !reason.contains("403")), "{:?}", following.lost());
}

#[tokio::test]
async fn a_busy_server_without_words_is_busy_and_a_right_that_is_back_is_used_at_once() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.fail(Fault::on("services").with(Reply::Bare(429)).times(3));
    let mut following = Following::start(server);
    following.until_lost("429: Too Many Requests (no body)").await;
    following.until_names(&["a"]).await;
    assert!(following.metrics.health().measures().busy_per_minute >= 3);

    following.server.fail(Fault::on("services").with(Reply::status(403, "Forbidden")));
    following.server.end_watches(Some("services"));
    following.until_lost("403").await;
    following.server.heal();
    following.until_up().await;
}

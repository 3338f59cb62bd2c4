//! A server that refuses, is busy, or sends what is no answer.

use std::time::{Duration, Instant};

use super::Following;
use crate::support::apiserver::{Apiserver, Fault, Reply, service};

#[tokio::test]
async fn a_missing_permission_is_named_with_verb_and_resource() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.fail(Fault::on("endpointslices").with(Reply::status(403, "Forbidden")));
    let mut following = Following::start(server);
    let reason = following.until_lost("403").await;
    assert_eq!(
        reason,
        format!(
            "apiserver {}: 403: may not watch endpointslices (discovery.k8s.io): grant verbs list, watch",
            following.server.url()
        )
    );
    assert_eq!(following.reader.as_of(), None, "half of a cluster is not published");
    following.server.heal();
    following.until_names(&["a"]).await;
    following.until_up().await;
}

#[tokio::test]
async fn a_permission_lost_later_is_named_and_age_stands_still() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    following.server.fail(Fault::on("services").with(Reply::status(403, "Forbidden")));
    following.server.end_watches(Some("services"));
    following.until_lost("403: may not watch services (core group)").await;
    let at = following.reader.as_of();
    following.clock.advance(Duration::from_secs(100));
    let (server, probes) = (&following.server, following.server.probes());
    server.until("two more probes", |server| server.probes() > probes + 1).await;
    assert_eq!(following.reader.as_of(), at, "probes do not vouch for a watch that is not there");
    following.server.heal();
    following.until_up().await;
    following.until("vouched", |reader| reader.as_of() > at).await;
}

#[tokio::test]
async fn credentials_not_accepted_are_named() {
    let server = Apiserver::start().await;
    server.fail(Fault::on_all().with(Reply::status(401, "Unauthorized")));
    let mut following = Following::start(server);
    let reason = following.until_lost("401").await;
    assert!(reason.ends_with("the credentials are not accepted: renew them"), "{reason}");
}

#[tokio::test]
async fn a_busy_server_is_given_the_time_it_asks_for() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    server.fail(Fault::on("services").with(Reply::busy(429, 1)).times(1));
    let begin = Instant::now();
    let mut following = Following::start(server);
    following.until_names(&["a"]).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(following.server.count("watch", "services"), 2);
}

#[tokio::test]
async fn failing_requests_are_made_ever_more_rarely() {
    let server = Apiserver::start().await;
    server.fail(Fault::on("services").with(Reply::status(500, "InternalError")));
    let mut following = Following::start_with(server, |config| {
        config.timing.backoff_min = Duration::from_millis(50);
        config.timing.backoff_max = Duration::from_secs(3600);
    });
    following.until_lost("500: scripted: InternalError").await;
    let server = &following.server;
    server.until("five tries", |server| server.count("list", "services") >= 5).await;
    let probes = server.probes();
    server.until("probes go on", |server| server.probes() > probes + 5).await;
    // A second and more went by; without backoff there would be hundreds.
    assert!(server.count("list", "services") < 15, "{}", server.count("list", "services"));
    assert_eq!(server.count("watch", "services"), 1, "not a second streaming list");
}

#[tokio::test]
async fn a_version_ahead_of_the_server_is_tried_again() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    following.server.fail(Fault::on("services").with(Reply::error_event(504, "Timeout")).times(3));
    following.server.end_watches(Some("services"));
    following.server.put(service("prod", "b", "10.0.0.2"));
    following.until_names(&["a", "b"]).await;
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn garbage_breaks_the_stream_and_not_the_records() {
    let long = "x".repeat(17 << 20);
    let cases = [
        ("no JSON", "garbage\n"),
        ("a page of a proxy", "<html><body>502 Bad Gateway</body></html>\n"),
        ("an unknown event", "{\"type\":\"SURPRISE\",\"object\":{}}\n"),
        ("a bookmark without a version", "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{}}}\n"),
        ("a line without an end", long.as_str()),
    ];
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::synced(server).await;
    for (index, (name, bytes)) in cases.into_iter().enumerate() {
        let watches = following.server.count("watch", "services");
        following.server.send_raw("services", bytes);
        let server = &following.server;
        server.until(name, |server| server.count("watch", "services") > watches && server.open_watches() == 4).await;
        let added = format!("b{index}");
        following.server.put(service("prod", &added, "10.0.0.2"));
        following.until(name, |reader| reader.load().service(b"prod", added.as_bytes()).is_some()).await;
        assert!(following.reader.load().service(b"prod", b"a").is_some(), "{name}");
    }
    assert_eq!(following.lists(), 4, "a broken stream resumes");
    assert!(following.metric("holdfast_source_broken_streams_total", "services") >= 5.0);
}

#[tokio::test]
async fn a_stream_cut_within_a_line_resumes_before_that_line() {
    let server = Apiserver::start().await;
    let mut following = Following::synced(server).await;
    following.server.send_raw("services", "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"na");
    following.server.end_watches(Some("services"));
    following.server.put(service("prod", "a", "10.0.0.1"));
    following.until_names(&["a"]).await;
    assert_eq!(following.lists(), 4);
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let half = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"namespace\":\"prod\",\"name\":\"half\",\"resourceVersion\":\"1\"},\
                \"spec\":{\"clusterIP\":\"10.0.0.9\"}}}\n";
    let page = "{\"kind\":\"ServiceList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[";
    let cases = [
        ("a stream cut between events", false, Reply::Cut(half.into())),
        ("a stream that ends between events", false, Reply::Body(half.into())),
        ("a page cut short", true, Reply::Cut(page.into())),
        ("a page that ends early", true, Reply::Body(page.into())),
        ("an empty page without a kind", true, Reply::Body("{\"items\":[]}".into())),
        (
            "a list without a version",
            true,
            Reply::Body("{\"kind\":\"ServiceList\",\"metadata\":{},\"items\":[]}".into()),
        ),
    ];
    for (name, paged, reply) in cases {
        let server = Apiserver::start().await;
        server.put_all([service("prod", "a", "10.0.0.1"), service("prod", "b", "10.0.0.2")]);
        if paged {
            server.without_streaming_lists();
        }
        let verb = if paged { "list" } else { "watch" };
        server.fail(Fault::on("services").verb(verb).with(reply).times(2));
        let mut following = Following::start(server);
        following.until("records", |reader| reader.as_of().is_some()).await;
        assert_eq!(super::names(&following.reader), ["a", "b"], "{name}");
        assert_eq!(following.resets(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_broken_object_rejects_itself_alone_and_is_named() {
    let server = Apiserver::start().await;
    let mut broken = service("prod", "bad", "10.0.0.2");
    broken["spec"]["ports"][0]["port"] = "http".into();
    server.put_all([service("prod", "a", "10.0.0.1"), broken]);
    let mut following = Following::synced(server).await;
    following.until_names(&["a"]).await;
    following.until("named", |reader| reader.rejections().total == 1).await;
    let rejection = following.reader.rejections().objects[0].clone();
    assert_eq!((rejection.kind.as_str(), rejection.name.as_str()), ("Service", "prod/bad"));
    assert!(rejection.reason.contains("invalid type: string \"http\""), "{}", rejection.reason);

    let mut worse = service("prod", "a", "10.0.0.1");
    worse["spec"]["clusterIP"] = "nonsense".into();
    worse["spec"]["clusterIPs"] = serde_json::json!(["nonsense"]);
    following.server.put(worse);
    following.until("both named", |reader| reader.rejections().total == 2).await;
    following.until_names(&["a"]).await;
    following.server.put(service("prod", "bad", "10.0.0.2"));
    following.server.put(service("prod", "a", "10.0.0.3"));
    following.until_names(&["a", "bad"]).await;
    following.until("nobody is named", |reader| reader.rejections().total == 0).await;
    assert!(following.metric("holdfast_source_rejected_total", "Service") >= 2.0);
    following.until_up().await;
}

/// An apiserver on an etcd without progress notifications takes the watch, and ends it by an event with the code 500.
#[tokio::test]
async fn a_streaming_list_refused_by_an_event_is_followed_by_a_paged_list() {
    for code in [500, 501, 504] {
        let server = Apiserver::start().await;
        server.put(service("prod", "a", "10.0.0.1"));
        server.fail(Fault::on("services").verb("watch").with(Reply::error_event(code, "InternalError")).times(1));
        let following = Following::synced(server).await;
        assert!(following.reader.load().service(b"prod", b"a").is_some(), "{code}");
        assert_eq!(following.server.count("list", "services"), 1, "{code}: in pages, and not by a second stream");
    }
}

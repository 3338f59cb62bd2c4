//! Options of `forward` and `cache` as `CoreDNS` has them.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tokio::time::Instant;

use super::served::serve;
use crate::{
    forward::world::{asked_for, secs},
    support::upstream::{Say, Upstream, a},
};

/// `next` is about the answer of one directive and asks the one behind it.
#[tokio::test(start_paused = true)]
async fn next_asks_the_directive_behind_after_the_answers_it_names() {
    let first = Upstream::start(|asked| {
        let name = asked.name();
        vec![match name.as_str() {
            "gone.example" => asked.nxdomain("example"),
            "empty.example" => asked.nodata("example"),
            "broken.example" => asked.code(ResponseCode::ServFail),
            _ => asked.found(vec![a(&name, 60, [192, 0, 2, 1])]),
        }]
    })
    .await;
    let second = Upstream::with_a(60, [192, 0, 2, 2]).await;
    let third = Upstream::with_a(60, [192, 0, 2, 3]).await;
    for (options, expect) in [
        ("", ["NoError 192.0.2.1", "NXDomain", "NoError", "ServFail ede=23"]),
        ("next NXDOMAIN", ["NoError 192.0.2.1", "NoError 192.0.2.2", "NoError", "ServFail ede=23"]),
        ("next_on_nodata", ["NoError 192.0.2.1", "NXDomain", "NoError 192.0.2.2", "ServFail ede=23"]),
        ("next SERVFAIL", ["NoError 192.0.2.1", "NXDomain", "NoError", "NoError 192.0.2.2"]),
        ("next NOERROR", ["NoError 192.0.2.2", "NXDomain", "NoError 192.0.2.2", "ServFail ede=23"]),
    ] {
        let text = format!(". {{\n forward . UP1 {{\n {options}\n }}\n forward . UP2\n forward . UP3\n cache\n}}");
        let world = serve(&text, &[&first, &second, &third]);
        for (name, expect) in ["here.example", "gone.example", "empty.example", "broken.example"].iter().zip(expect) {
            assert_eq!(world.a(name).await, expect, "{options:?} {name}");
        }
    }
    let silent = Upstream::silent().await;
    let world = serve(". {\n forward . UP1 {\n next SERVFAIL\n }\n forward . UP2\n}", &[&silent, &second]);
    assert_eq!(world.a("here.example").await, "ServFail ede=22", "silence is no answer");
}

#[tokio::test(start_paused = true)]
async fn failover_asks_the_next_upstream_and_gives_the_last_answer_of_all() {
    let denies = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    let knows = Upstream::with_a(60, [192, 0, 2, 2]).await;
    let text = ". {\n forward . UP1 UP2 {\n policy sequential\n failover NXDOMAIN\n }\n}";
    assert_eq!(serve(text, &[&denies, &knows]).a("www.example").await, "NoError 192.0.2.2");
    let other = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    assert_eq!(serve(text, &[&denies, &other]).a("www.example").await, "NXDomain");
    assert_eq!(asked_for(&other, "www.example"), 1);
    let plain = ". {\n forward . UP1 UP2 {\n policy sequential\n }\n}";
    assert_eq!(serve(plain, &[&denies, &knows]).a("www.example").await, "NXDomain");
}

#[tokio::test(start_paused = true)]
async fn a_sequential_zone_waits_for_its_first_server_as_long_as_read_timeout_says() {
    let (silent, second) = (Upstream::silent().await, Upstream::with_a(60, [192, 0, 2, 2]).await);
    for (timeout, least, most) in [("500ms", 500, 1_000), ("3s", 3_000, 3_700)] {
        let text = format!(". {{\n forward . UP1 UP2 {{\n policy sequential\n read_timeout {timeout}\n }}\n}}");
        let world = serve(&text, &[&silent, &second]);
        let started = Instant::now();
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.2");
        let took = started.elapsed().as_millis();
        assert!((least..=most).contains(&took), "{timeout}: {took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn questions_leave_from_the_address_that_is_given() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    for more in ["", "force_tcp"] {
        let text = format!(". {{\n forward . UP1 {{\n source_address 127.0.0.77\n {more}\n }}\n}}");
        assert_eq!(serve(&text, &[&upstream]).a("www.example").await, "NoError 192.0.2.1");
        let from = upstream.seen().iter().rfind(|asked| asked.name() == "www.example").unwrap().from;
        assert_eq!(from.ip().to_string(), "127.0.0.77", "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_upstream_is_probed_for_the_name_and_as_often_as_health_check_says() {
    let upstream = Upstream::silent().await;
    let text = ". {\n forward . UP1 {\n health_check 2s no_rec domain probe.example\n }\n}";
    let world = serve(text, &[&upstream]);
    for _ in 0..4 {
        assert!(world.a("www.example").await.starts_with("ServFail"));
        world.elapse(secs(6)).await;
    }
    let probes = || upstream.seen().iter().filter(|asked| asked.name() == "probe.example").count();
    let seen = upstream.seen();
    let probe = seen.iter().find(|asked| asked.name() == "probe.example").expect("a probe");
    assert_eq!((probe.qtype(), probe.message.recursion_desired), (RecordType::NS, false));
    let before = probes();
    world.elapse(secs(20)).await;
    let more = probes() - before;
    // Each is sent once or twice, with EDNS and without.
    assert!((8..=22).contains(&more), "{more} in 20 s");
}

#[tokio::test(start_paused = true)]
async fn with_every_upstream_failing_a_question_fails_at_once_if_so_asked() {
    for (option, most) in [("", 1_500), ("failfast_all_unhealthy_upstreams", 10)] {
        let upstream = Upstream::silent().await;
        let world = serve(&format!(". {{\n forward . UP1 {{\n {option}\n }}\n}}"), &[&upstream]);
        let mut asked = 0;
        while !world.forwarder.zones()[0].down {
            assert!(asked < 20, "it is never taken for failing");
            asked += 1;
            world.a(&format!("n{asked}.example")).await;
            world.elapse(secs(2)).await;
        }
        let started = Instant::now();
        assert_eq!(world.a("another.example").await, "ServFail ede=22");
        assert!(started.elapsed() <= Duration::from_millis(most), "{option:?}: {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn keepttl_gives_the_ttl_as_it_came() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    for (option, expect) in [("", 40), ("keepttl", 60)] {
        let world = serve(&format!(". {{\n forward . UP1\n cache 60 {{\n {option}\n }}\n}}"), &[&upstream]);
        world.a("www.example").await;
        world.elapse(secs(20)).await;
        let answer = world.ask("www.example", RecordType::A).await;
        assert_eq!(answer.answers[0].ttl, expect, "{option:?}");
        if expect == 60 {
            assert!(world.at_hand("www.example", RecordType::A).is_none());
        }
    }
    assert_eq!(asked_for(&upstream, "www.example"), 2);
}

#[tokio::test(start_paused = true)]
async fn disable_keeps_no_answers_of_a_kind_in_its_zones() {
    for (option, expect) in [
        ("", [1, 1, 1, 1]),
        ("disable success", [2, 1, 2, 1]),
        ("disable denial", [1, 2, 1, 2]),
        ("disable success corp.example", [1, 1, 2, 1]),
        ("disable denial corp.example\n disable success", [2, 1, 2, 2]),
    ] {
        let upstream = Upstream::start(|asked| {
            let name = asked.name();
            vec![if name.starts_with("no") {
                asked.nxdomain("example")
            } else {
                asked.found(vec![a(&name, 60, [192, 0, 2, 1])])
            }]
        })
        .await;
        let world = serve(&format!(". {{\n forward . UP1\n cache 60 {{\n {option}\n }}\n}}"), &[&upstream]);
        for (name, expect) in ["www.example", "no.example", "www.corp.example", "no.corp.example"].iter().zip(expect) {
            let first = world.a(name).await;
            assert_eq!(world.a(name).await, first);
            assert_eq!(asked_for(&upstream, name), expect, "{option:?} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn servfail_says_how_long_a_failure_is_remembered() {
    for (option, after, expect) in [("servfail 0", 0, 2), ("servfail 30s", 20, 1), ("servfail 30s", 31, 2), ("", 0, 1)]
    {
        let upstream = Upstream::start(|asked| vec![asked.code(ResponseCode::ServFail)]).await;
        let world = serve(&format!(". {{\n forward . UP1\n cache 60 {{\n {option}\n }}\n}}"), &[&upstream]);
        assert!(world.a("www.example").await.starts_with("ServFail"));
        world.elapse(secs(after)).await;
        assert!(world.a("www.example").await.starts_with("ServFail"));
        assert_eq!(asked_for(&upstream, "www.example"), expect, "{option:?} after {after} s");
    }
}

/// `serve_stale DURATION immediate TTL`.
#[tokio::test(start_paused = true)]
async fn stale_answers_have_the_ttl_that_is_given() {
    let upstream = Upstream::with_a(5, [192, 0, 2, 1]).await;
    let world = serve(". {\n forward . UP1\n cache {\n serve_stale 1h immediate 7s\n }\n}", &[&upstream]);
    world.a("www.example").await;
    upstream.now(|_| vec![Say::Wait(secs(60))]);
    world.elapse(secs(20)).await;
    let answer = world.ask("www.example", RecordType::A).await;
    assert_eq!(answer.answers[0].ttl, 7);
}

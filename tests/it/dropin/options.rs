//! Options of `forward` and `cache` as `CoreDNS` has them.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::dns::Transport;
use tokio::time::Instant;

use super::served::serve;
use crate::{
    forward::world::{World, asked_for, query, secs},
    support::upstream::{Say, Upstream, a, name},
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

/// The answer over UDP to a client that announces `payload` bytes, for a query with this id.
async fn over_udp(world: &World, owner: &str, rtype: RecordType, payload: u16, id: u16) -> Message {
    let mut asked = query(owner, rtype, Some(payload));
    asked[..2].copy_from_slice(&id.to_be_bytes());
    let resolved = world.resolve(asked, Transport::Udp).await;
    Message::from_vec(&resolved.message).expect("a well-formed answer")
}

#[tokio::test(start_paused = true)]
async fn loadbalance_begins_answers_of_all_kinds_with_another_record() {
    let upstream = Upstream::start(|asked| {
        let addresses = (1..=3).map(|nth| a(&asked.name(), 60, [192, 0, 2, nth])).collect();
        vec![asked.found(addresses)]
    })
    .await;
    for (option, expect) in [("", ["192.0.2.1"; 3]), ("loadbalance", ["192.0.2.1", "192.0.2.2", "192.0.2.3"])] {
        let text = format!(
            ". {{\n{option}\nhosts /none {{\n192.0.2.1 h.example\n192.0.2.2 h.example\n192.0.2.3 h.example\nfallthrough\n}}\n\
             template IN A t.example {{\nanswer \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"\nanswer \"{{{{ .Name }}}} 60 IN A 192.0.2.2\"\n\
             answer \"{{{{ .Name }}}} 60 IN A 192.0.2.3\"\n}}\nforward . UP1\ncache 60\n}}"
        );
        let world = serve(&text, &[&upstream]);
        for owner in ["www.example", "h.example", "t.example"] {
            // More than a worker takes to keep an answer of its own.
            for id in 0..30_u16 {
                let first = over_udp(&world, owner, RecordType::A, 1232, id).await.answers[0].data.to_string();
                assert_eq!(first, expect[usize::from(id % 3)], "{option:?} {owner}");
            }
            let at_hand = |id: u16| {
                world.at_hand_as(owner, RecordType::A, id).map(|(answer, _)| answer.answers[0].data.to_string())
            };
            if owner == "www.example" {
                assert_eq!([0, 1, 2].map(at_hand).map(Option::unwrap), expect, "on the client's own thread");
            }
        }
    }
}

/// CoreDNS 1.14.7 puts addresses of the first network first, then those of the second, then the others.
#[tokio::test(start_paused = true)]
async fn loadbalance_prefers_addresses_of_networks() {
    let upstream = Upstream::start(|asked| {
        let addresses = [[192, 0, 2, 1], [10, 0, 0, 2], [172, 16, 0, 3], [10, 0, 0, 4]];
        vec![asked.found(addresses.map(|ip| a(&asked.name(), 60, ip)).to_vec())]
    })
    .await;
    let text = ". {\nloadbalance round_robin {\nprefer 172.16.0.0/12 10.0.0.0/8\n}\nforward . UP1\ncache 60\n}";
    let world = serve(text, &[&upstream]);
    for id in 0..8 {
        let answer = over_udp(&world, "www.example", RecordType::A, 1232, id).await;
        let order: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!((order[0].as_str(), order[3].as_str()), ("172.16.0.3", "192.0.2.1"), "{order:?}");
        if let Some((answer, _)) = world.at_hand_as("www.example", RecordType::A, id) {
            assert_eq!(answer.answers[0].data.to_string(), "172.16.0.3", "on the client's own thread");
        }
    }
}

/// As with CoreDNS, a file that is missing weighs nothing and is taken up when it appears; one that is wrong too, which CoreDNS
/// does not start with.
#[tokio::test(start_paused = true)]
async fn loadbalance_weighs_addresses_by_a_file_that_may_come_later() {
    let upstream =
        Upstream::start(|asked| vec![asked.found((1..=3).map(|nth| a(&asked.name(), 60, [192, 0, 2, nth])).collect())])
            .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    let text = format!(". {{\nloadbalance weighted {} {{\nreload 5s\n}}\nforward . UP1\ncache 600\n}}", file.display());
    let world = serve(&text, &[&upstream]);
    let firsts = async || {
        let mut firsts = [0_u32; 3];
        for id in 0..200 {
            let answer = over_udp(&world, "www.example", RecordType::A, 1232, id).await;
            let first = answer.answers[0].data.to_string();
            firsts[usize::from(first.as_bytes()[first.len() - 1] - b'1')] += 1;
        }
        firsts
    };
    let problem = || world.forwarder.zones()[0].weights_missing.clone();
    assert!(firsts().await.iter().all(|count| *count > 10), "all alike without a file");
    assert!(problem().is_some_and(|problem| problem.contains("weights")), "status tells of it");
    std::fs::write(&file, "www.example\n192.0.2.2 255\n").unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(problem(), None);
    let weighed = firsts().await;
    assert!(weighed[1] >= 150, "{weighed:?}");
    std::fs::write(&file, "192.0.2.2 nonsense\n").unwrap();
    world.elapse(secs(3)).await;
    assert!(firsts().await[1] >= 150, "the old weights stay");
    assert!(problem().is_some());
}

/// As CoreDNS 1.14.7 does over UDP and TCP.
#[tokio::test(start_paused = true)]
async fn acl_drops_without_an_answer() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let text = ". {\nrewrite name exact old.example shut.example\nacl shut.example {\ndrop type A net 127.0.0.0/8\n}\nforward . UP1\n}";
    let world = serve(text, &[&upstream]);
    for (owner, rtype, dropped) in [
        ("shut.example", RecordType::A, true),
        ("old.example", RecordType::A, true),
        ("shut.example", RecordType::AAAA, false),
        ("open.example", RecordType::A, false),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let message = world.resolve(query(owner, rtype, None), transport).await.message;
            assert_eq!(message.is_empty(), dropped, "{owner} {rtype}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bufsize_bounds_answers_over_udp() {
    let upstream = Upstream::start(|asked| {
        let addresses = (0..60).map(|nth| a(&asked.name(), 60, [192, 0, 2, nth])).collect();
        vec![asked.found(addresses)]
    })
    .await;
    for (option, payload, whole) in
        [("", 1232, true), ("", 512, false), ("bufsize 600", 1232, false), ("bufsize 4096", 4096, true)]
    {
        let world = serve(&format!(". {{\n{option}\nforward . UP1\ncache 60\n}}"), &[&upstream]);
        for _ in 0..2 {
            let answer = over_udp(&world, "www.example", RecordType::A, payload, 7).await;
            assert_eq!(answer.metadata.truncation, !whole, "{option:?} {payload}");
            let bytes = answer.to_vec().expect("it was read").len();
            assert!(whole || (400..=600).contains(&bytes), "{option:?}: {bytes} bytes");
        }
        assert_eq!(world.ask("www.example", RecordType::A).await.answers.len(), 60, "all of it over TCP");
    }
}

#[tokio::test(start_paused = true)]
async fn options_of_edns_go_to_the_upstreams_of_the_block() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let text = ". {\nrewrite continue edns0 local set 0xffee 0x6162\nrewrite continue edns0 local set 0xffef {client_ip}\n\
                rewrite continue edns0 local set 0xfff0 {client_port} revert\n\
                rewrite continue edns0 local set 0xfff1 {server_ip}\nrewrite continue edns0 local set 0xfff2 {server_port}\n\
                rewrite continue edns0 local append 0xfff3 {protocol}\nrewrite continue edns0 local set 0xfff4 {qtype}\n\
                rewrite name exact old.example new.example\n\
                forward . UP1\n}";
    assert_eq!(serve(text, &[&upstream]).a("old.example").await, "NoError 192.0.2.1");
    let seen = upstream.seen();
    let asked = seen.iter().find(|asked| asked.name() == "new.example").expect("the new name is asked for");
    let edns = asked.message.edns.as_ref().expect("EDNS");
    let sent: Vec<(u16, Vec<u8>)> = (edns.options().as_ref().iter())
        .map(|(code, option)| (u16::from(*code), Vec::<u8>::try_from(option).expect("bytes")))
        .collect();
    // As CoreDNS 1.14.7 sends them for a client on 127.0.0.1:40000 that asks 169.254.20.10:53 over TCP.
    let expect: [(u16, &[u8]); 7] = [
        (0xFFEE, b"ab"),
        (0xFFEF, &[127, 0, 0, 1]),
        (0xFFF0, &[0x9C, 0x40]),
        (0xFFF1, &[169, 254, 20, 10]),
        (0xFFF2, &[0, 53]),
        (0xFFF3, b"tcp"),
        (0xFFF4, &[0, 1]),
    ];
    assert_eq!(sent, expect.map(|(code, data)| (code, data.to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_template_adds_records_of_the_additional_section_also_behind_a_rewrite() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let text = ". {\nrewrite name exact old.example mail.example\ntemplate IN MX mail.example {\n\
                answer \"{{ .Name }} 60 IN MX 10 mx.example.\"\nadditional \"mx.example. 60 IN A 192.0.2.25\"\n}\n\
                forward . UP1\n}";
    let world = serve(text, &[&upstream]);
    for owner in ["mail.example", "old.example"] {
        let answer = over_udp(&world, owner, RecordType::MX, 1232, 7).await;
        assert_eq!(answer.answers[0].name, name(owner));
        assert_eq!(answer.additionals[0].to_string(), "mx.example. 60 IN A 192.0.2.25", "{owner}");
        assert!(answer.edns.is_some());
    }
}

/// CoreDNS's cache bounds what comes from its templates.
#[tokio::test(start_paused = true)]
async fn ttls_of_templates_are_within_those_of_the_cache() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    for (option, expect) in [("", 600), ("cache 30", 30)] {
        let text = format!(
            ". {{\n{option}\ntemplate IN A t.example {{\nanswer \"{{{{ .Name }}}} 600 IN A 192.0.2.7\"\n}}\nforward . UP1\n}}"
        );
        let answer = serve(&text, &[&upstream]).ask("t.example", RecordType::A).await;
        assert_eq!(answer.answers[0].ttl, expect, "{option:?}");
    }
}

//! Answers of many records: what fits, what is cut, and where they begin.

use std::{collections::BTreeSet, fmt::Write as _};

use hickory_proto::op::Message;
use holdfast::{
    dns::Transport,
    wire::{Name, Rtype},
};

use super::Asker;
use crate::support::ask::query;

/// A cluster of services with many endpoints: `small` has 3, `medium` 40, `sets` 40 with hostnames, `large` 300, `wide`
/// 2,200 and `huge` 4,096, which is more than a message holds of SRV and of A records; and a chain of aliases with names as
/// long as may be.
pub fn cluster() -> String {
    let mut text = String::from("namespace many\n");
    for (service, count) in [("small", 3), ("medium", 40), ("large", 300), ("wide", 2_200), ("huge", 4_096)] {
        let _ = writeln!(text, "headless many/{service}");
        for index in 0..count {
            let _ = writeln!(text, "endpoint many/{service} 10.2.{}.{} pg:5432/tcp", index / 200, index % 200);
        }
    }
    text.push_str("headless many/sets\n");
    for index in 0..40 {
        let _ = writeln!(text, "endpoint many/sets 10.3.0.{index} hostname=sets-{index} pg:5432/tcp");
    }
    text.push_str("headless many/twins\n");
    for index in 0..3 {
        let _ = writeln!(text, "endpoint many/twins 10.4.0.{index} hostname=twin pg:5432/tcp");
    }
    let alias = |index| format!("{}{index:02}", "a".repeat(61));
    for index in 0..16 {
        let _ = writeln!(text, "external many/{} {}.many.svc.cluster.local", alias(index), alias(index + 1));
    }
    let _ = writeln!(text, "external many/{} away.example", alias(16));
    text
}

/// Asks for those. The cluster is [`cluster`].
pub fn check_sizes(ask: Asker<'_>) {
    forty_fit(ask);
    three_hundred_need_tcp(ask);
    answers_beyond_any_message_are_cut(ask);
    records_that_fit_are_given_and_addresses_only_of_them(ask);
    answers_rotate(ask);
    a_long_chain_ends(ask);
}

fn asked(ask: Asker<'_>, name: &str, qtype: Rtype, edns: Option<u16>, transport: Transport) -> Message {
    let name: Name = name.parse().unwrap();
    let reply = ask(transport, &query(name.wire(), qtype, edns)).expect("there is an answer");
    let limit = if transport == Transport::Udp { usize::from(edns.unwrap_or(512)).clamp(512, 1232) } else { 65_535 };
    assert!(reply.len() <= limit, "{name}: {} bytes", reply.len());
    Message::from_vec(&reply).expect("the answer parses")
}

/// How many answers there are, and whether more are to be had over TCP.
fn size(message: &Message) -> (usize, bool) {
    (message.answers.len(), message.metadata.truncation)
}

fn forty_fit(ask: Asker<'_>) {
    let name = "medium.many.svc.cluster.local";
    assert_eq!(size(&asked(ask, name, Rtype::A, Some(1232), Transport::Udp)), (40, false));
    assert_eq!(size(&asked(ask, name, Rtype::A, Some(4096), Transport::Udp)), (40, false));
    assert_eq!(size(&asked(ask, name, Rtype::A, None, Transport::Udp)), (29, true));
    assert_eq!(size(&asked(ask, name, Rtype::A, Some(0), Transport::Udp)), (28, true));
    assert_eq!(size(&asked(ask, name, Rtype::A, None, Transport::Tcp)), (40, false));
}

fn three_hundred_need_tcp(ask: Asker<'_>) {
    let name = "large.many.svc.cluster.local";
    for (edns, fit) in [(None, 29), (Some(512), 28), (Some(1232), 73), (Some(4096), 73), (Some(65_535), 73)] {
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let message = asked(ask, name, Rtype::A, edns, Transport::Udp);
            assert_eq!((size(&message), message.additionals.len()), ((fit, true), 0), "{edns:?}");
            seen.extend(message.answers.iter().map(|record| record.data.to_string()));
        }
        assert_eq!(seen.len(), 300, "{edns:?}: each address has its turn");
        assert_eq!(size(&asked(ask, name, Rtype::A, edns, Transport::Tcp)), (300, false), "{edns:?}");
    }
    let srv = asked(ask, name, Rtype::SRV, Some(1232), Transport::Tcp);
    assert_eq!((size(&srv), srv.additionals.len()), ((300, false), 300));
    assert!(srv.answers.iter().all(|record| record.data.to_string().starts_with("0 1 5432 ")), "the weight is 1");
}

fn answers_beyond_any_message_are_cut(ask: Asker<'_>) {
    for (name, qtype, least, all) in [
        ("huge.many.svc.cluster.local", Rtype::A, 4_085, 4_096),
        ("wide.many.svc.cluster.local", Rtype::SRV, 1_900, 2_200),
    ] {
        for edns in [None, Some(1232)] {
            let (answers, truncated) = size(&asked(ask, name, qtype, edns, Transport::Udp));
            assert!(truncated && answers >= 8, "{name} {qtype}: {answers}");
            let message = asked(ask, name, qtype, edns, Transport::Tcp);
            let (answers, truncated) = size(&message);
            assert!(truncated && (least..all).contains(&answers), "{name} {qtype}: {answers} of {all}");
            let distinct: BTreeSet<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
            assert_eq!((distinct.len(), message.additionals.len()), (answers, 0), "{name} {qtype}");
            assert_eq!(message.edns.is_some(), edns.is_some());
        }
    }
    assert_eq!(size(&asked(ask, "wide.many.svc.cluster.local", Rtype::A, None, Transport::Tcp)), (2_200, false));
}

fn records_that_fit_are_given_and_addresses_only_of_them(ask: Asker<'_>) {
    for name in ["_pg._tcp.sets.many.svc.cluster.local", "_pg._tcp.medium.many.svc.cluster.local"] {
        for (edns, transport) in [(None, Transport::Udp), (Some(1232), Transport::Udp), (Some(1232), Transport::Tcp)] {
            let message = asked(ask, name, Rtype::SRV, edns, transport);
            let (answers, truncated) = size(&message);
            assert!(answers == 40 || (answers >= 8 && truncated), "{name} {transport:?}: {answers} of 40");
            assert!(message.additionals.len() <= answers, "{name}: addresses of what is not there");
            assert!(transport == Transport::Udp || message.additionals.len() == 40, "{name}");
        }
    }
}

fn answers_rotate(ask: Asker<'_>) {
    for (name, qtype, count) in [
        ("small.many.svc.cluster.local", Rtype::A, 3),
        ("medium.many.svc.cluster.local", Rtype::A, 40),
        ("twin.twins.many.svc.cluster.local", Rtype::A, 3),
        ("small.many.svc.cluster.local", Rtype::SRV, 3),
        ("_pg._tcp.small.many.svc.cluster.local", Rtype::SRV, 3),
    ] {
        let mut first = BTreeSet::new();
        for _ in 0..count * 4 {
            let message = asked(ask, name, qtype, Some(1232), Transport::Udp);
            let distinct: BTreeSet<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
            assert_eq!((message.answers.len(), distinct.len()), (count, count), "{name}");
            first.insert(message.answers[0].data.to_string());
        }
        assert_eq!(first.len(), count, "{name} {qtype}: each comes first at times");
    }
}

fn a_long_chain_ends(ask: Asker<'_>) {
    let alias = |index: usize| format!("{}{index:02}.many.svc.cluster.local", "a".repeat(61));
    // The last that is followed to its end has 16 aliases, the first of all one more.
    for (start, aliases, left) in [(15, 2, true), (1, 16, true), (0, 16, false)] {
        let message = asked(ask, &alias(start), Rtype::A, Some(1232), Transport::Tcp);
        let followed = message.answers.iter().filter(|record| record.data.to_string().ends_with('.')).count();
        assert_eq!((followed, message.answers.len() - followed), (aliases, usize::from(left)), "from {start}");
    }
    let (answers, truncated) = size(&asked(ask, &alias(0), Rtype::A, None, Transport::Udp));
    assert!(truncated && answers < 16, "{answers} aliases in 512 bytes");
}

//! What holds whichever way a query comes.

use std::{future::ready, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::{RecordType, rdata::opt::EdnsOption},
};
use holdfast::dns::{Config, ForwardRequest, Resolve, Resolved, ServedFrom};

use crate::support::dns::{
    Script, Tcp, ask_tcp, ask_udp, bind, edns_query, gist, message, query, receive, records, serve, serve_with, start,
    udp,
};

const WEB: &str = "web.prod.svc.cluster.local.";

type Ask = fn(std::net::SocketAddr, &[u8]) -> Message;
const BOTH: [(&str, Ask); 2] = [("udp", ask_udp), ("tcp", ask_tcp)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_answers_over_udp_and_tcp() {
    let bound = bind(&["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"], Config::default());
    let server = serve(bound, records());
    let query = query(7, "Web.prod.svc.cluster.local.", RecordType::A);
    for &address in &server.addresses {
        let port = address.port();
        let asked: Vec<std::net::SocketAddr> = match address.to_string().split_once("0.0.0.0:") {
            Some(_) => vec![([127, 0, 0, 1], port).into(), ([127, 0, 0, 2], port).into()],
            None if address.ip().is_unspecified() => vec![(std::net::Ipv6Addr::LOCALHOST, port).into()],
            None => vec![address],
        };
        for asked in asked {
            for (transport, ask) in BOTH {
                let answer = ask(asked, &query);
                assert_eq!(gist(&answer), (7, ResponseCode::NoError, 1), "{transport} {asked}");
                assert_eq!(answer.answers[0].name.to_string(), "Web.prod.svc.cluster.local.");
            }
        }
    }
}

/// A resolver with a rule that drops everything.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: ForwardRequest) -> BoxFuture<'static, Resolved> {
        ready(Resolved { message: Vec::new(), from: ServedFrom::Cluster }).boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_a_rule_drops_gets_no_answer_and_those_behind_it_do() {
    let bound = bind(&["127.0.0.1:0"], Config { workers: 1, ..Config::default() });
    let server = serve_with(bound, records(), &Script::new(), Arc::new(Silent));
    let (client, mut stream) = (udp(server.address()), Tcp::connect(server.address()));
    client.send(&query(1, "example.org.", RecordType::A)).unwrap();
    stream.send(&query(2, "example.org.", RecordType::A));
    server.wait_for_count("holdfast_dns_drops_total", &[("reason", "acl")], 2).await;
    client.send(&query(3, WEB, RecordType::A)).unwrap();
    assert_eq!(gist(&receive(&client)).0, 3);
    stream.send(&query(4, WEB, RecordType::A));
    assert_eq!(gist(&stream.receive()).0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_queries_are_answered_as_rfc_8906_asks() {
    let server = start(Config::default());
    let name = "web.prod.svc.cluster.local.";
    let with = |change: fn(&mut Message)| {
        let mut message = message(1, name, RecordType::A);
        change(&mut message);
        message.to_vec().unwrap()
    };
    let raw = |change: fn(&mut Vec<u8>)| {
        let mut bytes = query(1, name, RecordType::A);
        change(&mut bytes);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, ResponseCode, usize)> = vec![
        ("a plain query", query(1, name, RecordType::A), ResponseCode::NoError, 1),
        ("an unknown type", query(1, name, RecordType::Unknown(1_000)), ResponseCode::NoError, 0),
        ("every flag", raw(|bytes| bytes[3] |= 0x7F), ResponseCode::NoError, 1),
        ("an unknown opcode", raw(|bytes| bytes[2] = 15 << 3), ResponseCode::NotImp, 0),
        ("NOTIFY", with(|message| message.metadata.op_code = OpCode::Notify), ResponseCode::NotImp, 0),
        ("no question", b"\0\x01\0\0\0\0\0\0\0\0\0\0".to_vec(), ResponseCode::FormErr, 0),
        ("a cut question", raw(|bytes| bytes.truncate(20)), ResponseCode::FormErr, 0),
        ("class CH", raw(|bytes| *bytes.last_mut().unwrap() = 3), ResponseCode::Refused, 0),
        ("AXFR", query(1, "cluster.local.", RecordType::AXFR), ResponseCode::Refused, 0),
        ("EDNS", with(|message| message.edns = Some(Edns::new())), ResponseCode::NoError, 1),
        (
            "an unknown option",
            with(|message| {
                let mut edns = Edns::new();
                edns.options_mut().insert(EdnsOption::Unknown(100, vec![1, 2]));
                message.edns = Some(edns);
            }),
            ResponseCode::NoError,
            1,
        ),
        (
            // hickory calls code 16 by its other name.
            "EDNS of the future",
            with(|message| {
                let mut edns = Edns::new();
                edns.set_version(1);
                message.edns = Some(edns);
            }),
            ResponseCode::BADSIG,
            0,
        ),
    ];
    for (case, bytes, code, answers) in cases {
        for (transport, ask) in BOTH {
            let answer = ask(server.address(), &bytes);
            let found = (answer.metadata.response_code, answer.answers.len());
            assert_eq!(found, (code, answers), "{case} over {transport}");
            let sent_edns = Message::from_vec(&bytes).is_ok_and(|message| message.edns.is_some());
            assert_eq!(answer.edns.is_some(), sent_edns, "{case} over {transport}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_endpoints_come_over_tcp_in_one_message_and_are_cut_over_udp() {
    let server = start(Config::default());
    let many = edns_query(1, "many.prod.svc.cluster.local.", RecordType::A, 4_096);
    let cut = ask_udp(server.address(), &many);
    assert!(cut.metadata.truncation);
    let whole = ask_tcp(server.address(), &many);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 300);

    let few = ask_udp(server.address(), &edns_query(1, "few.prod.svc.cluster.local.", RecordType::A, 1_232));
    assert_eq!((few.metadata.truncation, few.answers.len()), (false, 40));
    assert!(ask_udp(server.address(), &query(1, "few.prod.svc.cluster.local.", RecordType::A)).metadata.truncation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_outside_come_back_from_the_forwarder_and_aliases_with_their_cnames() {
    let server = start(Config::default());
    for (transport, ask) in BOTH {
        let plain = ask(server.address(), &query(3, "example.org.", RecordType::A));
        assert_eq!(gist(&plain), (3, ResponseCode::NoError, 0), "{transport}");
        let alias = ask(server.address(), &query(4, "outside.prod.svc.cluster.local.", RecordType::A));
        assert_eq!(gist(&alias), (4, ResponseCode::NoError, 1), "{transport}");
        assert_eq!(alias.answers[0].record_type(), RecordType::CNAME);
    }
    server.wait_for_count("holdfast_dns_responses_total", &[("from", "upstream")], 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_forwards_up_to_their_bound_hold_up_nobody() {
    // One client has half of the places.
    let server = start(Config { forwards_max: 6, workers: 1, ..Config::default() });
    let client = udp(server.address());
    for id in 0..3 {
        client.send(&query(id, "slow.example.org.", RecordType::A)).unwrap();
    }
    server.script.wait_for(3).await;
    client.send(&edns_query(3, "slow.example.org.", RecordType::A, 1_232)).unwrap();
    let refused = receive(&client);
    assert_eq!(gist(&refused), (3, ResponseCode::ServFail, 0));
    assert!(refused.edns.unwrap().option(hickory_proto::rr::rdata::opt::EdnsCode::Unknown(15)).is_some());
    client.send(&query(4, "web.prod.svc.cluster.local.", RecordType::A)).unwrap();
    assert_eq!(gist(&receive(&client)), (4, ResponseCode::NoError, 1));
    // TCP has room of its own.
    assert_eq!(gist(&ask_tcp(server.address(), &query(5, "example.org.", RecordType::A))).0, 5);
    assert_eq!(server.count("holdfast_dns_forwards_refused_total", &[("proto", "udp")]), 1);
    assert_eq!(server.count("holdfast_dns_forwards_in_flight", &[("proto", "udp")]), 3);
    server.script.gate.add_permits(3);
    let mut ids: Vec<u16> = (0..3).map(|_| receive(&client).id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2]);
}
